import { type Command, Option } from 'commander';
import { AMD, INTEL } from '../../cas/collateral/source.ts';
import { MEBIBYTES_PER_CLIENT, SESSIONS_PER_CLIENT } from '../../cas/limits/stored.ts';
import { defaultLasSocket, defaultPorts } from '../../policy/address.ts';
import { leaveOutOptions } from '../left-out.ts';
import {
  collect,
  example,
  logLevel,
  networked,
  retries,
  structured,
  timeOption,
  wholeNumber,
} from '../options.ts';
import { prints, serves } from '../output.ts';
import { addOwnerCommands } from './cas-owner.ts';

/** `scone cas …` */
export function addCas(program: Command): void {
  const cas = program.command('cas').description('the configuration and attestation service');
  const load = () => import('../cas.ts');
  cas
    .command('serve')
    .description('run a CAS in the foreground')
    .option('--config <file>', 'what is not said here, as TOML')
    .requiredOption('--dir <dir>', 'keep master key and store there')
    .option('--store <address>', 'sqlite:PATH or postgres://USER@HOST/DATABASE (default: a file in --dir)')
    .option('--key-file <file>', 'key that opens the store (default: master.key in --dir)')
    .option('--passphrase-file <file>', 'passphrase that opens the store')
    .option(
      '--unseal-from <address=keyhash>',
      'a CAS that this one is registered at, to be given the root key (repeatable)',
      collect,
    )
    .option('--host <address>', 'address to listen on', '0.0.0.0')
    .option('--api-port <port>', 'port for people and tools', String(defaultPorts.api))
    .option('--enclave-port <port>', 'port for launchers', String(defaultPorts.enclave))
    .option(
      '--proxy-protocol-from <address>',
      'a balancer, or /PREFIX of several, that says by the PROXY protocol v2 whom a connection is from (repeatable)',
      collect,
    )
    .option('--workers <number>', 'processes that share the work; all: one on each core', 'all')
    .option('--audit-log <file>', 'append the audit log to this file too, for whoever collects logs')
    .option(
      '--sessions-per-client <number>',
      'sessions that one client may create',
      String(SESSIONS_PER_CLIENT),
    )
    .option(
      '--mebibytes-per-client <number>',
      'how much all versions may have that one client has uploaded',
      String(MEBIBYTES_PER_CLIENT),
    )
    .option('--metrics <address>', 'answer /metrics, /healthz and /readyz there, without TLS: HOST:PORT')
    .option(
      '--otlp <url>',
      'OTLP collector that is sent a trace of each release (default: OTEL_EXPORTER_OTLP_ENDPOINT)',
    )
    .option('--name <host>', 'further host name for the certificate (repeatable)', collect)
    .option('--trusted-platform <key>', 'trust this LAS key, 64 hexadecimal digits (repeatable)', collect)
    .option('--las <socket>', 'the LAS that vouches for this CAS', defaultLasSocket)
    .option('--pccs <url>', "Intel's service for collateral, or a caching one in its place", INTEL)
    .option('--pccs-ca <file>', 'certificates that a caching service is checked by, as PEM')
    .option('--kds <url>', "AMD's service for collateral", AMD)
    .option('--offline', 'fetch no collateral; `scone cas collateral import` brings it')
    .option(
      '--tpm-roots <file>',
      'certificates of makers whose TPMs may be enrolled, roots and those in between, as PEM',
    )
    .option('--trusted-tpm <key>', 'a TPM that may be enrolled, by its endorsement key (repeatable)', collect)
    .addOption(logLevel('info'))
    .addHelpText('after', example('scone cas serve --dir /var/lib/scone --trusted-platform LASKEY'))
    .action(serves(async () => (await import('../serve-cas.ts')).runCas));
  structured(cas.command('check-config'))
    .description('check a file for `scone cas serve --config`')
    .argument('<file>', 'TOML')
    .action(prints(async () => (await import('../cas-configuration.ts')).checkCasConfiguration));
  const attest = attested(structured(cas.command('attest')), '-c, --cas-key-hash <hash>')
    .description('check a CAS and pin its key; the first one becomes the default')
    .argument('<address>', 'HOST or HOST:PORT')
    .argument('[mrenclave]', 'measurement that the CAS must have')
    .option('--offline-report <file>', 'check what GET /v1/attest gave, instead of asking')
    .option('--nonce <hex>', 'what it was asked with')
    .addHelpText(
      'after',
      example(
        'scone cas attest cas.example.org MRENCLAVE --trusted-platform LASKEY \\',
        '    --only_for_testing-debug --only_for_testing-ignore-signer',
      ),
    )
    .action(prints(async () => (await import('../attest.ts')).attestCas));
  leaveOutOptions(attest, [
    ['-s, --software-key-hash <hash>', 'a CAS has one key, which its Evidence is bound to'],
  ]);
  addOwnerCommands(cas);
  addCollateral(cas);
  structured(cas.command('list'))
    .description('list the attested CASes, the default one marked')
    .action(prints(async () => (await load()).listCas));
  structured(cas.command('set-default'))
    .description('choose the CAS that commands go to')
    .argument('<cas>', 'its name in `scone cas list`')
    .action(prints(async () => (await load()).setDefaultCas));
  structured(cas.command('show-certificate'))
    .description('print the certificate chain of an attested CAS as PEM')
    .argument('[cas]', 'its name (default: the default CAS)')
    .action(prints(async () => (await load()).showCertificate));
  const identification = structured(cas.command('show-identification'))
    .description('print what there is to know an attested CAS by')
    .argument('[cas]', 'its name (default: the default CAS)')
    .addOption(
      new Option('-c, --cas-key-hash', 'the key hash, for SCONE_CAS_KEY (the default)').conflicts([
        'certificate',
        'chain',
        'sessionEncryptionKey',
      ]),
    )
    .addOption(
      new Option('-C, --certificate', 'its certificate as PEM').conflicts(['chain', 'sessionEncryptionKey']),
    )
    .addOption(
      new Option('-T, --chain', 'the certificate chain as PEM, for curl --cacert').conflicts(
        'sessionEncryptionKey',
      ),
    )
    .option('--session-encryption-key', 'public key for sessions that only this CAS can open, as PEM')
    .action(prints(async () => (await load()).showIdentification));
  leaveOutOptions(identification, [
    ['-s, --software-key-hash', 'a CAS has one key, which -c shows'],
    ['-S, --software-certificate', 'a CAS has one certificate, which -C shows'],
  ]);
  structured(cas.command('version'))
    .description('print the version of an attested CAS')
    .argument('[cas]', 'its name (default: the default CAS)')
    .addOption(retries())
    .action(prints(async () => (await load()).showCasVersion));
}

