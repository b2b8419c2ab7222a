import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createPrivateKey } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { decryptSession } from '../../src/protocol/encrypted-session.ts';
import { executables, missing, type Result, type Stack, startStack } from '../support/stack.ts';

const skip = missing('openssl');

let stack: Stack;
before(async () => {
  stack = await startStack();
});

const file = (name: string) => join(stack.files, name);
const write = (name: string, content: string | Buffer) => {
  writeFileSync(file(name), content);
  return file(name);
};
const sign = (...args: string[]) => stack.tryScone('session', 'sign', ...args);
const policyOf = (signed: string): string => JSON.parse(signed).policy;
const signersOf = (signed: string): string[] =>
  JSON.parse(signed).signatures.map(({ signer }: { signer: string }) => signer);

function openssl(...args: string[]): Buffer {
  const { status, stdout, stderr } = spawnSync('openssl', args);
  assert.equal(status, 0, String(stderr));
  return stdout;
}

/** A signer who has his key elsewhere, and openssl to sign with. */
function signer(name: string, algorithm: 'Ed25519' | 'P-384') {
  const key = file(`${name}.key`);
  const parameters = { Ed25519: ['ED25519'], 'P-384': ['EC', '-pkeyopt', 'ec_paramgen_curve:P-384'] };
  openssl('genpkey', '-out', key, '-algorithm', ...parameters[algorithm]);
  const publicKey = write(`${name}.pem`, openssl('pkey', '-in', key, '-pubout'));
  return {
    publicKey,
    pem: readFileSync(publicKey, 'utf8'),
    sign: (message: string): Buffer =>
      algorithm === 'Ed25519'
        ? openssl('pkeyutl', '-sign', '-rawin', '-inkey', key, '-in', message)
        : openssl('dgst', '-sha384', '-sign', key, message),
  };
}

/** Adds a signature that comes in bytes on standard input. */
const addSignature = (session: string, publicKey: string, signature: Buffer): Result => {
  const { status, stdout, stderr } = spawnSync(
    executables().scone,
    ['session', 'sign', session, 'add-signature', publicKey],
    { env: stack.env, input: signature, encoding: 'utf8' },
  );
  return { status, signal: null, stdout, stderr };
};

test('a session is signed with the key of the user, who is its creator then', { skip }, () => {
  const session = write('own.yaml', 'version: "0.3" # comment\nname: $NAME\naccess_policy: {read: ANY}\n');
  const { status, stdout, stderr } = sign('-e', 'NAME=own', session);
  assert.equal(status, 0, stderr);
  const own = stack.scone('self', 'show-session-signing-key');
  assert.deepEqual(signersOf(stdout), [own]);
  const creator = `creator: ${JSON.stringify({ signer: own })}\n`;
  assert.equal(
    policyOf(stdout),
    `${creator}version: "0.3" # comment\nname: "own"\naccess_policy: {read: ANY}\n`,
  );
  // What openssl says of it.
  const message = write('own.message', `envcas signed session, version 1\n${policyOf(stdout)}`);
  write('own.pem', own);
  write('own.signature', Buffer.from(JSON.parse(stdout).signatures[0].signature, 'base64'));
  openssl(
    'pkeyutl',
    '-verify',
    '-rawin',
    '-pubin',
    '-inkey',
    file('own.pem'),
    '-in',
    message,
    '-sigfile',
    file('own.signature'),
  );

  const signed = write('own.json', stdout);
  assert.equal(stack.scone('session', 'check', signed), policyOf(stdout));
  const hash = stack.scone('session', 'calculate-hash', signed);
  assert.equal(stack.scone('session', 'create', signed), hash);
  assert.equal(stack.scone('session', 'verify', signed), hash);
  const signer = ['--with-self-as-creator', 'signer'];
  assert.equal(stack.scone('session', 'calculate-hash', ...signer, '-e', 'NAME=own', session), hash);
  assert.deepEqual(JSON.parse(sign('--json', signed).stdout), JSON.parse(stdout));
});

