import { Argument, type Command, Option } from 'commander';
import { example, identity, networked, structured, templated, wholeNumber } from '../options.ts';
import { prints } from '../output.ts';

const FILE = 'session file, - for standard input';
const NAME = 'session name';

/** `scone session …` */
export function addSession(program: Command): void {
  const session = program.command('session').description('sessions, also called policies');
  addUploads(session);
  addReaders(session);
  addSignatures(session);
}

/** What takes a session file, and sends it or compares it. */
function addUploads(session: Command): void {
  const loadCreate = () => import('../session/create.ts');
  const loadHash = () => import('../session/hash.ts');
  templated(structured(session.command('check')))
    .description('check a session file and print it with its variables filled in')
    .argument('<file>', FILE)
    .addHelpText('after', example('scone session check -e SESSION=demo --fail-on-warning session.yaml'))
    .action(prints(async () => (await import('../session/check.ts')).checkSession));
  templated(structured(session.command('calculate-hash')))
    .description('print the hash that a session would have, without a CAS')
    .argument('<file>', FILE)
    .addOption(
      new Option(
        '--with-self-as-creator <how>',
        'as if you uploaded it (tls, with --identity), or had signed it (signer)',
      ).choices(['tls', 'signer']),
    )
    .addOption(identity())
    .addHelpText('after', example('scone session calculate-hash --with-self-as-creator tls session.yaml'))
    .action(prints(async () => (await loadHash()).calculateHash));
  networked(templated(structured(session.command('create'))))
    .description('upload a session, which may be signed or encrypted, and print its hash')
    .argument('<file>', FILE)
    .addHelpText('after', example('scone session create -e SESSION=demo session.yaml'))
    .action(prints(async () => (await loadCreate()).createSession));
  networked(templated(structured(session.command('update'))))
    .description('replace a session by the next version of it, and print its hash')
    .argument('<file>', `${FILE}; without a predecessor, the present version is filled in`)
    .addHelpText('after', example('scone session update -e SESSION=demo session.yaml'))
    .action(prints(async () => (await loadCreate()).updateSession));
  networked(templated(structured(session.command('verify'))))
    .description('make sure that the CAS has this session, and print its hash')
    .argument('<file>', FILE)
    .addHelpText('after', example('scone session verify -e SESSION=demo session.yaml'))
    .action(prints(async () => (await loadHash()).verifySession));
}

/** What asks a CAS about sessions that it has. */
function addReaders(session: Command): void {
  const load = () => import('../session/read.ts');
  networked(structured(session.command('read')))
    .description('print the text of a session')
    .argument('<name>', NAME)
    .option('--hash', 'print its hash instead, for `predecessor`')
    .option('--version-hash <hex>', 'the version with this hash instead of the present one')
    .addHelpText('after', example('scone session read demo', 'scone session read --hash demo'))
    .action(prints(async () => (await load()).readSession));
  networked(structured(session.command('list')))
    .description('list the sessions just below a namespace')
    .argument('[namespace]', 'its name', '/')
    .addHelpText('after', example('scone session list', 'scone session list shop'))
    .action(prints(async () => (await load()).listSessions));
  networked(structured(session.command('history')))
    .description('say who changed what in a session, and when')
    .argument('<name>', NAME)
    .addOption(
      new Option('--limit <n>', 'how many versions, from the newest')
        .default(20)
        .argParser((text) => wholeNumber(text, 1, 100_000)),
    )
    .addHelpText('after', example('scone session history --limit 3 demo'))
    .action(prints(async () => (await import('../session/history.ts')).showHistory));
  networked(structured(session.command('explain')))
    .description('say what a launcher must show to be given a service')
    .argument('<session/service>', 'the service, as in SCONE_CONFIG_ID')
    .addHelpText('after', example('scone session explain demo/web'))
    .action(prints(async () => (await import('../session/explain.ts')).explainService));
  structured(session.command('schema'))
    .description('print the JSON Schema of sessions, with which editors complete and check them')
    .addHelpText('after', example('scone session schema -o session.schema.json'))
    .action(prints(async () => (await import('../session/schema.ts')).showSchema));
}

/** What makes signed and encrypted sessions. */
function addSignatures(session: Command): void {
  templated(structured(session.command('sign')))
    .description('sign a session, or add a signature to a signed one, and print the signed session')
    .argument('<file>', `${FILE}; a signed one gets one more signature`)
    .addArgument(
      new Argument('[how]', 'with the key of `scone self show-session-signing-key`, or with one elsewhere')
        .choices(['sign-with-cli-identity', 'generate-message-to-be-signed', 'add-signature'])
        .default('sign-with-cli-identity'),
    )
    .argument('[signer]', 'file with the public key (PEM, Ed25519 or P-384) of a signer elsewhere')
    .argument('[signature]', 'its signature as base64; absent: its bytes on standard input')
    .option('-f, --force', 'changes nothing: the message to be signed is text, and fit for a terminal')
    .addHelpText(
      'after',
      `
Examples:
  scone session sign session.yaml -o signed.json
With an Ed25519 key elsewhere:
  scone session sign session.yaml generate-message-to-be-signed signer.pem -o message
  openssl pkeyutl -sign -rawin -inkey signer.key -in message -out signature
  scone session sign session.yaml add-signature signer.pem < signature > signed.json
With a P-384 key:
  openssl dgst -sha384 -sign signer.key -out signature message`,
    )
    .action(prints(async () => (await import('../session/sign.ts')).signSessionFile));
  templated(structured(session.command('encrypt')))
    .description('encrypt a session so that only one CAS can open it; signed first where it is not')
    .argument('<file>', FILE)
    .addOption(
      new Option('-c, --cas <cas>', 'for this attested CAS (default: the default one)').conflicts('key'),
    )
    .option('--key <file>', 'for the CAS with this public key (PEM)')
    .addHelpText(
      'after',
      example('scone session encrypt session.yaml -o session.jwe', 'scone session create session.jwe'),
    )
    .action(prints(async () => (await import('../session/encrypt.ts')).encryptSessionFile));
}
