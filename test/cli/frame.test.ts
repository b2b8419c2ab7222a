import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { before, test } from 'node:test';
import * as fc from 'fast-check';
import { expandArguments } from '../../src/cli/arguments.ts';
import { fetchEncryptionKey } from '../../src/cli/attest.ts';
import { withRetries } from '../../src/cli/retry.ts';
import { failure } from '../../src/errors.ts';
import { parseKeyHash } from '../../src/policy/key-hash.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { executables, missing, type Result, run, type Stack, startStack } from '../support/stack.ts';

let stack: Stack;
let directory: string;
before(async () => {
  directory = temporaryFolder();
  stack = await startStack();
});

const file = (name: string) => join(directory, name);
const write = (name: string, text: string) => {
  writeFileSync(file(name), text);
  return file(name);
};
const openssl = (args: string[], input?: string): string => {
  const { status, stdout, stderr } = run('openssl', args, { PATH: process.env.PATH }, input);
  assert.equal(status, 0, stderr);
  return stdout;
};

/** Runs `scone` as a user who has attested nothing yet. */
function fresh(args: string[], input?: string, env: NodeJS.ProcessEnv = {}): Result {
  return run(executables().scone, args, { PATH: process.env.PATH, HOME: directory, ...env }, input);
}

/** Runs `scone` as the user of the stack. */
const scone = (...args: string[]) => stack.tryScone(...args);

// What applies to all commands

test('-c before a command names the state file, and after it something else', () => {
  const [one, two] = [file('one.json'), file('two.json')];
  const hash = fresh(['-c', one, 'self', 'show-key-hash']).stdout;
  assert.match(hash, /^[1-9A-HJ-NP-Za-km-z]+\n$/);
  assert.equal(fresh(['self', 'show-key-hash'], undefined, { SCONE_CLI_CONFIG: one }).stdout, hash);
  const other = fresh(['--config', two, 'self', 'show-key-hash'], undefined, { SCONE_CLI_CONFIG: one });
  assert.notEqual(other.stdout, hash);
  assert.equal(existsSync(join(directory, '.cas')), false);
  assert.equal(fresh(['-c', '', 'cas', 'list']).status, 64);
  assert.match(scone('cas', 'show-identification', '-c').stdout, /^\w+\n$/);
});

test('-o takes what a command prints, once it has succeeded, into a file that is private', () => {
  const out = file('out');
  for (const args of [
    ['-o', out, 'cas', 'list'],
    ['cas', 'list', '--output', out],
  ]) {
    rmSync(out, { force: true });
    assert.deepEqual([scone(...args).status, scone(...args).stdout], [0, '']);
    assert.equal(readFileSync(out, 'utf8'), scone('cas', 'list').stdout);
    assert.equal(statSync(out).mode & 0o777, 0o600);
  }
  chmodSync(out, 0o644);
  assert.equal(scone('-o', out, 'cas', 'show-certificate', 'nobody').status, 78);
  assert.equal(readFileSync(out, 'utf8'), scone('cas', 'list').stdout);
  assert.equal(scone('-o', out, 'version').status, 0);
  assert.equal(statSync(out).mode & 0o777, 0o644);
  assert.equal(readFileSync(out, 'utf8'), scone('--version').stdout);
});

test('-o that cannot be written is told, and before anything has happened where that can be known', () => {
  const path = join(directory, 'missing', 'out');
  const state = file('untouched.json');
  const { status, stderr } = fresh(['-c', state, '-o', path, 'self', 'show']);
  assert.equal(status, 73);
  assert.match(stderr, /^Error: cannot write .*missing\/out: no such file or directory\n/);
  assert.equal(existsSync(state), false);
  assert.equal(scone('-o', directory, 'version').status, 73);
  assert.match(scone('-o', '/dev/full', 'version').stderr, /no space left on the device/);
  const server = scone('-o', file('server'), 'las', 'serve', '--dir', file('las'));
  assert.deepEqual([server.status, existsSync(file('las'))], [64, false]);
  const shell = (line: string) => run('/bin/bash', ['-c', line, executables().scone], {});
  for (const command of ['version', '--help', 'cas serve --help', '--version']) {
    const full = shell(`"$0" ${command} > /dev/full`);
    assert.equal(full.status, 73, command);
    assert.match(full.stderr, /cannot write standard output: no space left on the device/);
    // As other programs end whose output nobody reads.
    const closed = shell(`exec 3> >(:); wait $!; "$0" ${command} >&3; echo "$?" >&2`);
    assert.equal(closed.stderr, '141\n', command);
  }
});

