import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { describe, test } from 'node:test';
import { parseSession } from '../../src/policy/session.ts';
import { type Definition, makeSecret } from '../../src/secrets/generate.ts';
import { formatOf, formatSecret, formatsOf } from '../../src/secrets/kinds.ts';
import { generatePrivateKey, publicKeyOf, toPem } from '../../src/secrets/private-key.ts';
import { NO_EXPIRY } from '../../src/secrets/x509.ts';
import { issueCertificate } from '../../src/secrets/x509-issuer.ts';
import { onlyInvalidText, problemsOf, sessionText } from './support.ts';

/** A session of secrets; the first is on line 5. */
const secretsText = (...secrets: string[]) =>
  sessionText('secrets:', ...secrets.map((secret) => `- ${secret}`));

const key = generatePrivateKey('P-256');
const otherKey = generatePrivateKey('P-384');
const certificate = await issueCertificate({
  ca: true,
  commonName: 'c',
  dns: [],
  ip: [],
  publicKey: publicKeyOf(key),
  privateKey: key,
  notBefore: new Date(0),
  notAfter: NO_EXPIRY,
});
/** PEM as a text of YAML. */
const pem = (label: string, der: Buffer) => JSON.stringify(toPem(label, der));
const keyPem = pem('PRIVATE KEY', key);
const otherKeyPem = pem('PRIVATE KEY', otherKey);
const certificatePem = pem('CERTIFICATE', certificate);
const encrypted = generateKeyPairSync('ec', {
  namedCurve: 'P-256',
  publicKeyEncoding: { type: 'spki', format: 'pem' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' },
}).privateKey;
const megabyte = 1024 * 1024;

const size = /^5:\d+ secrets\[0\]\.size: expected a whole number from 1 to 1048576$/;
const noSize = /^5:\d+ secrets\[0\]\.size: unknown key "size"/;
const noText = /^5:\d+ secrets\[0\]\.value: expected a text, found (an empty value|a list|a mapping)$/;
const hexadecimal =
  /^5:\d+ secrets\[0\]\.value: the value of a binary secret is hexadecimal, two digits a byte$/;
const noKey = /^5:\d+ secrets\[0\]\.value: expected one private key as PKCS#8 in PEM/;
const noPublicKey = /^5:\d+ secrets\[0\]\.value: expected one public key as SubjectPublicKeyInfo in PEM/;
const noCertificate = /^5:\d+ secrets\[0\]\.value: expected X\.509 certificates in PEM/;
const circle = /^\d+:\d+ secrets\[\d\]\.issuer: [abc] is issued by itself, in a circle$/;

const sizes = [
  '0',
  '-1',
  '1.5',
  '0x10',
  '1e3',
  '05',
  '+5',
  '""',
  '" 5"',
  '1048577',
  '9'.repeat(400),
  '.inf',
  'NaN',
];
const refused: [what: string, secrets: string[], ...problems: RegExp[]][] = [
  ...['ascii', 'binary'].flatMap((kind) =>
    sizes.map((it): [string, string[], RegExp] => [
      `${kind} of the size ${it.slice(0, 20)}`,
      [`{name: x, kind: ${kind}, size: ${it}}`],
      size,
    ]),
  ),
  ...['private-key', 'public-key', 'x509', 'x509-ca', 'pgp-key'].map((kind): [string, string[], RegExp] => [
    `${kind} with a size`,
    [
      `{name: x, kind: ${kind}, size: 32${kind.startsWith('p') ? '' : ', private_key: k'}}`,
      '{name: k, kind: private-key}',
    ],
    noSize,
  ]),
  ...['ascii', 'binary', 'private-key', 'public-key', 'x509', 'x509-ca'].flatMap((kind) =>
    ['', '~', '[]', '[a]', '{a: b}'].map((value): [string, string[], RegExp] => [
      `${kind} with ${value || 'nothing'} as its value`,
      [`{name: x, kind: ${kind}, value: ${value}}`],
      noText,
    ]),
  ),
  ...[
    'zz',
    '0',
    '000',
    '0x10',
    '"00 11"',
    '"\\0\\0"',
    '$$SCONE::x$$',
    '"$$"',
    `"${'0'.repeat(2 * megabyte)}x"`,
  ].map((value): [string, string[], RegExp] => [
    `binary with the value ${value.slice(0, 20)}`,
    [`{name: x, kind: binary, value: ${value}}`],
    hexadecimal,
  ]),
  ...[
    '""',
    '"\\0"',
    '$$SCONE::x$$',
    keyPem.slice(0, -30),
    certificatePem,
    `"${'A'.repeat(megabyte)}"`,
  ].flatMap((value): [string, string[], RegExp][] => [
    [
      `private-key with the value ${value.slice(0, 30)}`,
      [`{name: x, kind: private-key, value: ${value.replace(/[^"]$/, '$&"')}}`],
      noKey,
    ],
    [
      `public-key with the value ${value.slice(0, 30)}`,
      [`{name: x, kind: public-key, value: ${value.replace(/[^"]$/, '$&"')}}`],
      noPublicKey,
    ],
  ]),
  ...['x509', 'x509-ca'].flatMap((kind) =>
    ['""', '"\\0"', '$$SCONE::x$$', keyPem, `"${'A'.repeat(megabyte)}"`].map(
      (value): [string, string[], RegExp] => [
        `${kind} with the value ${value.slice(0, 30)}`,
        [`{name: x, kind: ${kind}, value: ${value}}`],
        noCertificate,
      ],
    ),
  ),
  [
    'ascii with half of a character',
    ['{name: x, kind: ascii, value: "\\ud800"}'],
    /^5:33 secrets\[0\]\.value: half of a character/,
  ],
  [
    'ascii with a size that its value has not',
    ['{name: x, kind: ascii, size: 3, value: ""}'],
    /^5:42 secrets\[0\]\.value: size and value disagree/,
  ],
  [
    'binary with a size that its value has not',
    ['{name: x, kind: binary, size: 2, value: ""}'],
    /^5:43 secrets\[0\]\.value: size and value disagree/,
  ],
  [
    'a private key with a passphrase',
    [`{name: x, kind: private-key, value: ${JSON.stringify(encrypted)}}`],
    /secrets\[0\]\.value: the private key is encrypted with a passphrase/,
  ],
  [
    'a private key of another type',
    [`{name: x, kind: private-key, key_type: Ed25519, value: ${keyPem}}`],
    /^5:\d+ secrets\[0\]\.value: key_type and value disagree/,
  ],
  [
    'an unknown type of key',
    ['{name: x, kind: private-key, key_type: RSA-512}'],
    /^5:\d+ secrets\[0\]\.key_type: expected one of P-256/,
  ],
  [
    'a private key for everybody',
    ['{name: x, kind: private-key, export_public: true}'],
    /^5:\d+ secrets\[0\]\.export_public: a private key is not for everybody/,
  ],
  [
    'a public key of nothing',
    ['{name: x, kind: public-key}'],
    /^5:\d+ secrets\[0\]: expected one of private_key and value/,
  ],
  [
    'a public key of itself',
    ['{name: x, kind: public-key, private_key: x}'],
    /^5:\d+ secrets\[0\]\.private_key: x is of kind public-key, expected private-key/,
  ],
  [
    'a certificate of nothing',
    ['{name: x, kind: x509}'],
    /^5:\d+ secrets\[0\]: the key "private_key" is missing/,
  ],
  [
    'a certificate of a key that is not there',
    ['{name: x, kind: x509, private_key: k}'],
    /^5:\d+ secrets\[0\]\.private_key: there is no secret "k"/,
  ],
  [
    'a certificate of another kind of secret',
    ['{name: x, kind: x509, private_key: x}'],
    /^5:\d+ secrets\[0\]\.private_key: x is of kind x509, expected private-key/,
  ],
  [
    'a certificate issued by one that may not',
    [
      '{name: x, kind: x509, private_key: k, issuer: y}',
      '{name: y, kind: x509, private_key: k}',
      '{name: k, kind: private-key}',
    ],
    /^5:\d+ secrets\[0\]\.issuer: y is of kind x509, expected x509-ca/,
  ],
  [
    'a certificate that issues itself by name',
    ['{name: a, kind: x509-ca, private_key: k, issuer: a}', '{name: k, kind: private-key}'],
    circle,
  ],
  [
    'certificates that issue each other',
    [
      '{name: a, kind: x509-ca, private_key: k, issuer: b}',
      '{name: b, kind: x509-ca, private_key: k, issuer: c}',
      '{name: c, kind: x509-ca, private_key: k, issuer: a}',
      '{name: k, kind: private-key}',
    ],
    circle,
    circle,
    circle,
  ],
  ...(['common_name: y', 'valid_for: 1 day', 'endpoint: server', 'san: "dns:y"', 'dns: y'] as const).map(
    (said): [string, string[], RegExp] => [
      `a given certificate with ${said}`,
      [`{name: x, kind: x509, value: ${certificatePem}, ${said}}`],
      /^5:\d+ secrets\[0\]\.\w+: a certificate that is given has its own \w+$/,
    ],
  ),
  [
    'a given certificate with the key of another',
    [
      `{name: x, kind: x509, value: ${certificatePem}, private_key: k}`,
      `{name: k, kind: private-key, value: ${otherKeyPem}}`,
    ],
    /^5:\d+ secrets\[0\]\.private_key: k is not the key of this certificate$/,
  ],
  [
    'a given certificate with a key that is made',
    [`{name: x, kind: x509, value: ${certificatePem}, private_key: k}`, '{name: k, kind: private-key}'],
    /^5:\d+ secrets\[0\]\.private_key: k is made anew/,
  ],
  [
    'an address with a zone',
    ['{name: x, kind: x509, private_key: k, san: "ip:fe80::1%eth0"}', '{name: k, kind: private-key}'],
    /^5:\d+ secrets\[0\]\.san\[0\]: expected "dns:"/,
  ],
  [
    'a host name that is none',
    ['{name: x, kind: x509, private_key: k, dns: "a b"}', '{name: k, kind: private-key}'],
    /^5:\d+ secrets\[0\]\.dns\[0\]: expected a host name/,
  ],
  [
    'a duration of nothing',
    ['{name: x, kind: x509, private_key: k, valid_for: 0 days}', '{name: k, kind: private-key}'],
    /^5:\d+ secrets\[0\]\.valid_for: expected a duration/,
  ],
  [
    'a config-fragment without a value',
    ['{name: x, kind: config-fragment}'],
    /^5:\d+ secrets\[0\]\.value: the key "value" is missing/,
  ],
  ['no kind', ['{name: x}'], /^5:\d+ secrets\[0\]\.kind: the key "kind" is missing/],
  ['no name', ['{kind: ascii}'], /^5:\d+ secrets\[0\]\.name: the key "name" is missing/],
  ...['""', 'a b', 'a/b', '"a\\0"', 'ä', '$$SCONE::x$$', 'x'.repeat(513)].map(
    (name): [string, string[], RegExp] => [
      `the name ${name.slice(0, 20)}`,
      [`{name: ${name}, kind: ascii}`],
      /^5:\d+ secrets\[0\]\.name: a name has 1 to 512/,
    ],
  ),
  ...['ascii', 'binary', 'private-key', 'pgp-key'].map((kind): [string, string[], RegExp] => [
    `two secrets of one name, the second of kind ${kind}`,
    ['{name: x, kind: ascii}', `{name: x, kind: ${kind}}`],
    /^6:10 secrets\[1\]\.name: there are two secrets of the name x$/,
  ]),
  [
    'more than can be kept',
    Array.from({ length: 9 }, (_, index) => `{name: x${index}, kind: ascii, size: ${megabyte}}`),
    /^\d+:\d+ secrets: the sizes of all secrets are more than 8388608 together$/,
  ],
];
describe('a secret that cannot be made is refused with its place', () => {
  for (const [what, secrets, ...problems] of refused)
    test(what, () => {
      const text = secretsText(...secrets);
      const found = problemsOf(() => parseSession(text));
      assert.equal(found.length, problems.length, found.join('\n'));
      for (const [index, problem] of problems.entries()) assert.match(found[index] ?? '', problem);
      onlyInvalidText(text, () => parseSession(text));
    });
});

const given: [what: string, secret: string, bytes: Buffer][] = [
  ['ascii of nothing', 'kind: ascii, value: ""', Buffer.of()],
  ['ascii of binary zeros', 'kind: ascii, value: "\\0\\0"', Buffer.alloc(2)],
  [
    'ascii that looks like a variable',
    'kind: ascii, value: $$SCONE::x:hex$$',
    Buffer.from('$$SCONE::x:hex$$'),
  ],
  ['ascii that looks like the beginning of one', 'kind: ascii, value: "$$SCONE::"', Buffer.from('$$SCONE::')],
  ['ascii of dollar signs', 'kind: ascii, value: $$', Buffer.from('$$')],
  ['ascii that is a number', 'kind: ascii, value: 0x10', Buffer.from('0x10')],
  ['ascii of a megabyte', `kind: ascii, value: "${'x'.repeat(megabyte)}"`, Buffer.alloc(megabyte, 'x')],
  ['ascii of no ASCII', 'kind: ascii, value: "é😀"', Buffer.from('é😀')],
  ['binary of nothing', 'kind: binary, value: ""', Buffer.of()],
  ['binary of zeros', 'kind: binary, value: 00000000', Buffer.alloc(4)],
  ['binary of digits alone', 'kind: binary, value: 1234567890123456', Buffer.from('1234567890123456', 'hex')],
  ['binary of a megabyte', `kind: binary, value: "${'aB'.repeat(megabyte)}"`, Buffer.alloc(megabyte, 0xab)],
  [
    'binary of the largest size',
    `kind: binary, size: ${megabyte}, value: "${'00'.repeat(megabyte)}"`,
    Buffer.alloc(megabyte),
  ],
  ['a private key', `kind: private-key, key_type: P-256, value: ${keyPem}`, key],
  ['a public key', `kind: public-key, value: ${pem('PUBLIC KEY', publicKeyOf(key))}`, publicKeyOf(key)],
  ['a certificate', `kind: x509, value: ${certificatePem}`, certificate],
  ['an authority', `kind: x509-ca, value: ${certificatePem}`, certificate],
  ['a fragment of nothing', 'kind: config-fragment, value: ~', Buffer.from('null')],
  [
    'a fragment that looks like a variable',
    'kind: config-fragment, value: [$$SCONE::x$$]',
    Buffer.from('["$$SCONE::x$$"]'),
  ],
];
describe('a secret that is given is what was written, in every format', () => {
  for (const [what, secret, bytes] of given)
    test(what, async () => {
      const [definition = assert.fail()] = parseSession(secretsText(`{name: x, ${secret}}`)).session.secrets;
      const { kind = assert.fail() } = definition;
      const made =
        (await makeSecret(definition as Definition & { name: string }, Date.now())) ?? assert.fail();
      assert.ok(made.reveal().equals(bytes));
      for (const format of formatsOf(kind).filter((name) => !/privatekey|key|pkcs12/.test(name))) {
        const form = await formatSecret({ kind, secret: made, chain: [] }, format);
        if (!formatOf(kind, format)?.raw) assert.ok(form.toString('utf8').isWellFormed());
        if (format === ':hex') assert.equal(form.toString(), bytes.toString('hex'));
        if (format === '' && !/key|x509/.test(kind)) assert.ok(form.equals(bytes));
      }
    });
});

test('a secret is made of the size that is asked for, the smallest and the largest', async () => {
  for (const kind of ['ascii', 'binary'])
    for (const bytes of [1, megabyte]) {
      const [definition] = parseSession(secretsText(`{name: x, kind: ${kind}, size: "${bytes}"}`)).session
        .secrets;
      const made =
        (await makeSecret(definition as Definition & { name: string }, Date.now())) ?? assert.fail();
      assert.equal(made.reveal().length, bytes);
      if (kind === 'ascii') assert.match(made.reveal().toString('latin1'), /^[!-~]+$/);
    }
});

test('raw bytes are refused where JSON is to hold them', () => {
  const text = (format: string) =>
    sessionText(
      'images:',
      `- {name: i, injection_files: [{path: /x, content: '"$$SCONE::x${format}|escape(json)$$"'}]}`,
      'secrets: [{name: x, kind: binary}]',
    );
  assert.match(
    problemsOf(() => parseSession(text(''))).join(),
    /^5:\d+ images\[0\]\.injection_files\[0\]\.content: raw bytes cannot stand in an argument, variable or JSON/,
  );
  assert.ok(parseSession(text(':base64')));
});
