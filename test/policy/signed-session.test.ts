import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createBase58check } from '@scure/base';
import fc from 'fast-check';
import { Failure } from '../../src/errors.ts';
import { formatKeyHash, publicKeyDigest } from '../../src/policy/key-hash.ts';
import {
  addSignature,
  isSignedSession,
  messageToSign,
  parseSignedSession,
  type SignedSession,
  signedSessionLimits,
  signerDigest,
  signSession,
  verifySignatures,
} from '../../src/policy/signed-session.ts';
import { anyCharacter } from '../support/any-character.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { missing } from '../support/stack.ts';

const policy = 'name: board\nversion: "0.3"\n# "quotes", \\ and Grüße 🔑\n';
const ed25519 = generateKeyPairSync('ed25519');
const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' });
const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const pem = (key: KeyObject) => key.export({ type: 'spki', format: 'pem' }) as string;
const privatePem = (key: KeyObject) => key.export({ type: 'pkcs8', format: 'pem' }) as string;
const signed = signSession(signSession(policy, ed25519.privateKey), p384.privateKey);
const firstSignature = (session: SignedSession) =>
  Buffer.from(session.signatures[0]?.signature ?? '', 'base64');

const invalid = (message: RegExp) => ({ name: 'Failure', code: 'SIGNED_SESSION_INVALID', message });
const refused =
  (key: KeyObject, message: RegExp = /is not over this text/) =>
  (error: unknown) => {
    assert.ok(error instanceof Failure);
    assert.equal(error.code, 'SIGNATURE_INVALID');
    assert.match(error.message, message);
    assert.ok(error.message.includes(formatKeyHash(publicKeyDigest(key))), error.message);
    return true;
  };

const skip = missing('openssl');
const folder = temporaryFolder();
const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
const write = (name: string, content: string | Buffer) => writeFileSync(join(folder, name), content);
const read = (name: string) => readFileSync(join(folder, name));
write('message', messageToSign(policy));

test('what is signed begins with a line of its own, and then is the text', () => {
  assert.equal(messageToSign(policy).toString(), `envcas signed session, version 1\n${policy}`);
});

test('openssl signs with Ed25519', { skip }, () => {
  openssl('genpkey', '-algorithm', 'ed25519', '-out', 'ed.pem');
  openssl('pkey', '-in', 'ed.pem', '-pubout', '-out', 'ed.pub');
  openssl('pkeyutl', '-sign', '-rawin', '-inkey', 'ed.pem', '-in', 'message', '-out', 'ed.sig');
  const session = addSignature(policy, `${read('ed.pub')}`, read('ed.sig'));
  openssl('pkey', '-in', 'ed.pem', '-pubout', '-outform', 'DER', '-out', 'ed.der');
  assert.deepEqual(verifySignatures(session), [createHash('sha256').update(read('ed.der')).digest()]);
});

test('openssl signs with P-384', { skip }, () => {
  openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-384', '-out', 'ec.pem');
  openssl('pkey', '-in', 'ec.pem', '-pubout', '-out', 'ec.pub');
  openssl('dgst', '-sha384', '-sign', 'ec.pem', '-out', 'ec.sig', 'message');
  const session = addSignature(signed, `${read('ec.pub')}`, read('ec.sig'));
  openssl('pkey', '-in', 'ec.pem', '-pubout', '-outform', 'DER', '-out', 'ec.der');
  const digest = createHash('sha256').update(read('ec.der')).digest();
  assert.deepEqual(verifySignatures(session).slice(2), [digest]);
  openssl('dgst', '-sha256', '-sign', 'ec.pem', '-out', 'short.sig', 'message');
  const key = createPublicKey(read('ec.pub'));
  assert.throws(() => addSignature(policy, `${read('ec.pub')}`, read('short.sig')), refused(key));
});

