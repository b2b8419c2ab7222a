import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  generatePrivateKey,
  type KeyType,
  keyTypeOf,
  keyTypes,
  parsePrivateKey,
  parsePublicKey,
  publicKeyOf,
  readPem,
  toPem,
} from '../../src/secrets/private-key.ts';
import { integer, objectIdentifier, octetString, sequence } from '../support/pki.ts';
import { missing } from '../support/stack.ts';

const skip = missing('openssl');

function openssl(args: string[], input: string | Buffer = ''): Buffer {
  return execFileSync('openssl', args, { input, stdio: ['pipe', 'pipe', 'ignore'] });
}

const toPkcs8 = (key: string | Buffer) => openssl(['pkcs8', '-topk8', '-nocrypt', '-outform', 'DER'], key);

/** How openssl is asked for a key, and what it says of one. */
const known: Record<KeyType, { options: string[]; text: RegExp }> = {
  'P-256': { options: ['EC', '-pkeyopt', 'ec_paramgen_curve:P-256'], text: /NIST CURVE: P-256/ },
  'P-384': { options: ['EC', '-pkeyopt', 'ec_paramgen_curve:P-384'], text: /NIST CURVE: P-384/ },
  Ed25519: { options: ['ED25519'], text: /^ED25519 Private-Key/ },
  'RSA-2048': { options: ['RSA', '-pkeyopt', 'rsa_keygen_bits:2048'], text: /2048 bit/ },
  'RSA-3072': { options: ['RSA', '-pkeyopt', 'rsa_keygen_bits:3072'], text: /3072 bit/ },
};

for (const type of keyTypes) {
  test(`openssl reads a generated ${type} key and finds the same public key`, { skip }, async () => {
    const key = generatePrivateKey(type);
    const pem = toPem('PRIVATE KEY', key);
    assert.match(
      openssl(['pkey', '-check', '-text', '-noout'], pem).toString().replace('Key is valid\n', ''),
      known[type].text,
    );
    assert.equal(openssl(['pkey'], pem).toString(), pem);
    assert.equal(openssl(['pkey', '-pubout'], pem).toString(), toPem('PUBLIC KEY', publicKeyOf(key)));
    assert.deepEqual(parsePrivateKey(pem), { der: key, type });
    assert.equal(keyTypeOf(key), type);
    assert.deepEqual(parsePublicKey(toPem('PUBLIC KEY', publicKeyOf(key))), publicKeyOf(key));
  });

  test(`a ${type} key of openssl is read`, { skip }, () => {
    const pem = openssl(['genpkey', '-algorithm', ...known[type].options]).toString();
    assert.deepEqual(parsePrivateKey(pem), { der: toPkcs8(pem), type });
  });
}

test('generated keys are never the same', async () => {
  const keys = Array.from({ length: 20 }, () => generatePrivateKey('Ed25519'));
  assert.equal(new Set(keys.map(String)).size, keys.length);
});

/** PKCS#8 of P-256 whose public key is left out, as RFC 5915 allows. */
const withoutPublicKey = Buffer.from(
  `3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420${'0123456789abcdef'.repeat(4)}`,
  'hex',
);

test('a curve without its public key, or with its parameters written out, becomes the usual form', {
  skip,
}, () => {
  const short = parsePrivateKey(toPem('PRIVATE KEY', withoutPublicKey));
  assert.ok(typeof short === 'object');
  assert.match(openssl(['pkey', '-text', '-noout'], toPem('PRIVATE KEY', short.der)).toString(), /pub:/);

  const options = [...known['P-384'].options, '-pkeyopt', 'ec_param_enc:explicit'];
  const explicit = openssl(['genpkey', '-algorithm', ...options]);
  const named = toPkcs8(openssl(['ec', '-param_enc', 'named_curve'], explicit));
  assert.deepEqual(parsePrivateKey(explicit.toString()), { der: named, type: 'P-384' });
});

test('text around a key, and any line ends, do no harm', async () => {
  const der = generatePrivateKey('P-256');
  const pem = toPem('PRIVATE KEY', der);
  for (const text of [
    `Bag Attributes\n  x: y\n${pem}\n`,
    pem.replaceAll('\n', '\r\n'),
    pem.replace(/^/gm, '  '),
  ])
    assert.deepEqual(parsePrivateKey(text), { der, type: 'P-256' });
});

