import { type Command, InvalidArgumentError, Option } from 'commander';
import { example, identity, networked, retries, structured, wholeNumber } from '../options.ts';
import { prints } from '../output.ts';
import { attested } from './cas.ts';

/** Those of `scone cas` that an owner, an operator or an auditor needs. */
export function addOwnerCommands(cas: Command): void {
  const owner = () => import('../owner.ts');
  const store = () => import('../store.ts');
  const auditLog = () => import('../audit-log.ts');

  const provision = attested(structured(cas.command('provision')), '-c, --cas-key-hash <hash>');
  provision
    .description('become the owner of a CAS, with the token that it prints')
    .argument('<address>', 'HOST or HOST:PORT')
    .argument('<how>', 'with-attestation, or only_for_testing-without-attestation')
    .addOption(
      new Option('--token <hex>', 'what the CAS has printed; other users may see it here').conflicts(
        'tokenFile',
      ),
    )
    .option('--token-file <file>', 'file with the token (default: standard input)')
    .requiredOption('--config-file <file>', 'configuration of the owner: TOML, JSON or YAML')
    .addOption(identity())
    .addHelpText(
      'after',
      example('scone cas provision -c KEYHASH --config-file owner.toml cas.example.org with-attestation …'),
    )
    .action(prints(async () => (await owner()).provisionCas));
  networked(structured(cas.command('show-config')))
    .description('print the configuration of the owner')
    .action(prints(async () => (await owner()).showOwnerConfiguration));
  networked(structured(cas.command('update-config')))
    .description('replace the configuration of the owner')
    .requiredOption('--config-file <file>', 'TOML, JSON or YAML')
    .action(prints(async () => (await owner()).updateOwnerConfigurationOf));

  methods(stored(structured(cas.command('init'))))
    .description('make an empty store, and say by what it opens')
    .addHelpText('after', example('scone cas init --dir /var/lib/scone --shares 2/3 --new-passphrase'))
    .action(prints(async () => (await store()).initStore));
  methods(stored(structured(cas.command('rekey'))))
    .description('make a new root key, which opens by other methods; the old ones open nothing any more')
    .addHelpText('after', example('scone cas rekey --dir /var/lib/scone --shares 3/5'))
    .action(prints(async () => (await store()).rekeyStore));
  structured(cas.command('rotate'))
    .description('make a new master key: of a running CAS, or with --dir of a store')
    .option('--dir <dir>', 'the store of a CAS that is stopped')
    .option('--store <address>', 'where it is not in --dir')
    .option('--key-file <file>', 'key that opens it (default: master.key in --dir)')
    .option('--passphrase-file <file>', 'passphrase that opens it')
    .option('-c, --cas <cas>', 'an attested CAS (default: the default one)')
    .addOption(identity())
    .addOption(retries())
    .action(
      prints(async () => async (options) => {
        if (options.dir === undefined) return (await owner()).rotateCas(options);
        return (await store()).rotateStore(options);
      }),
    );
  attested(structured(cas.command('unseal')), '--cas-key-hash <hash>')
    .description('give a sealed CAS a passphrase or a share, once it is attested')
    .argument('<address>', 'HOST or HOST:PORT')
    .argument('[mrenclave]', 'measurement that the CAS must have')
    .option('--share', 'what is given is a share')
    .option('--secret-file <file>', 'file with the passphrase or share (default: standard input)')
    .action(prints(async () => (await owner()).unsealCas));
  networked(structured(cas.command('seal')))
    .description('have a running CAS forget its keys, until somebody unseals it')
    .action(prints(async () => (await owner()).sealCas));

  networked(structured(cas.command('backup')))
    .description('write all that a running CAS keeps into a new file, sealed as it is')
    .argument('<file>', 'where there is none yet')
    .addHelpText('after', example('scone cas backup cas-2026-11-24.backup'))
    .action(prints(async () => (await owner()).backupCas));
  networked(structured(cas.command('restore')))
    .description('put a backup in the place of what a running CAS has; or with --dir into an empty store')
    .argument('<file>', 'made by `scone cas backup`')
    .option('--dir <dir>', 'an empty store, of a CAS that is started afterwards')
    .option('--store <address>', 'where it is not in --dir')
    .option('--key-file <file>', 'with --dir: key that opens the backup (default: master.key in --dir)')
    .option('--passphrase-file <file>', 'with --dir: passphrase that opens the backup')
    .option('--without-code', 'show what a backup that 0.1.0 has made changes; with --yes, restore it')
    .option('-y, --yes', 'with --without-code: this is wanted')
    .addOption(
      new Option('--run-as <whom>').hideHelp().argParser(() => {
        throw new InvalidArgumentError(
          'A restore goes to the CAS that was attested, by its key, and nobody else can open it.',
        );
      }),
    )
    .action(
      prints(async () => async (file: string, options) => {
        if (options.dir === undefined) return (await owner()).restoreCas(file, options);
        return (await store()).restoreStore(file, options);
      }),
    );
  stored(structured(cas.command('check-store')))
    .description(
      'look at every row of a store: whether all is as the CAS has written it, and nothing is missing',
    )
    .action(prints(async () => (await store()).checkWholeStore));
  structured(cas.command('migrate'))
    .description(
      'copy the store of a CAS that is stopped into an empty database; the old one is not used again',
    )
    .requiredOption('--from <address>', 'sqlite:PATH or postgres://USER@HOST/DATABASE')
    .requiredOption('--to <address>', 'the same')
    .addHelpText(
      'after',
      example('scone cas migrate --from sqlite:/var/lib/scone/cas.db --to postgres://cas@db.example.org/cas'),
    )
    .action(prints(async () => (await store()).migrateStore));

  for (const kind of ['backup', 'upgrade'] as const)
    attested(networkedBeside(structured(cas.command(`register-${kind}`))), '--cas-key-hash <hash>')
      .description(
        kind === 'backup'
          ? 'attest another CAS, and have the default CAS give it the root key when it asks'
          : 'the same for the next version of the program, which goes on after `start-upgrade`',
      )
      .argument('<address>', 'HOST or HOST:PORT of the other CAS')
      .action(
        prints(async () => {
          const { registerCas } = await owner();
          return (address: string, options: Parameters<typeof registerCas>[2]) =>
            registerCas(kind, address, options);
        }),
      );
  networked(structured(cas.command('list-registrations')))
    .description('list the CASes that may be given the root key')
    .action(prints(async () => (await owner()).listRegistrationsOf));
  networked(structured(cas.command('remove-registration')))
    .description('give a CAS the root key no more; `rekey` if it has had it')
    .argument('<id>', 'as list-registrations prints it')
    .action(prints(async () => (await owner()).removeRegistration));
  networked(structured(cas.command('remove-tpm')))
    .description('let a TPM be enrolled with another key, as after it was cleared')
    .argument('<platform>', 'TPM_EK: and 64 hexadecimal digits, as `scone las enrol` prints it')
    .action(prints(async () => (await owner()).removeTpm));
  networked(structured(cas.command('start-upgrade')))
    .description('make a new master key, and give the root key only to what is registered as an upgrade')
    .option('-y, --yes', 'yes, that is wanted')
    .action(prints(async () => (await owner()).startUpgradeOf));

  networked(structured(cas.command('read-audit-log')))
    .description('print the audit log, an entry a line')
    .option('--first <number>', 'from this entry on', (text) => wholeNumber(text, 1, 999_999), 1)
    .addHelpText('after', example('scone -o audit.log cas read-audit-log'))
    .action(prints(async () => (await auditLog()).readAuditLog));
  const verifying = (name: string) =>
    structured(cas.command(name))
      .argument('<file>', 'lines of the log')
      .option('-p, --print-log', 'print the entries that are right')
      .option('--cas <cas>', 'an attested CAS (default: the default one)')
      .option('-c, --cas-key-hash <hash>', 'the key of the CAS, where it is not known')
      .option('--predecessor <signature>', 'of the entry before the first one here')
      .option('--last <signature>', 'of an entry that was seen before')
      .addOption(retries());
  verifying('verify-audit-log')
    .description('check a log with what was seen of it before; the exit status says what it is worth')
    .action(prints(async () => (await auditLog()).verifyAuditLog));
  verifying('attest-audit-log')
    .description('the same, and with what the CAS says now')
    .action(prints(async () => (await auditLog()).attestAuditLog));
}

