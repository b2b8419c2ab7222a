import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { missing, type Stack, startStack } from '../support/stack.ts';

/** Secrets that are made from others, or come from another session, as programs get them. */
let stack: Stack;
before(async () => {
  stack = await startStack();
  const formats = ['web', 'web:chain', 'web.chain', 'web.key', 'ca.chain', 'ca:chain'];
  const words = formats.map((it) => `$$SCONE::${it}$$#`);
  stack.create(session('shop', words, authority));
});

/** A session whose service `show` prints its arguments one by one, and then the secrets. */
const session = (name: string, show: string[], secrets: string, more = '') => `
name: ${name}
version: "0.3.10"
${more}
security: {attestation: {mode: none}}
services:
  - {name: show, image_name: i, command: ${JSON.stringify(['envcas', '%s', ...show])}}
images:
  - name: i
    injection_files: [{path: /etc/envcas/config.yaml, content: "program: /usr/bin/printf"}]
secrets:
${secrets}
`;

/** Prints one secret of a session in a format. */
function show(name: string): string {
  const { status, stdout, stderr } = stack.launch(`${name}/show`);
  assert.equal(status, 0, stderr);
  return stdout;
}

function file(name: string, content: string): string {
  const path = join(stack.files, name);
  writeFileSync(path, content);
  return path;
}

const openssl = (...args: string[]) => execFileSync('openssl', args, { encoding: 'utf8' });

const authority = `
  - {name: ca_key, kind: private-key, key_type: P-384}
  - {name: ca, kind: x509-ca, private_key: ca_key, common_name: Test root, export: {namespace: shop}}
  - {name: middle_key, kind: private-key, key_type: Ed25519}
  - {name: middle, kind: x509-ca, private_key: middle_key, issuer: ca, valid_for: 90 days}
  - {name: web_key, kind: private-key, export: [{session: shop/with-key}]}
  - {name: web, kind: x509, private_key: web_key, issuer: middle, endpoint: server, san: ["dns:web.example", "ip:10.1.2.3"], export: [{session: shop/with-key}, {session: shop/without-key}]}
`;