test('@FILE stands for the arguments in it', () => {
  const session = write('session.yaml', 'name: $NAME\nversion: "0.3"\n');
  write('values', '-e\r\nNAME=from-a-file\r\n');
  const args = write('args', `session\n\ncheck\n@${file('values')}\n${session}`);
  assert.equal(fresh([`@${args}`]).stdout, 'name: "from-a-file"\nversion: "0.3"\n');
  assert.match(fresh(['session', 'check', '@@file']).stderr, /^Error: @file: no such file/);
  assert.equal(fresh(['session', 'check', '-e', `NAME=@${args}`, session]).status, 65);
});

test('files of arguments that cannot be taken are a usage error that quotes nothing of them', () => {
  const circle = write('circle', `@${file('circle')}\n`);
  const binary = write('binary', 'SECRET\0');
  for (const [path, reason] of [
    [file('nowhere'), /no such file or directory/],
    [directory, /it is a directory/],
    [circle, /nested more than 10 deep/],
    [binary, /it is no text/],
    ['/dev/zero', /more than 1048576 bytes/],
    [write('huge', 'SECRET\n'.repeat(200_000)), /more than 1048576 bytes/],
    ['', /cannot take arguments from @: /],
  ] as const) {
    const { status, stderr } = fresh([`@${path}`]);
    assert.equal(status, 64);
    assert.match(stderr, reason);
    assert.equal(stderr.includes('SECRET'), false);
  }
});

test('any arguments can be given through a file, but for empty ones and those with a line break', () => {
  const argument = fc
    .string({ unit: 'grapheme', minLength: 1 })
    .filter((text) => !/[\0\r\n\ufeff]/.test(text));
  fc.assert(
    fc.property(fc.array(argument), (args) => {
      const escaped = args.map((text) => text.replace(/^@/, '@@'));
      assert.deepEqual(expandArguments(escaped), args);
      const path = write('any', escaped.join('\n'));
      assert.deepEqual(expandArguments(['before', `@${path}`]), ['before', ...args]);
    }),
  );
});

test('with --json, results, warnings and errors are JSON', () => {
  const url = `https://localhost:${stack.env.SCONE_CAS_API_PORT}/`;
  assert.deepEqual(JSON.parse(scone('cas', 'list', '--json').stdout), [
    { name: 'localhost', url, default: true },
  ]);
  const unknown = scone('cas', 'show-certificate', 'nobody', '--json');
  assert.deepEqual([unknown.status, unknown.stdout], [78, '']);
  assert.deepEqual(JSON.parse(unknown.stderr), {
    error: {
      code: 'CAS_UNKNOWN',
      messages: ['no attested CAS is known by the name nobody'],
      hint: 'Run `scone cas attest ADDRESS` first.',
      exit: 78,
    },
  });
  const usage = scone('cas', 'lst', '--json');
  assert.equal(usage.status, 64);
  assert.equal(JSON.parse(usage.stderr).error.code, 'USAGE');
  const wrong = write('wrong.yaml', 'nam: x\nversion: "0.3"\n');
  const invalid = scone('session', 'check', '--json', wrong);
  assert.deepEqual([invalid.status, invalid.stdout], [65, '']);
  const { problems } = JSON.parse(invalid.stderr);
  assert.deepEqual(
    problems.map(({ file, severity, line, path }: Record<string, unknown>) => [file, severity, line, path]),
    [
      [wrong, 'error', 1, 'name'],
      [wrong, 'error', 1, 'nam'],
    ],
  );
  const warned = scone('self', 'show-certificate-hash', '--json');
  assert.match(JSON.parse(warned.stderr).warning.message, /deprecated/);
  assert.match(JSON.parse(warned.stdout).certificateHash, /^[0-9a-f]{64}$/);
  // After `--` it is an argument.
  assert.match(scone('cas', 'show-certificate', '--', '--json').stderr, /^Error: .*by the name --json\n/);
});

