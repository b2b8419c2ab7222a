import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { createBase58check } from '@scure/base';
import fc from 'fast-check';
import { Failure } from '../../src/errors.ts';
import { formatKeyHash, parseKeyHash, publicKeyDigest } from '../../src/policy/key-hash.ts';
import { anyCharacter } from '../support/any-character.ts';

const base58check = createBase58check((data: Uint8Array) => createHash('sha256').update(data).digest());
const digest = Buffer.alloc(32, 0xa5);
const malformed = (detail: RegExp) => ({ code: 'CAS_KEY_MALFORMED', message: detail });

test('any digest comes back from its name, which has 50 characters or so of Base58', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (bytes) => {
      const name = formatKeyHash(bytes);
      assert.match(name, /^[1-9A-HJ-NP-Za-km-z]{48,51}$/);
      assert.deepEqual(parseKeyHash(name, 'X'), Buffer.from(bytes));
    }),
    { numRuns: 200 },
  );
});

test('the digest is SHA-256 of the SubjectPublicKeyInfo', () => {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const pem = publicKey.export({ type: 'spki', format: 'pem' }) as string;
  const der = Buffer.from(pem.replace(/-----.*-----/g, ''), 'base64');
  assert.deepEqual(publicKeyDigest(publicKey), createHash('sha256').update(der).digest());
});

test('any character changed is a wrong checksum', () => {
  const name = formatKeyHash(digest);
  for (let at = 0; at < name.length; at++) {
    const changed = name.slice(0, at) + (name[at] === 'z' ? 'y' : 'z') + name.slice(at + 1);
    assert.throws(
      () => parseKeyHash(changed, 'SCONE_CAS_KEY'),
      malformed(/^SCONE_CAS_KEY .*checksum is wrong/),
    );
  }
  for (const text of ['', '0', 'hello', `${name} `, name.slice(1), `1${name}`, digest.toString('hex')])
    assert.throws(() => parseKeyHash(text, 'X'), malformed(/checksum is wrong|names something else/), text);
});

test('another version or length names something else', () => {
  for (const bytes of [
    ...[Buffer.concat([Buffer.of(0), digest]), Buffer.concat([Buffer.of(10), digest])],
    ...[
      Buffer.concat([Buffer.of(1), digest.subarray(1)]),
      Buffer.concat([Buffer.of(1, 1), digest]),
      Buffer.of(1),
    ],
  ])
    assert.throws(() => parseKeyHash(base58check.encode(bytes), 'X'), malformed(/^X .*names something else/));
});

test('any text is a digest of 32 bytes or malformed', () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.string({ unit: anyCharacter }), fc.stringMatching(/^[1-9A-HJ-NP-Za-km-z]{0,60}$/)),
      (text) => {
        try {
          assert.equal(parseKeyHash(text, 'X').length, 32);
        } catch (error) {
          assert.ok(error instanceof Failure);
        }
      },
    ),
    { numRuns: 300 },
  );
});