/**
 * Gives a command what is expected of a CAS, and what is tolerated.
 * @param keyHash how the option is called by which its key is named
 */
export function attested(command: Command, keyHash: string): Command {
  return command
    .option('--mrenclave <hex>', 'a measurement that the CAS may have (repeatable)', collect)
    .option(keyHash, 'the key that the CAS must have')
    .option('--trusted-platform <key>', 'trust this LAS key (repeatable)', collect)
    .addOption(retries())
    .option('--mrsigner <hex>', 'who must have signed the enclave of the CAS; needs the next two')
    .option('--isvprodid <number>', 'product of that signer', (text) => wholeNumber(text, 0, 65535))
    .option('--isvsvn <number>', 'least security version of it', (text) => wholeNumber(text, 0, 65535))
    .option(
      '--run-as <whom>',
      'as whom it may run: uid:N, user:NAME or unit:NAME.service (repeatable; default: uid:0 and unit:envcas-cas.service)',
      collect,
    )
    .option('--machine <file>', 'the machine that the CAS must run on: tdx, sev_snp or tpm, as in a policy')
    .option(
      '--tpm-key <name>',
      "attestation key of the CAS's TPM, as `scone las enrol` names it (repeatable)",
      collect,
    )
    .option('-C, --accept-configuration-needed', 'tolerate hardware that needs configuration')
    .option('-G, --accept-group-out-of-date', 'tolerate hardware that needs updates')
    .option('-S, --accept-sw-hardening-needed', 'tolerate hardware that needs software hardening')
    .option(
      '--tolerate <weakness>',
      'tolerate another weakness, such as hyperthreading (repeatable)',
      collect,
    )
    .option('--ignore-advisory <id>', 'ignore a security advisory (repeatable)', collect)
    .addOption(timeOption('--verification-time <time>'))
    .option('--allow-cas-owner-secret-access', 'changes nothing: a CAS has no owner who could read secrets')
    .option('--only_for_testing-debug', 'tolerate debug mode, and so software Evidence')
    .option('--only_for_testing-ignore-signer', 'do not ask who signed the CAS')
    .option('--only_for_testing-trust-any', 'trust any measurement, any LAS, and without --run-as any user')
    .option('--only_for_testing_allow-unprovisioned-cas', 'changes nothing: a CAS needs no provisioning');
}

/** `scone cas collateral …` */
function addCollateral(cas: Command): void {
  const load = () => import('../collateral.ts');
  const collateral = cas
    .command('collateral')
    .description('what makers of hardware publish, by which a CAS checks their Evidence');
  networked(structured(collateral.command('list')))
    .description('list what the CAS has, and until when it is good')
    .action(prints(async () => (await load()).listCollateral));
  networked(structured(collateral.command('import')))
    .description(
      'give the CAS collateral; it keeps what its maker has signed and is not older than what it has',
    )
    .argument('<file...>', 'files, or folders of them')
    .addHelpText('after', example('scone cas collateral import /media/usb/collateral'))
    .action(prints(async () => (await load()).importCollateral));
}