test('signatures that openssl makes of an Ed25519 and a P-384 key are accepted by scone and CAS', {
  skip,
}, () => {
  const [anna, bert] = [signer('anna', 'Ed25519'), signer('bert', 'P-384')];
  const both = `[{require-all: [${[anna, bert].map(({ pem }) => JSON.stringify({ signer: pem }))}]}]`;
  const session = write(
    'joint.yaml',
    `name: joint\nversion: "0.3"\naccess_policy: {read: ANY, update: ${both}}\n`,
  );
  const message = file('joint.message');
  assert.equal(sign('-o', message, session, 'generate-message-to-be-signed', anna.publicKey).stdout, '');
  assert.equal(
    readFileSync(message, 'utf8'),
    sign(session, 'generate-message-to-be-signed', anna.publicKey, '-f').stdout,
  );
  const byAnna = addSignature(session, anna.publicKey, anna.sign(message));
  assert.equal(byAnna.status, 0, byAnna.stderr);
  const once = write('joint-1.json', byAnna.stdout);
  // The text stays what the first signer saw.
  assert.equal(
    sign(once, 'generate-message-to-be-signed', bert.publicKey).stdout,
    readFileSync(message, 'utf8'),
  );
  const byBoth = sign(once, 'add-signature', bert.publicKey, bert.sign(message).toString('base64'));
  assert.equal(byBoth.status, 0, byBoth.stderr);
  assert.deepEqual(signersOf(byBoth.stdout), [anna.pem, bert.pem]);
  const twice = write('joint-2.json', byBoth.stdout);
  const hash = stack.scone('session', 'create', twice).trim();

  const next = write(
    'next.yaml',
    `predecessor: ${hash}\nsalt: ${'ab'.repeat(16)}\n${policyOf(byBoth.stdout)}`,
  );
  const own = write('next-own.json', sign(next).stdout);
  assert.equal(stack.tryScone('session', 'update', own).status, 77);
  const nextMessage = write('next.message', sign(next, 'generate-message-to-be-signed').stdout);
  const half = write('next-1.json', addSignature(next, anna.publicKey, anna.sign(nextMessage)).stdout);
  assert.match(stack.tryScone('session', 'update', half).stderr, /Code: ACCESS_DENIED/);
  const whole = write('next-2.json', addSignature(half, bert.publicKey, bert.sign(nextMessage)).stdout);
  const updated = stack.tryScone('session', 'update', whole);
  assert.equal(updated.status, 0, updated.stderr);
  assert.equal(stack.scone('session', 'verify', whole), updated.stdout);
});

test('a signature over something else, or of somebody else, is refused', { skip }, () => {
  const [carl, dora] = [signer('carl', 'Ed25519'), signer('dora', 'Ed25519')];
  const session = write(
    'refused.yaml',
    'name: refused\nversion: "0.3"\naccess_policy: {read: ANY, update: NONE}\n',
  );
  const message = write(
    'refused.message',
    sign(session, 'generate-message-to-be-signed', carl.publicKey).stdout,
  );
  const signature = carl.sign(message);
  for (const [publicKey, bytes] of [
    [dora.publicKey, signature],
    [carl.publicKey, dora.sign(message)],
    [carl.publicKey, carl.sign(session)],
    [carl.publicKey, Buffer.alloc(0)],
  ] as const) {
    const { status, stdout, stderr } = addSignature(session, publicKey, bytes);
    assert.deepEqual([status, stdout], [77, '']);
    assert.match(stderr, /Code: SIGNATURE_INVALID/);
  }
  const signed = addSignature(session, carl.publicKey, signature).stdout;
  const forged = write('forged.json', signed.replace('update: NONE', 'update: ANY'));
  for (const command of ['check', 'create', 'calculate-hash', 'verify', 'sign', 'encrypt']) {
    const { status, stdout, stderr } = stack.tryScone('session', command, forged);
    assert.deepEqual([command, status, stdout], [command, 77, '']);
    assert.match(stderr, /Code: SIGNATURE_INVALID/);
  }
});

test('a session that speaks of its creator is not signed before it is clear who that is', { skip }, () => {
  const { publicKey, pem } = signer('emil', 'P-384');
  const message = (text: string, ...args: string[]) =>
    sign(write('creator.yaml', text), 'generate-message-to-be-signed', ...args);
  const plain = 'name: n\nversion: "0.3"\n';
  assert.match(message(plain).stderr, /Code: CREATOR_UNKNOWN, exit status 65/);
  assert.ok(
    message(plain, publicKey).stdout.includes(`creator: ${JSON.stringify({ signer: pem })}\n${plain}`),
  );
  const named = `creator: ${JSON.stringify({ signer: pem })}\n${plain}`;
  assert.ok(message(named).stdout.endsWith(`\n${named}`));
  const nobody = `${plain}access_policy: {read: ANY, update: NONE}\n`;
  assert.ok(message(nobody, publicKey).stdout.endsWith(`\n${nobody}`));
  const variable = `${plain}access_policy: $$SCONE::a$$\nsecrets: [{name: a, kind: config-fragment, value: {}}]\n`;
  assert.match(message(variable, publicKey).stdout, /\ncreator: /);
});