/** Gives a command what it takes to open a store. */
function stored(command: Command): Command {
  return command
    .requiredOption('--dir <dir>', 'folder of the CAS')
    .option('--store <address>', 'sqlite:PATH or postgres://USER@HOST/DATABASE (default: a file in --dir)')
    .option('--key-file <file>', 'key that opens the store (default: master.key in --dir)')
    .option('--passphrase-file <file>', 'passphrase that opens the store');
}

/** Gives a command the ways that a store is to open by. */
function methods(command: Command): Command {
  return command
    .option('--new-key-file <file>', 'a file with a key, made where there is none')
    .option('--new-passphrase', 'a passphrase, which is asked for')
    .option('--new-passphrase-file <file>', 'a passphrase that is in a file')
    .option('--shares <k/n>', 'k of n people together, with a share each', (text) => {
      const [, threshold, total] = /^(\d{1,3})\/(\d{1,3})$/.exec(text) ?? [];
      const shares = { threshold: Number(threshold), total: Number(total) };
      if (shares.threshold >= 2 && shares.threshold <= shares.total && shares.total <= 255) return shares;
      throw new InvalidArgumentError('How many of how many are wanted, such as 2/3.');
    })
    .option('--tpm <registers>', 'a TPM, while these have the values they have now, such as 0,7', (text) => {
      const [, registers] = /^(?:sha256:)?(\d{1,2}(?:,\d{1,2}){0,23})$/.exec(text) ?? [];
      if (registers !== undefined) return `sha256:${registers}`;
      throw new InvalidArgumentError('Registers of the SHA-256 bank are wanted, such as 7, 0,7 or sha256:7.');
    });
}

/** As {@link networked}, for commands that have its `--retries` already. */
function networkedBeside(command: Command): Command {
  return command
    .option('-c, --cas <cas>', 'an attested CAS that is to remember it (default: the default one)')
    .addOption(identity());
}