test('openssl verifies what was signed here', { skip }, () => {
  const [first, second] = signed.signatures;
  write('first.pub', first?.signer ?? '');
  write('first.sig', Buffer.from(first?.signature ?? '', 'base64'));
  write('second.pub', second?.signer ?? '');
  write('second.sig', Buffer.from(second?.signature ?? '', 'base64'));
  openssl(
    'pkeyutl',
    '-verify',
    '-rawin',
    '-pubin',
    '-inkey',
    'first.pub',
    '-in',
    'message',
    '-sigfile',
    'first.sig',
  );
  openssl('dgst', '-sha384', '-verify', 'second.pub', '-signature', 'second.sig', 'message');
});

test('every signer is known by the digest of its key, in order', () => {
  const expected = [publicKeyDigest(ed25519.publicKey), publicKeyDigest(p384.publicKey)];
  assert.deepEqual(verifySignatures(signed), expected);
  assert.deepEqual(verifySignatures(parseSignedSession(JSON.stringify(signed))), expected);
  assert.equal(parseSignedSession(JSON.stringify(signed)).policy, policy);
});

test('who signs again replaces the own signature only', () => {
  const again = signSession(signed, ed25519.privateKey);
  assert.deepEqual(again.signatures, [signed.signatures[1], signed.signatures[0]]);
  const bad = { ...signed, signatures: signed.signatures.map((one) => ({ ...one, signature: 'AAAA' })) };
  const repaired = addSignature(bad, pem(ed25519.publicKey), firstSignature(signed));
  assert.throws(() => verifySignatures(repaired), refused(p384.publicKey));
  assert.equal(verifySignatures(signSession(repaired, p384.privateKey)).length, 2);
  assert.equal(bad.signatures.length, 2);
});

test('another text, key or signature is refused, and says whose', () => {
  const [first, second] = signed.signatures;
  assert.ok(first && second);
  const refuses = (session: SignedSession, key: KeyObject, message?: RegExp) =>
    assert.throws(() => verifySignatures(session), refused(key, message));
  refuses({ ...signed, policy: `${policy} ` }, ed25519.publicKey);
  refuses({ policy, signatures: [{ ...first, signature: second.signature }] }, ed25519.publicKey);
  refuses({ policy, signatures: [first, { ...second, signature: first.signature }] }, p384.publicKey);
  refuses({ policy, signatures: [first, second, first] }, ed25519.publicKey, /it is there twice/);
  for (const message of [Buffer.from(policy), createHash('sha512').update(policy).digest()]) {
    const signature = sign(null, message, ed25519.privateKey);
    assert.throws(() => addSignature(policy, pem(ed25519.publicKey), signature), refused(ed25519.publicKey));
  }
  for (const signature of [Buffer.alloc(0), Buffer.alloc(64), Buffer.alloc(96, 1)])
    assert.throws(() => addSignature(policy, pem(p384.publicKey), signature), refused(p384.publicKey));
});

