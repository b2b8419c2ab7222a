import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  createCipheriv,
  createHash,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { CompactEncrypt } from 'jose';
import { formatKeyHash, publicKeyDigest } from '../../src/policy/key-hash.ts';
import {
  decryptSession,
  ENCRYPTED_SESSION_LIMIT,
  encryptSession,
  isEncryptedSession,
} from '../../src/protocol/encrypted-session.ts';
import { anyCharacter } from '../support/any-character.ts';
import { missing } from '../support/stack.ts';

const pem = (key: KeyObject) => key.export({ type: 'spki', format: 'pem' }) as string;
const { publicKey, privateKey } = generateKeyPairSync('x25519');
const kid = formatKeyHash(publicKeyDigest(publicKey));
const text = 'name: hidden\n# Grüße 🔑\n';
const encrypted = await encryptSession(text, pem(publicKey));
const [head = '', encryptedKey = '', iv = '', content = '', tag = ''] = encrypted.split('.');
const decoded = (part: string): Record<string, unknown> => JSON.parse(`${Buffer.from(part, 'base64url')}`);
const encoded = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

const refuses = (jwe: string, detail: string, key = privateKey) =>
  assert.rejects(
    decryptSession(jwe, key),
    { code: 'ENCRYPTED_SESSION_INVALID', message: `the encrypted session is not valid: ${detail}` },
    jwe.slice(0, 500),
  );
const form = 'it has another form';
const otherWay = 'it is encrypted in another way than is accepted';
const damaged = 'it does not decrypt';
const elsewhere = 'it is for another CAS';

/** Any bytes, properly encrypted for the key. */
const seal = (plain: Uint8Array, changes: Record<string, unknown> = {}) =>
  new CompactEncrypt(plain)
    .setProtectedHeader({ alg: 'ECDH-ES', enc: 'A256GCM', typ: 'envcas-session+jwe', kid, ...changes })
    .encrypt(publicKey);

test('a text comes back, whatever it is', async () => {
  assert.equal(await decryptSession(encrypted, privateKey), text);
  assert.equal(await decryptSession(`\n${encrypted}\n`, privateKey), text);
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: 'grapheme' }), async (any) => {
      assert.equal(await decryptSession(await encryptSession(any, pem(publicKey)), privateKey), any);
    }),
    { numRuns: 50 },
  );
  for (const special of ['', '\ufeffname: x\n', '\0'])
    assert.equal(await decryptSession(await encryptSession(special, pem(publicKey)), privateKey), special);
});

test('the header says for whom it is, and the text is nowhere in it', async () => {
  const { epk, ...others } = decoded(head);
  assert.deepEqual(others, { alg: 'ECDH-ES', enc: 'A256GCM', typ: 'envcas-session+jwe', kid });
  assert.deepEqual(Object.keys(epk as object).sort(), ['crv', 'kty', 'x']);
  assert.equal(encryptedKey, '');
  assert.equal(Buffer.from(content, 'base64url').length, Buffer.byteLength(text));
  assert.ok(!encrypted.split('.').some((part) => Buffer.from(part, 'base64url').includes('hidden')));
  assert.notEqual(await encryptSession(text, pem(publicKey)), encrypted);
});

test('openssl agrees on the same key', { skip: missing('openssl') }, async () => {
  const made = createPrivateKey(
    execFileSync('openssl', ['genpkey', '-algorithm', 'X25519'], { stdio: 'pipe' }),
  );
  const shown = execFileSync('openssl', ['pkey', '-pubout'], {
    input: made.export({ type: 'pkcs8', format: 'pem' }),
    encoding: 'utf8',
  });
  const jwe = await encryptSession(text, shown);
  assert.equal(await decryptSession(jwe, made), text);
  assert.equal(decoded(jwe.split('.')[0] ?? '').kid, formatKeyHash(publicKeyDigest(createPublicKey(made))));
});

test('any bit of any part counts', async () => {
  const parts = [head, encryptedKey, iv, content, tag];
  for (const [index, part] of parts.entries()) {
    const bytes = Buffer.from(part, 'base64url');
    for (let at = 0; at < bytes.length; at++) {
      const changed = Buffer.from(bytes);
      changed.writeUInt8(changed.readUInt8(at) ^ (1 << (at % 8)), at);
      const jwe = parts.with(index, changed.toString('base64url')).join('.');
      if (index > 0) await refuses(jwe, damaged);
      else await assert.rejects(decryptSession(jwe, privateKey), { code: 'ENCRYPTED_SESSION_INVALID' });
    }
  }
});