test('there are colours on a terminal, unless they are unwanted, and nowhere else', {
  skip: missing('script'),
}, () => {
  const wrong = write('colour.yaml', 'name: a\nversion: "0.3"\nservces: []\n');
  const commands = `"$SCONE" session check "$WRONG"; "$SCONE" cas lst; "$SCONE" self show-certificate-hash`;
  const env = {
    PATH: process.env.PATH,
    HOME: directory,
    SCONE: executables().scone,
    WRONG: wrong,
    TERM: 'xterm-256color',
  };
  const terminal = (more: NodeJS.ProcessEnv) =>
    run('script', ['-qec', commands, '/dev/null'], { ...env, ...more }, '').stdout;
  const coloured = terminal({});
  assert.ok(coloured.includes(`: \x1b[31merror:\x1b[39m servces: unknown key`), coloured);
  assert.ok(coloured.includes("\x1b[31mError:\x1b[39m unknown command 'lst'"));
  assert.ok(coloured.includes('\x1b[33mWarning:\x1b[39m show-certificate-hash'));
  for (const plain of [terminal({ NO_COLOR: '1' }), run('/bin/sh', ['-c', commands], env).stderr]) {
    assert.match(plain, /: error: servces: unknown key[\s\S]*Error: unknown command[\s\S]*Warning: show-/);
    assert.equal(plain.includes('\x1b['), false);
  }
});

test('every command says what it is for, and mistakes get a hint', () => {
  const commandsOf = (...path: string[]): string[][] => {
    const { status, stdout } = fresh(['help', ...path]);
    assert.equal(status, 0);
    assert.ok(stdout.startsWith(`Usage: scone ${path.join(' ')}`), stdout);
    assert.match(stdout, /^Usage: .*\n\n\S/, `no description: ${path.join(' ')}`);
    const [, list = ''] = /\nCommands:\n([\s\S]*?)(\n\n|$)/.exec(stdout) ?? [];
    const names = [...list.matchAll(/^ {2}([a-z-]+)/gm)].map(([, name = '']) => name);
    const rest = names.filter((name) => name !== 'help');
    return [path, ...rest.flatMap((name) => commandsOf(...path, name))];
  };
  const all = commandsOf().map((path) => path.join(' '));
  for (const name of ['cas show-identification', 'cert show-key-hash', 'otp show', 'session explain', 'up'])
    assert.ok(all.includes(name), `${name}: ${all}`);
  assert.equal(fresh(['cas', 'list', '--help']).stdout, fresh(['help', 'cas', 'list']).stdout);
  assert.equal(fresh(['cas', 'help', 'list']).stdout, fresh(['help', 'cas', 'list']).stdout);
  assert.equal(fresh(['help', 'nonsense']).status, 64);
  assert.match(fresh(['cas', 'atest']).stderr, /^Error: unknown command 'atest' \(Did you mean attest\?\)\n/);
  assert.match(fresh(['cas', 'list', '--jsn']).stderr, /^Error: .*\(Did you mean --json\?\)\nHint: .*--help/);
  for (const args of [[], ['cas']]) {
    const { status, stdout, stderr } = fresh(args);
    assert.deepEqual([status, stdout], [64, '']);
    assert.match(stderr, /^Usage: /);
  }
});

test('what is left out says so and why', () => {
  const help = fresh(['--help']).stdout;
  const [, names = ''] = /^Not part of this version, each says why: (.*)$/m.exec(help) ?? [];
  const all = names.split(', ');
  for (const name of ['las probe', 'fspf', 'signer', 'gcc', 'g++', 'help-markdown'])
    assert.ok(all.includes(name), name);
  for (const name of all) {
    const { status, stderr, stdout } = fresh([...name.split(' '), 'more', '-c', 'x', '--help', '--nonsense']);
    assert.deepEqual([status, stdout], [69, ''], name);
    assert.ok(
      stderr.startsWith(`Error: scone ${name} is not supported by this version\n  Caused by: `),
      stderr,
    );
    assert.match(stderr, /Code: NOT_SUPPORTED, exit status 69/);
  }
  for (const args of [
    ['attest', 'localhost', '-s', 'hash'],
    ['show-identification', '-s'],
    ['show-identification', '-S'],
  ]) {
    const { status, stderr } = scone('cas', ...args);
    assert.equal(status, 69, args.join(' '));
    assert.match(stderr, /^Error: the option --\S+ is not supported by this version\n {2}Caused by: /);
  }
});

// The user's own identity, certificates and keys