test('any bit of a signature counts', () => {
  const good = firstSignature(signed);
  fc.assert(
    fc.property(fc.nat(good.length * 8 - 1), (bit) => {
      const changed = Buffer.from(good);
      changed.writeUInt8(changed.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      assert.throws(() => addSignature(policy, pem(ed25519.publicKey), changed), refused(ed25519.publicKey));
    }),
    { numRuns: 100 },
  );
});

test('one key in two forms is one signer', { skip }, () => {
  write('p384.pem', privatePem(p384.privateKey));
  const digest = publicKeyDigest(p384.publicKey);
  for (const form of [
    ['-conv_form', 'compressed'],
    ['-conv_form', 'hybrid'],
    ['-param_enc', 'explicit'],
  ]) {
    const other = openssl('ec', '-in', 'p384.pem', '-pubout', ...form).toString();
    assert.notEqual(other, pem(p384.publicKey));
    assert.deepEqual(signerDigest(other), digest, form.join(' '));
    const [first, second] = signed.signatures;
    assert.ok(first && second);
    const doubled = { policy, signatures: [second, { ...second, signer: other }] };
    assert.throws(() => verifySignatures(doubled), refused(p384.publicKey, /it is there twice/));
    const again = addSignature(signed, other, Buffer.from(second.signature, 'base64'));
    assert.deepEqual(again, signed);
  }
});

test('keys of other types sign nothing', () => {
  for (const { publicKey, privateKey } of [p256, rsa, generateKeyPairSync('x25519')]) {
    const message = invalid(/^the signed session is not valid: signer: expected an Ed25519 or P-384 key$/);
    assert.throws(() => signSession(policy, privateKey), message);
    assert.throws(() => addSignature(policy, pem(publicKey), Buffer.alloc(64)), message);
    const session = { policy, signatures: [{ signer: pem(publicKey), signature: 'AAAA' }] };
    assert.throws(
      () => parseSignedSession(JSON.stringify(session)),
      invalid(/signatures\[0\]\.signer: expected an Ed25519 or P-384 key$/),
    );
    assert.throws(() => verifySignatures(session), invalid(/signatures\[0\]\.signer/));
  }
});

test('a malformed signed session says what is wrong, and quotes nothing', () => {
  const [one] = signed.signatures;
  assert.ok(one);
  const secret = 'do-not-quote-me';
  const cases: [unknown, RegExp][] = [
    [[], /expected a mapping of keys to values, found a list/],
    [null, /expected a mapping/],
    [{ policy: secret }, /"signatures" is missing/],
    [{ signatures: [one] }, /"policy" is missing/],
    [{ policy: { secret }, signatures: [one] }, /policy: expected a text/],
    [{ policy: secret, signatures: [] }, /signatures: nobody has signed/],
    [{ policy: secret, signatures: secret }, /signatures: expected a list/],
    [{ policy: secret, signatures: [secret] }, /signatures\[0\]: expected a mapping/],
    [
      { policy: secret, signatures: [one, { ...one, signature: 3 }] },
      /signatures\[1\]\.signature: expected a text/,
    ],
    [
      { policy: secret, signatures: [one], more: 1 },
      /unknown key "more", expected one of: policy, signatures/,
    ],
    [{ policy: secret, signatures: [{ ...one, more: 1 }] }, /signatures\[0\]\.more: unknown key "more"/],
    [{ policy: '\ud800', signatures: [one] }, /policy: it is no well-formed Unicode/],
    ...['!', 'AAAAA', 'AA=A', 'AAB=', 'A-_A', 'AAAA\n', ' AAAA', 'ſſſſ'].map(
      (signature): [unknown, RegExp] => [
        { policy: secret, signatures: [{ ...one, signature }] },
        /signatures\[0\]\.signature: expected base64/,
      ],
    ),
    [
      { policy: secret, signatures: [{ ...one, signature: 'A'.repeat(1028) }] },
      /longer than 1024 characters/,
    ],
    [{ policy: secret, signatures: [{ ...one, signer: 'A'.repeat(4097) }] }, /longer than 4096 characters/],
    [
      { policy: secret, signatures: [{ ...one, signer: secret }] },
      /signatures\[0\]\.signer: expected one public key/,
    ],
    [
      { policy: secret, signatures: [{ ...one, signer: privatePem(ed25519.privateKey) }] },
      /signatures\[0\]\.signer: expected one public key/,
    ],
    [
      { policy: secret, signatures: [{ ...one, signer: one.signer + one.signer }] },
      /signatures\[0\]\.signer: expected one public key/,
    ],
  ];
  for (const [content, message] of cases)
    assert.throws(
      () => parseSignedSession(JSON.stringify(content)),
      (error) => {
        assert.ok(error instanceof Failure);
        assert.equal(error.code, 'SIGNED_SESSION_INVALID');
        assert.match(error.message, message);
        assert.doesNotMatch(error.message, /do-not-quote-me|PRIVATE/);
        return true;
      },
    );
  assert.throws(() => parseSignedSession(`{"policy": ${secret}`), invalid(/: it is not JSON$/));
});

test('sizes are limited', () => {
  const largest = 'é'.repeat(signedSessionLimits.policy / 2);
  const session = signSession(largest, ed25519.privateKey);
  assert.equal(parseSignedSession(JSON.stringify(session)).policy, largest);
  const tooLarge = invalid(/policy: it has more than 2097152 bytes/);
  assert.throws(() => signSession(`${largest}x`, ed25519.privateKey), tooLarge);
  assert.throws(() => parseSignedSession(JSON.stringify({ ...session, policy: `${largest}x` })), tooLarge);

  let crowd = signSession(policy, ed25519.privateKey);
  for (let count = 1; count < signedSessionLimits.signatures; count++)
    crowd = signSession(crowd, generateKeyPairSync('ed25519').privateKey);
  assert.equal(verifySignatures(parseSignedSession(JSON.stringify(crowd))).length, 16);
  assert.throws(() => signSession(crowd, p384.privateKey), invalid(/signatures: more than 16 signatures/));
  assert.equal(signSession(crowd, ed25519.privateKey).signatures.length, 16);
});

test('signed sessions are told from others', () => {
  assert.ok(isSignedSession(JSON.stringify(signed)));
  assert.ok(isSignedSession(`\n ${JSON.stringify(signed, null, 2)}\n`));
  assert.ok(isSignedSession('{"policy": 1, "signatures": 2}'));
  for (const text of [
    ...[
      '',
      policy,
      '{',
      '{}',
      '[]',
      'null',
      '{"policy": "x"}',
      '{"signatures": []}',
      '["policy", "signatures"]',
    ],
    ...['{policy: a, signatures: []}', '{"policy": "x", "signatures": [}', 'policy: x\nsignatures: []\n'],
  ])
    assert.equal(isSignedSession(text), false, text);
});

test('any text is a signed session or none, and a signer or a message', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: anyCharacter }), fc.json()), (text) => {
      if (isSignedSession(text)) assert.throws(() => parseSignedSession(text), Failure);
      else assert.throws(() => parseSignedSession(text), invalid(/./));
      assert.equal(typeof signerDigest(text), 'string');
    }),
    { numRuns: 300 },
  );
});