test('parts that are cut, moved, added or spelled in another way have another form', async () => {
  const parts = [head, encryptedKey, iv, content, tag];
  for (const jwe of [
    ...['', '.', '....', '.....', 'name: x\n', encrypted.replaceAll('.', ' ')],
    ...[parts.slice(0, 4).join('.'), `${encrypted}.`, `${encrypted}.${tag}`, `.${encrypted}`],
    ...[parts.with(1, 'AAAA').join('.'), parts.with(1, randomBytes(40).toString('base64url')).join('.')],
    ...[
      parts.with(2, '').join('.'),
      parts.with(2, iv.slice(0, -4)).join('.'),
      parts.with(2, `${iv}AAAA`).join('.'),
    ],
    ...[
      parts.with(4, '').join('.'),
      parts.with(4, tag.slice(0, -2)).join('.'),
      parts.with(4, `${tag}AA`).join('.'),
    ],
    ...[`${encrypted}=`, `${encrypted.slice(0, -1)}${tag.endsWith('A') ? 'B' : `${tag.slice(-1)}!`}`],
    ...[parts.with(3, `${content}\n`).join('.'), parts.with(3, `+${content.slice(1)}`).join('.')],
  ])
    await refuses(jwe, form);
  await refuses(parts.with(3, '').join('.'), damaged);
  const whole = Buffer.concat([Buffer.from(content, 'base64url'), Buffer.from(tag, 'base64url')]);
  const moved = [whole.subarray(0, -15), whole.subarray(-15)].map((part) => part.toString('base64url'));
  await refuses([head, '', iv, ...moved].join('.'), form);
});

test('another header, algorithm none, dir or RSA included, is refused before anything is decrypted', async () => {
  const header = decoded(head);
  const replaced = (changed: unknown) => [encoded(changed), '', iv, content, tag].join('.');
  for (const changes of [
    ...[
      'none',
      'dir',
      'RSA-OAEP-256',
      'RSA1_5',
      'ECDH-ES+A256KW',
      'A256KW',
      'PBES2-HS256+A128KW',
      '',
      null,
    ].map((alg) => ({ alg })),
    ...['A128GCM', 'A256CBC-HS512', 'none', undefined].map((enc) => ({ enc })),
    ...['JWE', 'ENVCAS-SESSION+JWE', undefined].map((typ) => ({ typ })),
    ...[
      { zip: 'DEF' },
      { zip: '' },
      { crit: ['exp'], exp: 1 },
      { apu: 'AAAA' },
      { apv: 'AAAA' },
      { cty: 'x' },
    ],
    ...[{ kid: undefined }, { kid: 1 }, { jwk: {} }, { more: 1 }],
    ...[{ epk: undefined }, { epk: null }, { epk: { ...(header.epk as object), crv: 'X448' } }],
    ...[
      { epk: { ...(header.epk as object), d: 'AAAA' } },
      { epk: { kty: 'EC', crv: 'P-256', x: 'A', y: 'A' } },
    ],
  ])
    await refuses(replaced({ ...header, ...changes }), otherWay);
  for (const other of [[header], 'text', null, 1]) await refuses(replaced(other), otherWay);
  await refuses([Buffer.from('{"alg"').toString('base64url'), '', iv, content, tag].join('.'), otherWay);
  await refuses(replaced({ ...header, kid: 'A'.repeat(2000) }), otherWay);
});

test('a header that was properly encrypted is refused just so', async () => {
  const plain = Buffer.from(text);
  assert.equal(await decryptSession(await seal(plain), privateKey), text);
  for (const changes of [{ typ: 'JWT' }, { enc: 'A128GCM' }, { cty: 'text/plain' }])
    await refuses(await seal(plain, changes), otherWay);
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const typ = 'envcas-session+jwe';
  const withRsa = await new CompactEncrypt(plain)
    .setProtectedHeader({ alg: 'RSA-OAEP-256', enc: 'A256GCM', typ, kid })
    .encrypt(rsa.publicKey);
  await refuses(withRsa, form, rsa.privateKey);
  const direct = await new CompactEncrypt(plain)
    .setProtectedHeader({ alg: 'dir', enc: 'A256GCM', typ, kid })
    .encrypt(Buffer.alloc(32));
  await refuses(direct, otherWay);
  const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const onAnotherCurve = await new CompactEncrypt(plain)
    .setProtectedHeader({ alg: 'ECDH-ES', enc: 'A256GCM', typ, kid })
    .encrypt(p256.publicKey);
  await refuses(onAnotherCurve, otherWay, p256.privateKey);
});