test('whatever is no usable private key is refused without quoting it', { skip }, async (t) => {
  const key = generatePrivateKey('P-256');
  const pem = toPem('PRIVATE KEY', key);
  const other = generatePrivateKey('P-256');
  const genpkey = (...options: string[]) => openssl(['genpkey', '-algorithm', ...options]).toString();
  const base64 = key.toString('base64');
  const values: [what: string, value: string, message: RegExp][] = [
    ['nothing', '', /PKCS#8/],
    ['no PEM', 'hunter2 hunter2', /PKCS#8/],
    ['bare base64', base64, /PKCS#8/],
    ['two keys', pem + pem, /one private key/],
    ['a public key', toPem('PUBLIC KEY', publicKeyOf(key)), /PKCS#8/],
    [
      'a certificate beside it',
      `${pem}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`,
      /one private/,
    ],
    ['an older form', openssl(['ec'], pem).toString(), /PKCS#8/],
    ['an encrypted key', openssl(['pkcs8', '-topk8', '-passout', 'pass:x'], pem).toString(), /encrypted/],
    [
      'an older form, encrypted',
      openssl(['ec', '-aes128', '-passout', 'pass:x'], pem).toString(),
      /encrypted/,
    ],
    ['no end', pem.replace(/-----END.*/, ''), /PKCS#8/],
    ['the end of something else', pem.replace('END PRIVATE', 'END PUBLIC'), /PKCS#8/],
    ['what is no base64', pem.replace(/[A-Z]/g, '*'), /PKCS#8/],
    ['half of it', toPem('PRIVATE KEY', key.subarray(0, 70)), /damaged/],
    ['zeros', toPem('PRIVATE KEY', Buffer.alloc(100)), /damaged/],
    [
      'an encrypted key under another label',
      toPem('PRIVATE KEY', openssl(['pkcs8', '-topk8', '-outform', 'DER', '-passout', 'pass:x'], pem)),
      /damaged/,
    ],
    [
      'the public key of another',
      toPem('PRIVATE KEY', Buffer.concat([key.subarray(0, -65), other.subarray(-65)])),
      /damaged/,
    ],
    ['a megabyte', pem + ' '.repeat(1_000_000), /PKCS#8/],
    ['RSA of 1024 bits', genpkey('RSA', '-pkeyopt', 'rsa_keygen_bits:1024'), /none of P-256/],
    ['RSA-PSS', genpkey('RSA-PSS', '-pkeyopt', 'rsa_keygen_bits:2048'), /none of P-256/],
    ['another curve', genpkey('EC', '-pkeyopt', 'ec_paramgen_curve:secp256k1'), /none of P-256/],
    ['a key that cannot sign', genpkey('X25519'), /none of P-256/],
    ['Ed448', genpkey('ED448'), /none of P-256/],
  ];
  for (const [what, value, message] of values)
    await t.test(what, () => {
      const result = parsePrivateKey(value);
      assert.ok(typeof result === 'string', 'accepted');
      assert.match(result, message);
      const words = value.replace(/-----.*?-----/g, '').match(/[A-Za-z0-9+/]{7,}/g) ?? [];
      assert.deepEqual(
        words.filter((word) => result.includes(word)),
        [],
      );
    });
});

test('a modulus that is not that of its primes is refused', async () => {
  const key = generatePrivateKey('RSA-2048');
  const broken = Buffer.from(key);
  const middleOfModulus = 150;
  broken.writeUInt8(broken.readUInt8(middleOfModulus) ^ 1, middleOfModulus);
  assert.equal(parsePrivateKey(toPem('PRIVATE KEY', broken)), 'the private key is damaged');
});

test('public keys of any type are read, and nothing else', { skip }, () => {
  for (const algorithm of ['ED448', 'X25519', 'RSA']) {
    const key = openssl(['genpkey', '-algorithm', algorithm]);
    const pem = openssl(['pkey', '-pubout'], key).toString();
    assert.deepEqual(parsePublicKey(pem), openssl(['pkey', '-pubout', '-outform', 'DER'], key));
    for (const value of [
      '',
      'x',
      pem + pem,
      key.toString(),
      pem.replaceAll('PUBLIC', 'RSA PUBLIC'),
      pem.slice(0, 60),
    ])
      assert.match(String(parsePublicKey(value)), /expected one public key/);
    assert.match(String(parsePublicKey(toPem('PUBLIC KEY', Buffer.alloc(90)))), /damaged/);
  }
});

test('any bytes come back from PEM, and are written as openssl writes them', { skip }, () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 200 }), { minLength: 1, maxLength: 3 }),
      (all) => {
        const text = all.map((bytes) => toPem('X Y', Buffer.from(bytes))).join('');
        assert.deepEqual(
          readPem(text),
          all.map((bytes) => ({ label: 'X Y', der: Buffer.from(bytes) })),
        );
      },
    ),
  );
  for (const size of [1, 47, 48, 49, 96, 1000]) {
    const bytes = Buffer.alloc(size, 'envcas');
    assert.equal(toPem('X', bytes), `-----BEGIN X-----\n${openssl(['base64'], bytes)}-----END X-----\n`);
  }
});

test('any text ends in a message', () => {
  const pieces = fc.constantFrom(
    '-----BEGIN ',
    'PRIVATE KEY',
    'PUBLIC KEY',
    '-----',
    '-----END ',
    '\n',
    'MEEC',
    '=',
    ' ',
  );
  const text = fc.oneof(
    fc.string(),
    fc.array(pieces, { maxLength: 30 }).map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(text, (value) => {
      assert.equal(typeof parsePrivateKey(value), 'string');
      assert.equal(typeof parsePublicKey(value), 'string');
    }),
    { numRuns: 500 },
  );
});

test('a key whose public part would have to be computed is not read', () => {
  // DSA with numbers that take hours to a power, and no public part (RFC 5208, RFC 3279 §2.3.2).
  const number = integer(2n ** 56_000n - 1n);
  const algorithm = sequence(objectIdentifier('1.2.840.10040.4.1'), sequence(number, number, number));
  const key = sequence(integer(0), algorithm, octetString(number));
  const unknown = { name: 'UnknownKey' };
  assert.throws(() => publicKeyOf(key), unknown);
  assert.throws(() => keyTypeOf(key), unknown);
  const short = sequence(
    integer(0),
    sequence(objectIdentifier('1.2.840.10040.4.1')),
    octetString(integer(1)),
  );
  assert.throws(() => publicKeyOf(short), unknown);
  const { privateKey } = generateKeyPairSync('x25519');
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  assert.match(String(parsePrivateKey(pem)), /^the type of the private key is none of/);
});
