import { Command, CommanderError, Option } from 'commander';
import { defaultLasSocket, defaultPorts } from '../protocol/address.ts';
import { version } from '../version.ts';
import { attestCas } from './attest.ts';
import { listCas, showIdentification } from './cas.ts';
import { exitStatus, formatError } from './report.ts';
import { showSelf } from './self.ts';
import { checkSession, createSession, readSession } from './session.ts';

/** scone: the command for people, and the two servers. */
const program = new Command('scone')
  .description('Sessions, CAS and LAS: everything around envcas.')
  .version(version, '-V, --version')
  .showHelpAfterError('Run with --help to see how it is used.')
  .configureHelp({ showGlobalOptions: false });

const collect = (value: string, before: string[] = []) => [...before, value];
const logLevel = (level: string) =>
  new Option('--log-level <level>', 'what is logged on standard error')
    .choices(['trace', 'debug', 'info', 'warn', 'error', 'fatal'])
    .default(level);

program
  .command('up')
  .description('run a CAS and a LAS for this machine in the foreground')
  .option('--dir <dir>', 'keep everything there (default: $XDG_STATE_HOME/scone or ~/.local/state/scone)')
  .option(
    '--free-ports',
    `listen on any free ports instead of ${defaultPorts.api} and ${defaultPorts.enclave}`,
  )
  .addOption(logLevel('error'))
  .addHelpText('after', '\nExample:\n  scone up &\n  . ~/.local/state/scone/env')
  // The servers bring libraries that no other command needs.
  .action(async (options) => (await import('./serve.ts')).up(options));

const cas = program.command('cas').description('the configuration and attestation service');
cas
  .command('serve')
  .description('run a CAS in the foreground')
  .requiredOption('--dir <dir>', 'keep store and master key there')
  .option('--host <address>', 'address to listen on', '0.0.0.0')
  .option('--api-port <port>', 'port for people and tools', String(defaultPorts.api))
  .option('--enclave-port <port>', 'port for launchers', String(defaultPorts.enclave))
  .option('--name <host>', 'further host name for the certificate (repeatable)', collect)
  .option('--trusted-platform <key>', 'trust this LAS key, 64 hexadecimal digits (repeatable)', collect)
  .option('--las <socket>', 'the LAS that vouches for this CAS', defaultLasSocket)
  .addOption(logLevel('info'))
  .action(async (options) => (await import('./serve.ts')).runCas(options));
cas
  .command('attest')
  .description('check a CAS and pin its key; the first one becomes the default')
  .argument('<address>', 'HOST or HOST:PORT')
  .argument('[mrenclave]', 'measurement that the CAS must have')
  .option('--mrenclave <hex>', 'a measurement that the CAS may have (repeatable)', collect)
  .option('-c, --cas-key-hash <hash>', 'the key that the CAS must have')
  .option('--trusted-platform <key>', 'trust this LAS key (repeatable)', collect)
  .option('-C, --accept-configuration-needed', 'tolerate hardware that needs configuration')
  .option('-G, --accept-group-out-of-date', 'tolerate hardware that needs updates')
  .option('-S, --accept-sw-hardening-needed', 'tolerate hardware that needs software hardening')
  .option('--only_for_testing-debug', 'tolerate debug mode, and so software Evidence')
  .option('--only_for_testing-ignore-signer', 'do not ask who signed the CAS')
  .option('--only_for_testing-trust-any', 'trust any measurement and any LAS')
  .action(attestCas);
cas.command('list').description('list the attested CASes').action(listCas);
cas
  .command('show-identification')
  .description('print the key hash of an attested CAS')
  .argument('[cas]', 'its name (default: the default CAS)')
  .option('-c, --cas-key-hash', 'the key hash (the default)')
  .option('-T, --chain', 'the certificate chain as PEM, for curl --cacert')
  .action(showIdentification);

program
  .command('las')
  .description('the local attestation service')
  .command('serve')
  .description('run a LAS in the foreground')
  .requiredOption('--dir <dir>', 'keep its key there')
  .option('--socket <path>', 'Unix socket to listen on', defaultLasSocket)
  .option('--cas <address[=key hash]>', 'tell launchers the key of this CAS (repeatable)', collect)
  .addOption(logLevel('info'))
  .action(async (options) => (await import('./serve.ts')).runLas(options));

const session = program.command('session').description('sessions, also called policies');
const templated = (command: Command) =>
  command
    .option('-e <NAME=VALUE>', 'value of a template variable (repeatable)', collect)
    .option('--use-env', 'take template variables from the environment, where -e gives none');
const networked = (command: Command) =>
  command.option('-c, --cas <name>', 'an attested CAS (default: the default one)');
templated(session.command('check'))
  .description('check a session file and print it with its variables filled in')
  .argument('<file>', 'session file, - for standard input')
  .action(checkSession);
networked(templated(session.command('create')))
  .description('upload a session and print its hash')
  .argument('<file>', 'session file, - for standard input')
  .addHelpText('after', '\nExample:\n  scone session create -e SESSION=demo session.yaml')
  .action(createSession);
networked(session.command('read'))
  .description('print the text of a session')
  .argument('<name>', 'session name')
  .option('--hash', 'print the hash of its present version instead, for `predecessor`')
  .action(readSession);

program
  .command('self')
  .description("the user's own identity")
  .command('show')
  .description('print key hash and certificate')
  .action(showSelf);

async function main(): Promise<void> {
  const EX_USAGE = 64;
  const override = (command: Command) => {
    command.exitOverride();
    command.commands.forEach(override);
  };
  override(program);
  try {
    await program.parseAsync(process.argv);
  } catch (error) {
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : EX_USAGE;
    else {
      process.stderr.write(formatError(error));
      process.exitCode = exitStatus(error);
    }
  }
}

void main();