const base58check = createBase58check((data: Uint8Array) => createHash('sha256').update(data).digest());
const older = (version: number, bytes: Uint8Array) =>
  base58check.encode(Buffer.concat([Buffer.of(version), bytes]));

test('a signer is named by its key, new and old', () => {
  const digest = publicKeyDigest(ed25519.publicKey);
  const raw = ed25519.publicKey.export({ type: 'spki', format: 'der' }).subarray(-32);
  assert.deepEqual(signerDigest(pem(ed25519.publicKey)), digest);
  assert.deepEqual(signerDigest(` ${pem(ed25519.publicKey).replaceAll('\n', '\r\n')}\n`), digest);
  assert.deepEqual(signerDigest(older(10, raw)), digest);
  assert.deepEqual(signerDigest(`${older(10, raw)}\n`), digest);
  assert.deepEqual(signerDigest(pem(p384.publicKey)), publicKeyDigest(p384.publicKey));
});

test('what names no signer has a message', () => {
  const raw = Buffer.alloc(32, 7);
  const name = older(10, raw);
  const cases: [string, RegExp][] = [
    [pem(p256.publicKey), /^expected an Ed25519 or P-384 key$/],
    [pem(rsa.publicKey), /^expected an Ed25519 or P-384 key$/],
    [privatePem(ed25519.privateKey), /^expected one public key/],
    [pem(ed25519.publicKey) + pem(p384.publicKey), /^expected one public key/],
    [pem(p384.publicKey).replace(/\n..../, '\nAAAA'), /damaged/],
    [formatKeyHash(raw), /^it is a key hash/],
    [older(11, raw), /^it is a key hash/],
    [older(10, raw.subarray(1)), /^expected a public key/],
    [older(10, Buffer.alloc(33)), /^expected a public key/],
    [`${name.slice(0, -1)}${name.endsWith('z') ? 'y' : 'z'}`, /^expected a public key/],
    ...['', 'CREATOR', raw.toString('hex'), 'z'.repeat(10_000_000)].map((text): [string, RegExp] => [
      text,
      /^expected a public key/,
    ]),
  ];
  for (const [text, message] of cases) {
    const result = signerDigest(text);
    assert.ok(typeof result === 'string', text.slice(0, 200));
    assert.match(result, message);
  }
});