/** SHA-256 of the SubjectPublicKeyInfo of a public key in PEM, made by openssl. */
const digestOf = (publicKey: string) => {
  const path = write('public.pem', publicKey);
  openssl(['pkey', '-pubin', '-in', path, '-outform', 'DER', '-out', file('public.der')]);
  return createHash('sha256')
    .update(readFileSync(file('public.der')))
    .digest('hex');
};
const digestIn = (keyHash: string) => parseKeyHash(keyHash.trim(), 'the test').toString('hex');

test('self shows what openssl finds in the same certificate', { skip: missing('openssl') }, () => {
  const as = (command: string) => fresh(['-c', file('self.json'), 'self', command]);
  const certificate = as('show-certificate').stdout;
  const publicKey = openssl(['x509', '-noout', '-pubkey'], certificate);
  const keyHash = as('show-key-hash').stdout;
  assert.equal(digestIn(keyHash), digestOf(publicKey));
  assert.equal(as('show').stdout, `Key hash: ${keyHash}${certificate}`);
  const fingerprint = openssl(['x509', '-noout', '-fingerprint', '-sha256'], certificate);
  const { stdout, stderr } = as('show-certificate-hash');
  assert.equal(stdout.trim(), fingerprint.trim().replace(/^.*=/, '').replaceAll(':', '').toLowerCase());
  assert.match(stderr, /^Warning: show-certificate-hash is deprecated/);
});