test('sign is told what it cannot take', { skip }, () => {
  const { publicKey } = signer('fred', 'Ed25519');
  const session = write('usage.yaml', 'name: n\nversion: "0.3"\n');
  openssl('genpkey', '-algorithm', 'X25519', '-out', file('x25519.key'));
  const x25519 = write('x25519.pem', openssl('pkey', '-in', file('x25519.key'), '-pubout'));
  const signed = write('usage.json', sign(session).stdout);
  for (const [args, status] of [
    [[session, 'sign-with-cli-identity', publicKey], 64],
    [[session, 'generate-message-to-be-signed', publicKey, 'AAAA'], 64],
    [[session, 'add-signature'], 64],
    [[session, 'add-signature', publicKey, 'no base64'], 64],
    [['-', 'add-signature', publicKey], 64],
    [[session, 'nonsense'], 64],
    [[session, 'add-signature', session, 'AAAA'], 65],
    [[session, 'add-signature', x25519, 'AAAA'], 65],
    [[session, 'add-signature', file('fred.key'), 'AAAA'], 65],
    [[signed, '-n', 'other'], 64],
    [[file('nowhere')], 65],
  ] as const) {
    const result = sign(...args);
    assert.deepEqual([result.status, result.stdout], [status, ''], args.join(' '));
    assert.equal(result.stderr.includes('PRIVATE'), false);
  }
});

test('an encrypted session is signed inside, and only the CAS that it is for can open it', {
  skip,
}, async () => {
  const session = write('hidden.yaml', 'name: $NAME\nversion: "0.3"\naccess_policy: {read: ANY}\n');
  const encrypt = (...args: string[]) => stack.scone('session', 'encrypt', '-e', 'NAME=hidden', ...args);
  const key = file('cas.key');
  openssl('genpkey', '-algorithm', 'X25519', '-out', key);
  const publicKey = write('cas.pem', openssl('pkey', '-in', key, '-pubout'));
  const elsewhere = encrypt(session, '--key', publicKey);
  const inside = await decryptSession(elsewhere, createPrivateKey(readFileSync(key)));
  assert.deepEqual(signersOf(inside), [stack.scone('self', 'show-session-signing-key')]);
  assert.match(policyOf(inside), /\nname: "hidden"\n/);
  const signed = write('hidden.json', inside);
  const again = await decryptSession(
    encrypt(signed, '--key', publicKey),
    createPrivateKey(readFileSync(key)),
  );
  assert.deepEqual(JSON.parse(again), JSON.parse(inside));

  const refused = stack.tryScone('session', 'create', write('elsewhere.jwe', elsewhere));
  assert.match(refused.stderr, /Code: ENCRYPTED_SESSION_INVALID/);
  const here = write('here.jwe', encrypt(session));
  const hash = stack.scone('session', 'create', here);
  assert.equal(hash, stack.scone('session', 'calculate-hash', signed));
  assert.equal(JSON.parse(encrypt(session, '--json')).encryptedSession.split('.').length, 5);
  for (const args of [
    ['check', here],
    ['update', here],
    ['sign', here],
  ])
    assert.match(
      stack.tryScone('session', ...args).stderr,
      /it is encrypted, so only the CAS can look into it/,
    );
  assert.equal(stack.tryScone('session', 'create', here, '-n', 'x').status, 64);
  assert.equal(
    stack.tryScone('session', 'encrypt', session, '--key', publicKey, '-c', 'localhost').status,
    64,
  );
  assert.equal(stack.tryScone('session', 'encrypt', signed, '--key', key).status, 65);
});

test('the hash of a session is told only where its creator is known', { skip }, () => {
  const session = write('hash.yaml', 'name: hashed\nversion: "0.3"\n');
  const calculate = (...args: string[]) => stack.tryScone('session', 'calculate-hash', ...args);
  assert.match(calculate(session).stderr, /Code: CREATOR_UNKNOWN/);
  const hash = calculate('--with-self-as-creator', 'tls', session).stdout;
  assert.equal(hash, stack.scone('session', 'create', session));
  const certificate = stack.scone('self', 'show-certificate');
  const named = write(
    'named.yaml',
    `name: hashed\nversion: "0.3"\ncreator: ${JSON.stringify(certificate)}\n`,
  );
  assert.equal(calculate(named).stdout, hash);
  const identity = file('other.pem');
  openssl(
    'req',
    '-x509',
    '-newkey',
    'ed25519',
    '-noenc',
    '-subj',
    '/CN=x',
    '-keyout',
    identity,
    '-out',
    file('x.pem'),
  );
  writeFileSync(identity, readFileSync(file('x.pem')), { flag: 'a' });
  const other = calculate('--with-self-as-creator', 'tls', '--identity', identity, session).stdout;
  assert.match(other, /^[0-9a-f]{64}\n$/);
  assert.notEqual(other, hash);
  const nobody = write('nobody.yaml', 'name: n\nversion: "0.3"\naccess_policy: {read: ANY, update: NONE}\n');
  const open = calculate(nobody);
  assert.match(open.stderr, /^Warning: .*--with-self-as-creator tls/);
  assert.notEqual(open.stdout, calculate('--with-self-as-creator', 'tls', nobody).stdout);
});