test('certificates of a session verify, and each format is what openssl reads', {
  skip: missing('openssl'),
}, () => {
  const printed = stack.launch('shop/show').stdout.split('#');
  const [web = '', chain = '', legacy = '', key = '', root = '', empty] = printed;
  assert.equal(empty, '');
  const verified = openssl(
    'verify',
    '-x509_strict',
    ...['-purpose', 'sslserver', '-verify_hostname', 'web.example'],
    ...['-CAfile', file('root.pem', root), '-untrusted', file('chain.pem', chain), file('web.pem', web)],
  );
  assert.match(verified, /OK/);
  assert.equal(
    openssl('pkey', '-in', file('web.key', key), '-pubout'),
    openssl('x509', '-in', file('web.pem', web), '-pubkey', '-noout'),
  );
  // Older order: root first, the certificate itself last.
  const blocks = (text: string) => text.match(/-----BEGIN[^#]*?-----END CERTIFICATE-----\n/g) ?? [];
  assert.deepEqual(blocks(legacy), [...blocks(chain).reverse(), web]);
  assert.deepEqual(blocks(chain).at(-1), root);
  assert.equal(show('shop').split('#')[0], web, 'the same certificate at each launch');
});

test('a certificate is imported by those it is exported to, with its key only where that is exported too', () => {
  const importing = (name: string, shown: string) =>
    session(name, [`$$SCONE::${shown}$$`], '  - {name: w, import: {session: .., secret: web}}');
  stack.create(importing('shop/with-key', 'w:privatekey'));
  assert.match(show('shop/with-key'), /^-----BEGIN PRIVATE KEY-----/);
  stack.create(importing('shop/without-key', 'w:privatekey'));
  const refused = stack.launch('shop/without-key/show');
  assert.equal(refused.status, 77);
  assert.match(refused.stderr, /private key is not exported[\s\S]*SECRET_UNAVAILABLE/);
  stack.create(importing('shop/stranger', 'w'));
  const stranger = stack.launch('shop/stranger/show');
  assert.equal(stranger.status, 77);
  assert.match(stranger.stderr, /the session shop exports no web to this one/);
  // Exported to the namespace, so to everything in it, under a name relative to the importer.
  stack.create(
    session(
      'shop/any',
      ['$$SCONE::root$$'],
      '  - {name: root, kind: x509-ca, import: {session: ../../shop, secret: ca}}',
    ),
  );
  assert.equal(new X509Certificate(show('shop/any')).subject, 'CN=Test root');
});

test('a secret goes through several sessions, and never in a circle', () => {
  const link = (name: string, from: string, to: string) =>
    session(
      name,
      ['$$SCONE::s$$'],
      `  - {name: s, import: {session: ${from}, secret: s}, export: {session: ${to}}}`,
    );
  stack.create(
    session(
      'one',
      ['-'],
      '  - {name: s, kind: ascii, value: "$$SCONE::no$$", export: {session: two}}'.replace(
        '"$$SCONE::no$$"',
        'handed',
      ),
    ),
  );
  stack.create(link('two', 'one', 'three'));
  stack.create(link('three', 'two', 'four'));
  assert.equal(show('three'), 'handed');
  stack.create(link('left', 'right', 'right'));
  stack.create(link('right', 'left', 'left'));
  const circle = stack.launch('left/show');
  assert.equal(circle.status, 77);
  assert.match(circle.stderr, /in a circle/);
});

test('imported bytes that are no text are not escaped for JSON', () => {
  stack.create(session('bytes', ['-'], '  - {name: b, kind: binary, value: ff, export: {session: json}}'));
  stack.create(
    session('json', ['$$SCONE::b|escape(json)$$'], '  - {name: b, import: {session: bytes, secret: b}}'),
  );
  const refused = stack.launch('json/show');
  assert.equal(refused.status, 77);
  assert.match(refused.stderr, /b is no text, so JSON cannot hold it[\s\S]*POLICY_UNUSABLE/);
});

test('an import that names a version of the other session is good for that one alone', () => {
  const text = (more = '') =>
    session('pinned', ['-'], '  - {name: s, kind: ascii, export: {session: pinning}}', more);
  const hash = stack.create(text());
  stack.create(
    session(
      'pinning',
      ['$$SCONE::s$$'],
      `  - {name: s, import: {session: pinned, secret: s, session_hash: ${hash}}}`,
    ),
  );
  assert.equal(show('pinning').length, 20);
  stack.create(text(`predecessor: ${hash}`));
  const refused = stack.launch('pinning/show');
  assert.equal(refused.status, 77);
  assert.match(refused.stderr, /of another version than session_hash says/);
});

test('a private key is kept on update where both versions say migrate, and a public key belongs to it', () => {
  const text = (more = '') =>
    session(
      'kept-key',
      ['$$SCONE::kept_public$$#$$SCONE::new_public$$'],
      `  - {name: kept, kind: private-key, migrate: true}
  - {name: new, kind: private-key}
  - {name: kept_public, kind: public-key, private_key: kept}
  - {name: new_public, kind: public-key, private_key: new}`,
      more,
    );
  const hash = stack.create(text());
  const [kept, made] = show('kept-key').split('#');
  assert.match(kept ?? '', /^-----BEGIN PUBLIC KEY-----/);
  stack.create(text(`predecessor: ${hash}`));
  const [keptAfter, madeAfter] = show('kept-key').split('#');
  assert.equal(keptAfter, kept);
  assert.notEqual(madeAfter, made);
});

test('access policy and security come from config-fragments of another session', () => {
  stack.create(`
name: rules
version: "0.3.10"
secrets:
  - {name: nobody, kind: config-fragment, export: {namespace: rules}, value: {read: NONE, update: [CREATOR]}}
  - {name: open, kind: config-fragment, export: {namespace: rules}, value: {attestation: {mode: none}}}
  - {name: strict, kind: config-fragment, export: {namespace: rules}, value: {attestation: {mode: nonsense}}}
`);
  const ruled = (name: string, security: string) =>
    session(
      `rules/${name}`,
      ['started'],
      `  - {name: policy, import: {session: .., secret: nobody}}
  - {name: security, import: {session: .., secret: ${security}}}`,
      'access_policy: $$SCONE::policy$$',
    ).replace('{attestation: {mode: none}}', '$$$$SCONE::security$$$$');
  stack.create(ruled('open', 'open'));
  assert.equal(show('rules/open'), 'started');
  assert.equal(stack.tryScone('session', 'read', 'rules/open').status, 77);
  stack.create(ruled('strict', 'strict'));
  stack.create(ruled('readable', 'strict').replace('$$SCONE::policy$$', '{read: ANY}'));
  const refused = stack.launch('rules/strict/show');
  assert.equal(refused.status, 77);
  // What is wrong is for those who may read the session; it is that of the other session's creator.
  assert.match(refused.stderr, /ADMISSION_UNKNOWN/);
  assert.doesNotMatch(refused.stderr, /expected one of/);
  assert.match(
    stack.tryScone('session', 'explain', 'rules/readable/show').stderr,
    /the policy cannot be applied, security\.attestation\.mode: expected one of/,
  );
});

test('what this version does not do is refused at upload, with its place', () => {
  for (const [text, expected] of [
    [
      'security: {attestation: {mode: maa}}',
      /:4:\d+: error: security\.attestation\.mode: attestation mode maa/,
    ],
    ['security: {attestation: {must_be_sgx_local: true}}', /local attestation/],
    ['secret_config: {store_in: !akv {token: t, vault: v}}', /Azure Key Vault/],
    ['secrets: [{name: k, import_akv: {vault: v}}]', /Azure Key Vault/],
    [
      'secrets: [{name: k, kind: aad-token, tenant_id: t, client_id: c, application_secret: s}]',
      /tokens of Azure Active Directory/,
    ],
  ] as const) {
    const path = file('unsupported.yaml', `name: unsupported\nversion: "0.3.12"\n\n${text}\n`);
    const { status, stderr } = stack.tryScone('session', 'create', path);
    assert.equal(status, 65, stderr);
    assert.match(stderr, /takes no such session/);
    assert.match(stderr.replaceAll('line 4', 'x:4'), expected);
  }
});

test('an OpenPGP key is made, kept over updates, and imported by gpg', { skip: missing('gpg') }, () => {
  const formats = ['privatekey', 'publickey'].flatMap((part) =>
    ['asciiarmored', 'base64'].map((encoding) => `$$SCONE::k:${part}:${encoding}$$#`),
  );
  const text = (more = '') =>
    session('pgp', formats, '  - {name: k, kind: pgp-key, export_public: true}', more);
  const hash = stack.create(text());
  const [armored = '', base64 = '', publicArmored = ''] = show('pgp').split('#');
  const home = join(stack.files, 'gnupg');
  mkdirSync(home, { mode: 0o700 });
  const gpg = (args: string[], input: string | Buffer) =>
    execFileSync('gpg', ['--batch', '--trust-model', 'always', ...args], {
      input,
      env: { PATH: process.env.PATH, GNUPGHOME: home },
      stdio: ['pipe', 'pipe', 'ignore'],
    });
  try {
    for (const key of [publicArmored, armored, Buffer.from(base64, 'base64')]) gpg(['--import'], key);
    const message = gpg(['--encrypt', '--recipient', 'k'], 'for the holder of the key');
    assert.equal(gpg(['--decrypt'], message).toString(), 'for the holder of the key');
    assert.match(gpg(['--sign', '--armor'], 'x').toString(), /BEGIN PGP MESSAGE/);
  } finally {
    spawnSync('gpgconf', ['--kill', 'all'], { env: { PATH: process.env.PATH, GNUPGHOME: home } });
  }
  stack.create(text(`predecessor: ${hash}`));
  assert.equal(show('pgp').split('#')[0], armored);
});

test('a JWT can name the launcher it is for', () => {
  const jwt = (attestation: string, service: string) => `
name: jwt
version: "0.3.12"
security: {attestation: ${attestation}}
services:
  - {name: show, image_name: i, command: [envcas, "$$SCONE::token$$"]${service}}
images:
  - name: i
    injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/echo"}]
secrets:
  - {name: key, kind: private-key, key_type: P-384}
  - {name: subject, kind: ascii, value: somebody}
  - name: token
    kind: jwt
    signer: key
    alg: ES384
    validity: {for: 24h}
    payload: {sub: $$SCONE::subject$$, aud: "text", sw: $$SCONE::self::software_identity$$}
`;
  const payloadOf = (token: string) => JSON.parse(`${Buffer.from(token.split('.')[1] ?? '', 'base64url')}`);
  const admitted = `, attestation: {mrenclave: ${stack.envcasMeasurement}}`;
  const hash = stack.create(jwt('{tolerate: [debug-mode]}', admitted));
  const { iat, nbf, exp, ...claims } = payloadOf(show('jwt'));
  assert.deepEqual(claims, { sub: 'somebody', aud: 'text', sw: stack.envcasMeasurement });
  assert.deepEqual([nbf, exp], [iat, iat + 24 * 3600]);
  assert.ok(Math.abs(iat * 1000 - Date.now()) < 60_000);
  // Nobody vouches for a launcher in mode none, whatever Evidence it brings.
  stack.create(jwt('{mode: none}', '').replace('security', `predecessor: ${hash}\nsecurity`));
  assert.match(stack.launch('jwt/show').stderr, /only an attested launcher has one/);
});

test('a JWT with claims of its own for time, or with more than a variable in one, is refused', () => {
  const jwt = (payload: string, key = 'P-384') =>
    `name: wrong\nversion: "0.3.12"\nsecrets:\n  - {name: k, kind: private-key, key_type: ${key}}\n` +
    `  - {name: t, kind: jwt, signer: k, alg: ES384, validity: {for: 1h}, payload: {${payload}}}\n`;
  for (const [text, expected] of [
    [jwt('exp: "1"'), /:5:\d+: error: secrets\[1\]\.payload\.exp: the CAS sets iat, nbf and exp itself/],
    [jwt('sub: x$$SCONE::k$$'), /secrets\[1\]\.payload\.sub: a claim is a text, or one variable/],
    [jwt('sub: $$SCONE::none$$'), /there is no secret "none"/],
    [jwt('sub: x', 'P-256'), /ES384 takes a key of P-384/],
    [jwt('sub: x').replace('ES384', 'none'), /expected ES384/],
    [jwt('sub: x').replace('signer: k', 'signer: t'), /t is of kind jwt, expected private-key/],
  ] as const) {
    const { status, stderr } = stack.tryScone('session', 'create', file('wrong.yaml', text));
    assert.equal(status, 65, stderr);
    assert.match(stderr, expected);
  }
});

test('a private key is not published, also where it is imported', { skip: missing('curl') }, () => {
  const path = file(
    'published.yaml',
    'name: published\nversion: "0.3.12"\nsecrets:\n  - {name: k, kind: private-key, export_public: true}\n',
  );
  assert.match(stack.tryScone('session', 'create', path).stderr, /a private key is not for everybody/);
  stack.create(session('owner', ['-'], '  - {name: k, kind: private-key, export: [{session: borrower}]}'));
  stack.create(
    session('borrower', ['-'], '  - {name: k, export_public: true, import: {session: owner, secret: k}}'),
  );
  const url = `https://127.0.0.1:${stack.env.SCONE_CAS_API_PORT}/v1/values/session=borrower`;
  const get = (more: string) => JSON.parse(execFileSync('curl', ['-sk', url + more], { encoding: 'utf8' }));
  assert.equal(get(',secret=k').code, 'VALUE_NOT_PUBLIC');
  assert.deepEqual(get(''), { values: {} });
});

test('a service with a volume is refused, and says why', () => {
  stack.create(
    session('volumes', ['x'], '  []', 'volumes: [{name: data}]').replace(
      '  - name: i\n',
      '  - name: i\n    volumes: [{name: data, path: /data}]\n',
    ),
  );
  const { status, stderr } = stack.launch('volumes/show');
  assert.equal(status, 69);
  assert.match(stderr, /mounting volumes and protected file systems is not supported/);
});

test('the root namespace is sealed by the first session', () => {
  const path = file('root.yaml', 'name: /\nversion: "0.3.11"\n');
  const { status, stderr } = stack.tryScone('session', 'create', path);
  assert.equal(status, 73);
  assert.match(stderr, /ROOT_SEALED/);
});

test('what a session publishes is read by everybody, the rest by nobody', { skip: missing('curl') }, () => {
  stack.create(
    session(
      'public',
      ['$$SCONE::ca$$'],
      `  - {name: ca_key, kind: private-key}
  - {name: ca, kind: x509-ca, private_key: ca_key, export_public: true}
  - {name: word, kind: ascii, value: "42", export_public: true}
  - {name: hidden, kind: ascii}`,
    ),
  );
  const get = (path: string) => {
    const url = `https://127.0.0.1:${stack.env.SCONE_CAS_API_PORT}/v1/values/${path}`;
    const out = execFileSync('curl', ['-sk', '-w', '%{http_code}', url], { encoding: 'utf8' });
    return { status: Number(out.slice(-3)), body: JSON.parse(out.slice(0, -3)) };
  };
  assert.deepEqual(get('session=public,secret=word'), {
    status: 200,
    body: { kind: 'string', value: '42', expires: null, renew: null },
  });
  const { body } = get('session=public');
  assert.deepEqual(Object.keys(body.values), ['ca', 'word']);
  assert.equal(body.values.ca.value, show('public'));
  for (const path of [
    'session=public,secret=hidden',
    'session=public,secret=none',
    'session=none,secret=x',
  ]) {
    const refused = get(path);
    assert.equal(refused.status, 404);
    assert.equal(refused.body.msg[1], 'Secret does not exist or is not visible for a public client');
  }
  assert.equal(get('nonsense').status, 400);
});

test('an older version of a session is read by its hash', { skip: missing('curl') }, () => {
  const text = (word: string, more = '') =>
    session('history', ['-'], `  - {name: s, kind: ascii, value: ${word}}`, more);
  const first = stack.create(text('one'));
  stack.create(text('two', `predecessor: ${first}`));
  const cert = file('client.pem', '');
  const { identity } = JSON.parse(readFileSync(join(stack.env.HOME ?? '', '.cas/config.json'), 'utf8'));
  writeFileSync(cert, identity, { mode: 0o600 });
  const read = (query: string) =>
    JSON.parse(
      execFileSync(
        'curl',
        [
          '-sk',
          '--cert',
          cert,
          `https://127.0.0.1:${stack.env.SCONE_CAS_API_PORT}/v1/sessions/history${query}`,
        ],
        { encoding: 'utf8' },
      ),
    );
  assert.equal(read(`?hash=${first}`).session, text('one'));
  assert.match(read('').session, /value: two/);
  assert.match(read(`?hash=${'0'.repeat(64)}`).code, /SESSION_NOT_FOUND/);
});