test('the signing key is made once, kept as a seed, and never shown', {
  skip: missing('openssl'),
}, async () => {
  const config = file('signing.json');
  const show = async () => {
    const child = spawn(executables().scone, ['-c', config, 'self', 'show-session-signing-key'], { env: {} });
    let text = '';
    child.stdout.on('data', (chunk) => {
      text += chunk;
    });
    await once(child, 'close');
    return text;
  };
  const keys = await Promise.all([show(), show(), show()]);
  const publicKey = keys[0] ?? '';
  assert.deepEqual(new Set(keys), new Set([publicKey]));
  assert.match(openssl(['pkey', '-pubin', '-noout', '-text'], publicKey), /^ED25519 Public-Key:/);
  const { session_signing_keypair_ed25519_seed: seed } = JSON.parse(readFileSync(config, 'utf8'));
  assert.match(seed, /^[0-9a-f]{64}$/);
  writeFileSync(file('seed.der'), Buffer.from(`302e020100300506032b657004220420${seed}`, 'hex'));
  assert.equal(openssl(['pkey', '-inform', 'DER', '-in', file('seed.der'), '-pubout']), publicKey);
  assert.equal(statSync(config).mode & 0o777, 0o600);
  // It takes its place beside the identity, and neither replaces the other.
  fresh(['-c', config, 'self', 'show']);
  assert.equal(await show(), publicKey);
  writeFileSync(config, `{"session_signing_keypair_ed25519_seed": "${seed}00"}`);
  const broken = fresh(['-c', config, 'self', 'show-session-signing-key']);
  assert.equal(broken.status, 65);
  assert.equal(broken.stderr.includes(seed), false);
  writeFileSync(config, '{"identity": "-----BEGIN PRIVATE KEY-----\\nTOPSECRET"}');
  const identity = fresh(['-c', config, 'self', 'show']);
  assert.match(identity.stderr, /its identity is no PKCS#8 key \(BEGIN PRIVATE KEY\) with a certificate/);
  assert.equal(identity.stderr.includes('TOPSECRET'), false);
});

test('cert show-key-hash names the key of certificates and public keys of every kind', {
  skip: missing('openssl'),
}, () => {
  const algorithms = [
    ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'],
    ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-384'],
    ['-algorithm', 'ED25519'],
    ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'],
  ];
  const certificates = algorithms.map((algorithm) => {
    const key = file('key.pem');
    openssl(['genpkey', ...algorithm, '-out', key]);
    const publicKey = openssl(['pkey', '-in', key, '-pubout']);
    const certificate = openssl(['req', '-x509', '-key', key, '-subj', '/CN=test', '-days', '1']);
    const expected = digestOf(publicKey);
    for (const pem of [publicKey, certificate, `text before\n${certificate}${publicKey}`])
      assert.equal(digestIn(fresh(['cert', 'show-key-hash', '-'], pem).stdout), expected);
    assert.equal(digestIn(fresh(['cert', 'show-key-hash', write('c.pem', certificate)]).stdout), expected);
    return { certificate, expected };
  });
  const chain = certificates.map(({ certificate }) => certificate).join('');
  assert.equal(digestIn(fresh(['cert', 'show-key-hash', '-'], chain).stdout), certificates[0]?.expected);
  // PKCS#1 of RSA, the last of the keys.
  const pkcs1 = openssl(['rsa', '-in', file('key.pem'), '-RSAPublicKey_out']);
  assert.equal(digestIn(fresh(['cert', 'show-key-hash', '-'], pkcs1).stdout), certificates[3]?.expected);
});

test('cert show-key-hash refuses private keys and what is neither, and quotes nothing', {
  skip: missing('openssl'),
}, () => {
  const key = openssl(['genpkey', '-algorithm', 'ED25519']);
  const certificate = scone('self', 'show-certificate').stdout;
  const [, body = ''] = key.split('\n');
  for (const [pem, reason] of [
    [key, /it holds a private key/],
    [certificate + key, /it holds a private key/],
    ['', /it is not PEM/],
    ['\0\xff', /it is not PEM/],
    [`-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----\n`, /its CERTIFICATE cannot be read/],
    ['-----BEGIN PUBLIC KEY-----\n', /its PUBLIC KEY cannot be read/],
    ['-----BEGIN X509 CRL-----\n', /a certificate or a public key is wanted, and it holds a X509 CRL/],
  ] as const) {
    const { status, stdout, stderr } = fresh(['cert', 'show-key-hash', '-'], pem);
    assert.deepEqual([status, stdout], [65, ''], stderr);
    assert.match(stderr, reason);
    assert.equal(stderr.includes(body), false);
  }
  assert.match(fresh(['cert', 'show-key-hash', '/dev/zero']).stderr, /more than 1048576 bytes/);
});

// The attested CASes

test('the parts of the identification of a CAS', { skip: missing('openssl') }, () => {
  const show = (...args: string[]) => scone('cas', 'show-identification', ...args).stdout;
  const certificate = show('-C');
  const publicKey = openssl(['x509', '-noout', '-pubkey'], certificate);
  assert.equal(digestIn(show('-c')), digestOf(publicKey));
  assert.equal(show('localhost', '-c'), show('-c'));
  assert.ok(show('-T').startsWith(certificate));
  assert.equal(scone('cas', 'show-certificate').stdout, show('-T'));
  const json = JSON.parse(show('--json'));
  assert.deepEqual([json.name, json.keyHash, json.chain], ['localhost', show('-c').trim(), show('-T')]);
  for (const flags of [
    ['-c', '-T'],
    ['-C', '-T'],
    ['-C', '--session-encryption-key'],
  ])
    assert.equal(scone('cas', 'show-identification', ...flags).status, 64, `${flags}`);
});

test('the key for encrypted sessions is shown where the CAS gave one', { skip: missing('openssl') }, () => {
  const config = file('with-key.json');
  const key = openssl(['pkey', '-pubout'], openssl(['genpkey', '-algorithm', 'X25519']));
  const chain = scone('cas', 'show-certificate').stdout;
  const cas_db = {
    with: { url: 'https://with:8081/', chain, session_encryption_key: key },
    without: { url: 'https://without:8081/', chain },
  };
  writeFileSync(config, JSON.stringify({ cas_db }), { mode: 0o600 });
  const show = (name: string) =>
    fresh(['-c', config, 'cas', 'show-identification', '--session-encryption-key', name]);
  assert.equal(show('with').stdout, key);
  assert.match(show('without').stderr, /Code: ENCRYPTION_KEY_UNKNOWN, exit status 78/);
});

test('set-default changes the default to an attested CAS, and to no other', () => {
  const config = file('default.json');
  const chain = scone('cas', 'show-certificate').stdout;
  const entry = (name: string) => ({ url: `https://${name}:8081/`, chain, unknown: 'kept' });
  const state = { default_cas: 'one', cas_db: { one: entry('one'), two: entry('two') } };
  writeFileSync(config, JSON.stringify(state), { mode: 0o600 });
  const as = (...args: string[]) => fresh(['-c', config, 'cas', ...args]);
  assert.equal(as('set-default', 'two').status, 0);
  assert.equal(as('list').stdout, '  one: https://one:8081/\n* two: https://two:8081/\n');
  for (const name of ['three', '__proto__', 'constructor', ''])
    for (const command of ['set-default', 'show-certificate', 'version'])
      assert.match(as(command, name).stderr, /Code: CAS_UNKNOWN/, `${command} ${name}`);
  assert.deepEqual(JSON.parse(readFileSync(config, 'utf8')), { ...state, default_cas: 'two' });
  assert.equal(fresh(['-c', file('none.json'), 'cas', 'show-certificate']).status, 78);
});

test('the version is that of an attested CAS, which must have its pinned key', async () => {
  assert.equal(scone('cas', 'version').stdout, scone('--version').stdout);
  const other = await startStack();
  try {
    const config = file('moved.json');
    const text = readFileSync(join(stack.env.HOME ?? '', '.cas', 'config.json'), 'utf8');
    const [here = '', there = ''] = [stack.env.SCONE_CAS_API_PORT, other.env.SCONE_CAS_API_PORT];
    writeFileSync(config, text.replaceAll(here, there), { mode: 0o600 });
    assert.match(fresh(['-c', config, 'cas', 'version']).stderr, /Code: CAS_KEY_MISMATCH, exit status 76/);
  } finally {
    await other.stop();
  }
});

test('connecting is tried again, and nothing else is', async () => {
  const tries = async (retries: number, failing: Error, times: number) => {
    let count = 0;
    const connect = async () => {
      if (count++ < times) throw failing;
      return 'connected';
    };
    const result = await withRetries(retries, connect).catch((error) => error);
    return [count, result];
  };
  const away = failure('CAS_UNREACHABLE', { address: 'cas:1', detail: 'away' });
  const other = failure('CAS_PROTOCOL', { address: 'cas:1', detail: 'other' });
  assert.deepEqual(await tries(2, away, 2), [3, 'connected']);
  assert.deepEqual(await tries(1, away, 9), [2, away]);
  assert.deepEqual(await tries(0, away, 9), [1, away]);
  assert.deepEqual(await tries(3, other, 9), [1, other]);
  const attest = (args: string[], env = {}) =>
    fresh(['cas', 'attest', 'localhost:1', ...args], undefined, env);
  assert.equal(attest([], { SCONE_CLI_RETRIES: '0' }).status, 69);
  for (const result of [attest(['--retries', 'x']), attest([], { SCONE_CLI_RETRIES: '-1' })]) {
    assert.equal(result.status, 64);
    assert.match(result.stderr, /A number from 0 to 999 is wanted/);
  }
});

test('the key for encrypted sessions is taken only from the CAS that was attested', {
  skip: missing('openssl'),
}, async () => {
  const [key, certificate] = [file('cas-key.pem'), file('cas-certificate.pem')];
  openssl(
    ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc', '-days', '1'].concat([
      '-subj',
      '/CN=cas',
      '-keyout',
      key,
      '-out',
      certificate,
    ]),
  );
  const casKey = Buffer.from(digestOf(openssl(['x509', '-noout', '-pubkey', '-in', certificate])), 'hex');
  const privateKey = openssl(['genpkey', '-algorithm', 'X25519']);
  const publicKey = openssl(['pkey', '-pubout'], privateKey);
  let answer: { status: number; body: object } = { status: 200, body: { publicKey } };
  const asked: (string | undefined)[] = [];
  const server = createServer(
    { key: readFileSync(key), cert: readFileSync(certificate) },
    (request, response) => {
      asked.push(request.url);
      response.writeHead(answer.status).end(JSON.stringify(answer.body));
    },
  );
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = { host: '127.0.0.1', port: (server.address() as AddressInfo).port };
  try {
    assert.equal(await fetchEncryptionKey(address, casKey), publicKey);
    await assert.rejects(fetchEncryptionKey(address, Buffer.alloc(32)), { code: 'CAS_KEY_MISMATCH' });
    assert.deepEqual(asked, ['/v1/session-encryption-key']);
    answer = { status: 404, body: { msg: ['there is nothing at this path'] } };
    assert.equal(await fetchEncryptionKey(address, casKey), undefined);
    answer = { status: 503, body: { msg: ['busy'], code: 'CAS_BUSY' } };
    await assert.rejects(fetchEncryptionKey(address, casKey), { code: 'CAS_BUSY' });
    for (const wrong of [privateKey, 'no key', '']) {
      answer = { status: 200, body: { publicKey: wrong } };
      await assert.rejects(fetchEncryptionKey(address, casKey), { code: 'CAS_PROTOCOL' });
    }
  } finally {
    server.close();
  }
});
