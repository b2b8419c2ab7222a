import { Argument, Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { failure } from '../errors.ts';
import { defaultLasSocket, defaultPorts } from '../protocol/address.ts';
import { version } from '../version.ts';
import { expandArguments } from './arguments.ts';
import { leaveOutCommands, leaveOutOptions } from './left-out.ts';
import { prints, serves } from './output.ts';
import { report, reportInJson } from './report.ts';

/**
 * scone: the command for people, and the two servers. Each group of commands has a function here, and what they do is
 * brought in when one is called. The name in the angle brackets of an option or argument says what completion offers
 * for it: <file>, <dir> and <socket> a path, <cas> an attested CAS.
 */
const program = new Command('scone')
  .description('Sessions, CAS and LAS: everything around envcas.')
  .usage('[options] <command> …')
  .version(version, '-V, --version', 'print the version')
  .helpOption('-h, --help', 'say how a command is used')
  .option(
    '-c, --config <file>',
    'keep identity and attested CASes there (default: $SCONE_CLI_CONFIG or ~/.cas/config.json)',
  )
  .option('-o, --output <file>', 'print to this file, made with mode 0600, once the command has succeeded')
  .addHelpText(
    'after',
    `
An argument @FILE stands for the arguments in FILE, one a line, and @@… for an argument that begins with @.
With --json, warnings and errors are JSON as well, one object a line on standard error.`,
  )
  // `-c` before a command is another one than after it.
  .enablePositionalOptions()
  .exitOverride()
  .configureOutput({ outputError: () => {} })
  .hook('preAction', () => {
    const { config } = program.opts<{ config?: string }>();
    if (config === '') throw failure('USAGE', { detail: '--config takes a file' });
    if (config !== undefined) process.env.SCONE_CLI_CONFIG = config;
  });

addUp();
addCas();
addLas();
addSession();
addSelf();
addCert();
addCompletion();
addVersionAndHelp();
everyCommand(program, (command) => command.addOption(new Option('-o, --output <file>').hideHelp()));
leaveOutCommands(program);
void main();

function addUp(): void {
  program
    .command('up')
    .description('run a CAS and a LAS for this machine in the foreground')
    .option('--dir <dir>', 'keep everything there (default: $XDG_STATE_HOME/scone or ~/.local/state/scone)')
    .option(
      '--free-ports',
      `listen on any free ports instead of ${defaultPorts.api} and ${defaultPorts.enclave}`,
    )
    .addOption(logLevel('error'))
    .addHelpText('after', example('scone up &', '. ~/.local/state/scone/env'))
    .action(serves(async () => (await import('./serve.ts')).up));
}

function addCas(): void {
  const cas = program.command('cas').description('the configuration and attestation service');
  const load = () => import('./cas.ts');
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
    .addHelpText('after', example('scone cas serve --dir /var/lib/scone --trusted-platform LASKEY'))
    .action(serves(async () => (await import('./serve.ts')).runCas));
  const attest = structured(cas.command('attest'))
    .description('check a CAS and pin its key; the first one becomes the default')
    .argument('<address>', 'HOST or HOST:PORT')
    .argument('[mrenclave]', 'measurement that the CAS must have')
    .option('--mrenclave <hex>', 'a measurement that the CAS may have (repeatable)', collect)
    .option('-c, --cas-key-hash <hash>', 'the key that the CAS must have')
    .option('--trusted-platform <key>', 'trust this LAS key (repeatable)', collect)
    .addOption(retries())
    .option('-C, --accept-configuration-needed', 'tolerate hardware that needs configuration')
    .option('-G, --accept-group-out-of-date', 'tolerate hardware that needs updates')
    .option('-S, --accept-sw-hardening-needed', 'tolerate hardware that needs software hardening')
    .option('--allow-cas-owner-secret-access', 'changes nothing: a CAS has no owner who could read secrets')
    .option('--only_for_testing-debug', 'tolerate debug mode, and so software Evidence')
    .option('--only_for_testing-ignore-signer', 'do not ask who signed the CAS')
    .option('--only_for_testing-trust-any', 'trust any measurement and any LAS')
    .option('--only_for_testing_allow-unprovisioned-cas', 'changes nothing: a CAS needs no provisioning')
    .addHelpText(
      'after',
      example(
        'scone cas attest cas.example.org MRENCLAVE --trusted-platform LASKEY \\',
        '    --only_for_testing-debug --only_for_testing-ignore-signer',
      ),
    )
    .action(prints(async () => (await import('./attest.ts')).attestCas));
  leaveOutOptions(attest, [
    ['-s, --software-key-hash <hash>', 'a CAS has one key, which its Evidence is bound to'],
    ['--mrsigner <hex>', 'software Evidence names no signer'],
    ['--isvprodid <number>', 'software Evidence names no signer, so no product of one'],
    ['--isvsvn <number>', 'software Evidence names no signer, so no security version of a product'],
    [
      '--offline-report <file>',
      'Evidence is asked for anew each time, and none is kept to be looked at later',
    ],
    ['--nonce <hex>', 'it belongs to --offline-report; each attestation makes a nonce of its own'],
    ['--verification-time <date>', 'software Evidence has nothing in it that runs out'],
  ]);
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

function addLas(): void {
  program
    .command('las')
    .description('the local attestation service')
    .command('serve')
    .description('run a LAS in the foreground')
    .requiredOption('--dir <dir>', 'keep its key there')
    .option('--socket <socket>', 'Unix socket to listen on', defaultLasSocket)
    .option('--cas <address[=key hash]>', 'tell launchers the key of this CAS (repeatable)', collect)
    .addOption(logLevel('info'))
    .addHelpText('after', example('scone las serve --dir /var/lib/scone --cas cas.example.org=KEYHASH'))
    .action(serves(async () => (await import('./serve.ts')).runLas));
}

function addSession(): void {
  const session = program.command('session').description('sessions, also called policies');
  const load = () => import('./session.ts');
  const templated = (command: Command) =>
    command
      .option('-e <NAME=VALUE>', 'value of a template variable (repeatable)', collect)
      .option('--use-env', 'take template variables from the environment, where -e gives none');
  const networked = (command: Command) =>
    command.option('-c, --cas <cas>', 'an attested CAS (default: the default one)');
  templated(structured(session.command('check')))
    .description('check a session file and print it with its variables filled in')
    .argument('<file>', 'session file, - for standard input')
    .action(prints(async () => (await load()).checkSession));
  networked(templated(structured(session.command('create'))))
    .description('upload a session and print its hash')
    .argument('<file>', 'session file, - for standard input')
    .addHelpText('after', example('scone session create -e SESSION=demo session.yaml'))
    .action(prints(async () => (await load()).createSession));
  networked(structured(session.command('read')))
    .description('print the text of a session')
    .argument('<name>', 'session name')
    .option('--hash', 'print the hash of its present version instead, for `predecessor`')
    .action(prints(async () => (await load()).readSession));
}

function addSelf(): void {
  const self = program.command('self').description("the user's own identity, made on first use");
  const load = () => import('./self.ts');
  structured(self.command('show'))
    .description('print key hash and certificate')
    .action(prints(async () => (await load()).showSelf));
  structured(self.command('show-key-hash'))
    .description('print the key hash, as it stands in the access_policy of a session')
    .action(prints(async () => (await load()).showOwnKeyHash));
  structured(self.command('show-certificate'))
    .description('print the certificate as PEM')
    .action(prints(async () => (await load()).showOwnCertificate));
  structured(self.command('show-certificate-hash'))
    .description('print the SHA-256 of the certificate (deprecated: use show-key-hash)')
    .action(prints(async () => (await load()).showOwnCertificateHash));
  structured(self.command('show-session-signing-key'))
    .description('print the public key that goes with signed sessions (Ed25519) as PEM')
    .action(prints(async () => (await load()).showSigningKey));
}

function addCert(): void {
  structured(program.command('cert').description('certificates and public keys').command('show-key-hash'))
    .description('print the key hash of a certificate or public key')
    .argument('<file>', 'PEM, of a chain the first counts; - for standard input')
    .addHelpText('after', example('scone cert show-key-hash client.pem'))
    .action(prints(async () => (await import('./cert.ts')).showKeyHash));
}

function addCompletion(): void {
  const load = () => import('./completion.ts');
  program
    .command('completion')
    .description('print the script that makes a shell complete scone')
    .addArgument(new Argument('<shell>').choices(['bash', 'zsh', 'fish']))
    .addHelpText(
      'after',
      `
In ~/.bashrc:                 source <(scone completion bash)
In ~/.zshrc, after compinit:  source <(scone completion zsh)
Once, for fish:               scone completion fish > ~/.config/fish/completions/scone.fish`,
    )
    .action(prints(async () => (await load()).completionScript));
  program
    .command('complete', { hidden: true })
    .argument('[words...]')
    .action(
      prints(async () => {
        const { complete } = await load();
        return (words: string[]) => complete(program, words);
      }),
    );
}

function addVersionAndHelp(): void {
  structured(program.command('version'))
    .description('print the version')
    .action(prints(async () => () => ({ text: `${version}\n`, json: { version } })));
  program
    .helpCommand(false)
    .command('help')
    .description('say how a command is used')
    .usage('[command...]')
    .argument('[command...]')
    .addHelpText('after', example('scone help cas attest'))
    .action((words: string[]) => {
      const command = words.reduce((at: Command, word) => {
        const found = at.commands.find((each) => each.name() === word);
        if (!found)
          throw failure('USAGE', { detail: `there is no command ${JSON.stringify(words.join(' '))}` });
        return found;
      }, program);
      command.outputHelp();
    });
}

/** Gives a command `--json`. */
function structured(command: Command): Command {
  return command.option('--json', 'print JSON');
}

function logLevel(level: string): Option {
  return new Option('--log-level <level>', 'what is logged on standard error')
    .choices(['trace', 'debug', 'info', 'warn', 'error', 'fatal'])
    .default(level);
}

function retries(): Option {
  return new Option('--retries <n>', 'how often to try again where the CAS cannot be reached')
    .env('SCONE_CLI_RETRIES')
    .default(3)
    .argParser((text) => {
      if (!/^\d{1,3}$/.test(text)) throw new InvalidArgumentError('A number from 0 to 999 is wanted.');
      return Number(text);
    });
}

function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

function example(...lines: string[]): string {
  return `\nExample:\n${lines.map((line) => `  ${line}`).join('\n')}`;
}

function everyCommand(command: Command, change: (command: Command) => void): void {
  for (const each of command.commands) {
    if (each.commands.length === 0) change(each);
    else everyCommand(each, change);
  }
}

async function main(): Promise<void> {
  const given = process.argv.slice(2);
  try {
    // The words of a line that is being completed are not arguments yet.
    const args = given[0] === 'complete' ? given : expandArguments(given);
    const end = args.indexOf('--');
    if (args.slice(0, end < 0 ? undefined : end).includes('--json')) reportInJson();
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    process.exitCode = statusOf(error);
  }
}

/** Reports an error, except where commander has printed help instead. */
function statusOf(error: unknown): number {
  if (!(error instanceof CommanderError)) return report(error);
  const EX_USAGE = 64;
  if (error.code === 'commander.help') return EX_USAGE;
  if (error.exitCode === 0) return 0;
  const detail = error.message.replace(/^error: /, '').replace(/\s*\n\s*/g, ' ');
  return report(failure('USAGE', { detail }, error.cause));
}