/** A session encrypted without the library: ECDH-ES (RFC 7518 §4.6.2) under a shared secret, by a given public key. */
function sealBy(sharedSecret: Buffer, x: string, plain: string): string {
  const sized = (text: string) => Buffer.concat([uint32(text.length), Buffer.from(text)]);
  const derived = createHash('sha256')
    .update(Buffer.concat([uint32(1), sharedSecret, sized('A256GCM'), sized(''), sized(''), uint32(256)]))
    .digest();
  const protectedHeader = encoded({ ...decoded(head), epk: { kty: 'OKP', crv: 'X25519', x } });
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', derived, nonce).setAAD(Buffer.from(protectedHeader));
  const sealed = Buffer.concat([cipher.update(plain), cipher.final()]);
  const parts = [nonce, sealed, cipher.getAuthTag()].map((part) => part.toString('base64url'));
  return [protectedHeader, '', ...parts].join('.');
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

test('it is ECDH-ES as RFC 7518 has it', async () => {
  const ephemeral = generateKeyPairSync('x25519');
  const sharedSecret = diffieHellman({ privateKey: ephemeral.privateKey, publicKey });
  const { x = '' } = ephemeral.publicKey.export({ format: 'jwk' });
  assert.equal(await decryptSession(sealBy(sharedSecret, x, text), privateKey), text);
});

test('a point of small order agrees on no key, and neither does what is no point', async () => {
  // RFC 7748 §6.1: with such a point the shared secret is zero, whatever the private key.
  for (const point of ['', '00', '01', 'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b8']) {
    const bytes = Buffer.alloc(32);
    bytes.write(point, 'hex');
    await refuses(sealBy(Buffer.alloc(32), bytes.toString('base64url'), text), damaged);
  }
  for (const size of [0, 31, 33])
    await refuses(sealBy(Buffer.alloc(32), Buffer.alloc(size, 9).toString('base64url'), text), damaged);
});

test('only the key it was encrypted for opens it', async () => {
  const other = generateKeyPairSync('x25519');
  await refuses(encrypted, elsewhere, other.privateKey);
  // One that claims to be for this key, and is not.
  const otherKid = formatKeyHash(publicKeyDigest(other.publicKey));
  await refuses(await seal(Buffer.from(text), { kid: otherKid }), elsewhere);
  await refuses(await seal(Buffer.from(text), { kid: otherKid }), damaged, other.privateKey);
});

test('what is no UTF-8 is no session', async () => {
  for (const bytes of [Buffer.of(0xff), Buffer.of(0xc3), Buffer.from('text\ud800', 'utf16le')])
    await refuses(await seal(bytes), damaged);
});

test('only an X25519 public key is encrypted to', async () => {
  const keys = [
    generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    generateKeyPairSync('ed25519'),
    generateKeyPairSync('rsa', { modulusLength: 2048 }),
    generateKeyPairSync('x448'),
  ];
  const refusesKey = (key: string, message: RegExp) =>
    assert.rejects(encryptSession(text, key), { code: 'ENCRYPTED_SESSION_INVALID', message });
  for (const pair of keys)
    await refusesKey(pem(pair.publicKey), /the key of the CAS: expected an X25519 key$/);
  for (const key of ['', 'text', kid, privateKey.export({ type: 'pkcs8', format: 'pem' }) as string])
    await refusesKey(key, /the key of the CAS: expected one public key/);
});

test('sizes are limited, both ways', async () => {
  const detail = `it has more than ${ENCRYPTED_SESSION_LIMIT} characters`;
  const most = Math.floor(((ENCRYPTED_SESSION_LIMIT - encrypted.length) / 4) * 3);
  const large = await encryptSession('a'.repeat(most), pem(publicKey));
  assert.ok(large.length > ENCRYPTED_SESSION_LIMIT - 100);
  assert.equal((await decryptSession(large, privateKey)).length, most);
  await assert.rejects(encryptSession('a'.repeat(most + 200), pem(publicKey)), {
    code: 'ENCRYPTED_SESSION_INVALID',
    message: new RegExp(`${detail}$`),
  });
  await refuses(await seal(Buffer.alloc(most + 200, 'a')), detail);
  await refuses('.'.repeat(ENCRYPTED_SESSION_LIMIT), form);
});

test('encrypted sessions are told from others', () => {
  assert.ok(isEncryptedSession(encrypted));
  assert.ok(isEncryptedSession(`${'\n'.repeat(2000)}${encrypted}\n`));
  // Meant as one, though it will not be accepted.
  assert.ok(isEncryptedSession(`${encoded({ typ: 'envcas-session+jwe', alg: 'none' })}.`));
  for (const other of [
    '',
    '.',
    text,
    '{"policy": "", "signatures": []}',
    head,
    encoded({ typ: 'JWT' }),
    `${encoded({ typ: 'JWT' })}....`,
    `${encoded({ typ: 'envcas-session+jwe' })}A`,
    `${encoded({ typ: 'envcas-session+jwe', long: 'x'.repeat(1024) })}....`,
  ])
    assert.equal(isEncryptedSession(other), false, other);
});

test('any text is opened or refused, and nothing else', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(fc.string({ unit: anyCharacter }), fc.stringMatching(/^eyJ[\w-]*\.{1,4}[\w-]*$/)),
      async (any) => {
        await assert.rejects(decryptSession(any, privateKey), { code: 'ENCRYPTED_SESSION_INVALID' });
        assert.equal(isEncryptedSession(any), false);
      },
    ),
    { numRuns: 300 },
  );
});
