import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, test } from 'node:test';
import { authorize } from '../../src/cas/access.ts';
import { readSharedSecret } from '../../src/cas/explain.ts';
import { readHistory, readSession } from '../../src/cas/sessions.ts';
import { activeSession } from '../../src/cas/versions.ts';
import { formatKeyHash } from '../../src/policy/key-hash.ts';
import { type BareCas, bareCas, keyOf, testLas } from '../support/cas.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { missing } from '../support/stack.ts';

/** What the CAS decides, against people who write sessions to get at what is not theirs. */
let bare: BareCas;
beforeEach(() => {
  bare = bareCas();
});

const hashOf = (who: string) => formatKeyHash(Buffer.from(keyOf(who), 'hex'));
const by = (...people: string[]) => ({
  certificate: people[0] && keyOf(people[0]),
  signers: people.slice(1).map(keyOf),
});
const session = (name: string, rest: string) => `name: ${name}\nversion: "0.3.12"\n${rest}`;
const open = 'security: {attestation: {mode: none}}\n';
const service = (command: string) =>
  `${open}services: [{name: s, command: [envcas, ${JSON.stringify(command)}]}]\n`;
const code = (expected: string) => (error: unknown) => {
  assert.equal((error as { code?: string }).code, expected, String(error));
  return true;
};
const printed = async (name: string) => (await bare.launch(name, 's')).configuration.command[1]?.join('');

test('variables that multiply each other are refused before they fill the memory', async () => {
  const doubling = Array.from(
    { length: 40 },
    (_, index) =>
      `  - {name: f${index}, kind: config-fragment, value: {a: $$SCONE::f${index + 1}$$, b: $$SCONE::f${index + 1}$$}}`,
  );
  const last = '  - {name: f40, kind: config-fragment, value: x}';
  const secrets = `secrets:\n${[...doubling, last].join('\n')}\n`;
  await bare.upload(session('doubling', `security: $$SCONE::f0$$\nservices: [{name: s}]\n${secrets}`));
  await assert.rejects(bare.launch('doubling', 's'), code('EVIDENCE_MISSING'));
  await assert.rejects(bare.launch('doubling', 's', { las: testLas() }), code('ADMISSION_UNKNOWN'));
  await bare.upload(session('ruled', `access_policy: $$SCONE::f0$$\n${secrets}`));
  await assert.rejects(readSession(bare.cas, 'ruled', by('alice')), code('ACCESS_DENIED'));

  const long = 'x'.repeat(100_000);
  const many = Array.from({ length: 1000 }, () => '$$SCONE::a$$').join(', ');
  await bare.upload(
    session(
      'long',
      `security: {attestation: {tolerate: [${many}]}}\nservices: [{name: s, mrenclaves: [${'ab'.repeat(32)}]}]\nsecrets: [{name: a, kind: ascii, value: ${long}}]\n`,
    ),
  );
  await assert.rejects(bare.launch('long', 's', { las: testLas() }), code('ADMISSION_UNKNOWN'));
});

test('in a board, one person counts once, by whatever names', async () => {
  const board = (members: string, more = '') =>
    session('board', `access_policy: {update: [{require-at-least-2: [${members}]}]}\n${more}`);
  const allows = async (text: string, ...people: string[]) => {
    bare = bareCas();
    await bare.upload(text);
    const version = await activeSession(bare.cas, 'board');
    assert.ok(version);
    return authorize(bare.cas, version, 'update', by(...people)).then(
      () => true,
      () => false,
    );
  };
  const variable = (name: string, value: string) => `  - {name: ${name}, kind: ascii, value: ${value}}\n`;
  const twice = `secrets:\n${variable('x', 'CREATOR')}${variable('y', hashOf('alice'))}`;
  assert.equal(await allows(board(`CREATOR, ${hashOf('alice')}, ${hashOf('bob')}`), 'alice'), false);
  assert.equal(await allows(board(`$$SCONE::x$$, $$SCONE::y$$, ${hashOf('bob')}`, twice), 'alice'), false);
  assert.equal(
    await allows(board(`CREATOR, {require-all: [${hashOf('alice')}]}, ${hashOf('bob')}`), 'alice'),
    false,
  );
  // Where all must agree, somebody may be asked by two names.
  assert.equal(await allows(board(`CREATOR, ${hashOf('alice')}`), 'alice'), true);
  assert.equal(await allows(board(`CREATOR, ${hashOf('bob')}`), 'bob'), false);
});

test('a variable that holds ANY opens nothing among others', async () => {
  const secrets = 'secrets: [{name: x, kind: ascii, value: ANY}]\n';
  await bare.upload(session('list', `access_policy: {read: [CREATOR, $$SCONE::x$$]}\n${secrets}`));
  await assert.rejects(readSession(bare.cas, 'list', by('eve')), code('ACCESS_DENIED'));
});

test('a certificate that is exported on comes without its key', async () => {
  await bare.upload(
    session(
      'a',
      'secrets:\n  - {name: k, kind: private-key, export: [{session: b}]}\n  - {name: c, kind: x509, private_key: k, export: [{session: b}]}\n',
    ),
  );
  const show = service('$$SCONE::c:privatekey$$');
  await bare.upload(
    session('b', `${show}secrets: [{name: c, import: {session: a, secret: c}, export: [{session: c}]}]\n`),
    'bob',
  );
  await bare.upload(session('c', `${show}secrets: [{name: c, import: {session: b, secret: c}}]\n`), 'eve');
  assert.match((await printed('b')) ?? '', /PRIVATE KEY/);
  await assert.rejects(bare.launch('c', 's'), code('SECRET_UNAVAILABLE'));
});

test("a shared secret behind another session's fragment is for those who may update that one", async () => {
  await bare.upload(
    session(
      'owner',
      'secrets:\n  - {name: otp, kind: binary}\n  - {name: rules, kind: config-fragment, export: [{session: user}], value: {attestation: {mode: none, one_time_password_shared_secret: $$SCONE::otp:base32nopad$$}}}\n',
    ),
  );
  const importing = 'secrets: [{name: rules, import: {session: owner, secret: rules}}]\n';
  await bare.upload(
    session('user', `security: $$SCONE::rules$$\nservices: [{name: s}]\n${importing}`),
    'bob',
  );
  const named = { session: 'user', service: 's' };
  await assert.rejects(readSharedSecret(bare.cas, named, by('bob')), code('ACCESS_DENIED'));
  await bare.upload(
    session(
      'user2',
      `access_policy: {read: ANY, update: [${hashOf('alice')}]}\n${open}services: [{name: s, one_time_password_shared_secret: $$SCONE::otp:base32nopad$$}]\nsecrets: [{name: otp, kind: binary}]\n`,
    ),
  );
  const own = { session: 'user2', service: 's' };
  await assert.rejects(readSharedSecret(bare.cas, own, by('bob')), code('ACCESS_DENIED'));
  assert.match((await readSharedSecret(bare.cas, own, by('alice'))).secret, /^[A-Z2-7]{32}$/);
});

test('the software identity in a JWT is believed of no LAS that only the importer trusts', async () => {
  const [operator, own] = [testLas(), testLas()];
  bare = bareCas([operator.platform]);
  const measurement = 'cd'.repeat(32);
  await bare.upload(
    session(
      'issuer',
      'secrets:\n  - {name: k, kind: private-key, key_type: P-384}\n  - {name: t, kind: jwt, signer: k, alg: ES384, validity: {for: 1h}, payload: {sub: $$SCONE::self::software_identity$$}, export: [{session: user}]}\n',
    ),
  );
  await bare.upload(
    session(
      'user',
      `security: {attestation: {tolerate: [debug-mode], trusted_scone_qe_pubkeys: [${own.platform}]}}\nservices: [{name: s, mrenclaves: [${measurement}], command: [envcas, $$SCONE::t$$]}]\nsecrets: [{name: t, import: {session: issuer, secret: t}}]\n`,
    ),
    'bob',
  );
  await assert.rejects(bare.launch('user', 's', { las: own, measurement }), code('SECRET_UNAVAILABLE'));
  const { configuration } = await bare.launch('user', 's', { las: operator, measurement });
  const [, payload = ''] = String(configuration.command[1]).split('.');
  assert.equal(JSON.parse(Buffer.from(payload, 'base64url').toString()).sub, measurement);
});

test('templates on the host get no secret that decides over launches, unless the image names it', async () => {
  const image = (more: string) => `images: [{name: i, injection_files: [/template]${more}}]\n`;
  const secrets =
    'secrets:\n  - {name: otp.key, kind: binary}\n  - {name: token, kind: ascii}\n  - {name: other, kind: ascii}\n  - {name: rules, kind: config-fragment, value: {attestation: {mode: none}}}\n';
  const services =
    'services:\n  - {name: s, image_name: i}\n  - {name: t, image_name: i, one_time_password_shared_secret: $$SCONE::otp.key:base32nopad$$}\n';
  const names = async (name: string) => {
    const { configuration } = await bare.launch(name, 's');
    return [...new Set(configuration.secrets.map(({ reference }) => reference.replace(/:.*|\.hex$/, '')))];
  };
  await bare.upload(session('given', `security: $$SCONE::rules$$\n${services}${image('')}${secrets}`));
  assert.deepEqual(await names('given'), ['token', 'other']);
  await bare.upload(session('named', `${open}${services}${image(', provide_secrets: [otp.key]')}${secrets}`));
  assert.deepEqual(await names('named'), ['otp.key']);
});

test('what is to be kept out of the output comes as it stands in the configuration, once, and only where that is asked for', async () => {
  const image = (redact: boolean, file: string) =>
    `images:\n  - name: i\n    injection_files:\n      - {path: /etc/envcas/config.yaml, content: "{program: /bin/true, supervise: {redact: ${redact}}, injection_files: [{from: /f, to: /g}]}"}\n      - ${file}\n      - {path: /unwritten, content: $$SCONE::elsewhere$$}\n`;
  const services =
    'services: [{name: s, image_name: i, command: [envcas, "x$$SCONE::word$$y$$SCONE::word$$"], environment: {A: $$SCONE::bytes:hex$$, B: plain}}]\n';
  const secrets =
    'secrets:\n  - {name: word, kind: ascii, value: word}\n  - {name: quoted, kind: ascii, value: "a\\nb"}\n  - {name: bytes, kind: binary, value: 00ff}\n  - {name: empty, kind: ascii, value: ""}\n  - {name: elsewhere, kind: ascii, value: elsewhere}\n';
  const redacted = async (name: string, redact: boolean, file: string) => {
    await bare.upload(session(name, `${open}${services}${image(redact, file)}${secrets}`));
    const { configuration } = await bare.launch(name, 's');
    return configuration.redact?.map((form) => Buffer.from(form, 'base64').toString('latin1')).sort();
  };
  const inFile = '{path: /f, content: "$$SCONE::quoted|escape(json)$$ $$SCONE::empty$$ $$SCONE::bytes$$"}';
  assert.deepEqual(await redacted('in', true, inFile), ['\0\xff', '00ff', 'a\\nb', 'word']);
  assert.equal(await redacted('not', false, inFile), undefined);
  const onHost = await redacted('host', true, '/f');
  assert.deepEqual(
    ['a\nb', 'word', 'AP8=', '00ff', 'elsewhere', ''].map((form) => onHost?.includes(form)),
    [true, true, true, true, true, false],
  );
  assert.equal(new Set(onHost).size, onHost?.length);
});

test('singleton_enclaves means nothing without Evidence, also where a variable says so', async () => {
  const secrets = 'secrets: [{name: m, kind: ascii, value: none}]\n';
  await bare.upload(
    session(
      'single',
      `security: {singleton_enclaves: true, attestation: {mode: $$SCONE::m$$}}\nservices: [{name: s, mrenclaves: [${'ab'.repeat(32)}]}]\n${secrets}`,
    ),
  );
  await assert.rejects(bare.launch('single', 's', { las: testLas() }), code('ADMISSION_UNKNOWN'));
});

test('properties that a policy requires must be in the Evidence, also where a variable names them', async () => {
  const las = testLas();
  const required = (name: string, mode: string) =>
    session(
      name,
      `security: {attestation: {mode: ${mode}, tolerate: [debug-mode], trusted_scone_qe_pubkeys: [${las.platform}], require: [$$SCONE::p$$, secure-execution]}}\nservices: [{name: s, mrenclaves: [${'ab'.repeat(32)}]}]\nsecrets: [{name: p, kind: ascii, value: root-owned-code}, {name: m, kind: ascii, value: none}]\n`,
    );
  await bare.upload(required('required', 'hardware'));
  await assert.rejects(bare.launch('required', 's', { las }), code('PROPERTY_MISSING'));
  await assert.rejects(
    bare.launch('required', 's', { las, properties: ['secure-execution'] }),
    code('PROPERTY_MISSING'),
  );
  await bare.launch('required', 's', { las, properties: ['root-owned-code', 'secure-execution'] });
  await bare.upload(required('unattested', '$$SCONE::m$$'));
  await assert.rejects(bare.launch('unattested', 's', { las }), code('ADMISSION_UNKNOWN'));
  await assert.rejects(
    bare.upload(required('contradiction', 'none')),
    /require: properties are known by Evidence/,
  );
});

test('an access token that turns out to be empty is none', async () => {
  await bare.upload(
    session(
      'empty',
      `security: {attestation: {mode: none}, service_access_token: $$SCONE::t$$}\nservices: [{name: s}]\nsecrets: [{name: t, kind: ascii, value: ""}]\n`,
    ),
  );
  await assert.rejects(bare.launch('empty', 's'), code('ADMISSION_UNKNOWN'));
});

test('a certificate that a wrong clock made for the future is not given out', async () => {
  await bare.upload(
    session(
      'clock',
      `${service('$$SCONE::c$$')}secrets:\n  - {name: k, kind: private-key}\n  - {name: c, kind: x509, private_key: k, valid_for: 90 days}\n`,
    ),
  );
  const right = bare.now;
  bare.now = Date.UTC(2029, 0, 1);
  const ahead = new X509Certificate((await printed('clock')) ?? '');
  bare.now = right;
  const mended = new X509Certificate((await printed('clock')) ?? '');
  assert.ok(ahead.validFromDate.getTime() > right);
  assert.ok(mended.validFromDate.getTime() < right);
});

/** A session that shows a token, made of secrets of the session `parts`, and what else it says. */
const withToken = (validity = '3h', payload = '{sub: $$SCONE::x$$}', rest = '') =>
  `${service('$$SCONE::t$$')}${rest}secrets:
  - {name: k, import: {session: parts, secret: k}}
  - {name: x, import: {session: parts, secret: x}}
  - {name: t, kind: jwt, signer: k, alg: ES384, validity: {for: ${validity}}, payload: ${payload}}
`;
const parts = (subject: string, migrate = true) => `secrets:
  - {name: k, kind: private-key, key_type: P-384, migrate: ${migrate}, export: [{session: tokens}]}
  - {name: x, kind: ascii, value: "${subject}", export: [{session: tokens}]}
`;
/** Uploads versions of sessions, each after the one before. */
function uploads() {
  const last = new Map<string, string>();
  return async (name: string, rest: string) => {
    const before = last.get(name);
    last.set(name, await bare.upload(session(name, `${before ? `predecessor: ${before}\n` : ''}${rest}`)));
  };
}
const claims = (token = '') => JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());

test('a token stays the same until a third of its life is left, or it would be another', async () => {
  const upload = uploads();
  await upload('parts', parts('one'));
  await upload('tokens', withToken());
  const seen = [await printed('tokens')];
  const isKept = async (what: string) => assert.equal(await printed('tokens'), seen.at(-1), what);
  const isAnother = async (what: string) => {
    const token = await printed('tokens');
    assert.ok(token && !seen.includes(token), what);
    seen.push(token);
    await isKept(`${what}, once`);
    return claims(token);
  };
  const MINUTE = 60_000;
  bare.now += 119 * MINUTE;
  await isKept('before its time');
  await upload('parts', `${parts('one')}  - {name: more, kind: ascii}\n`);
  await upload('tokens', withToken('3h', undefined, 'access_policy: {read: ANY}\n'));
  await isKept('over updates that have nothing to do with it');
  await upload('tokens', withToken('180 minutes'));
  await isKept('in other words');
  bare.now += MINUTE;
  assert.equal((await isAnother('a third is left')).nbf, bare.now / 1000);
  bare.now -= MINUTE;
  assert.equal((await isAnother('one that is not valid yet')).nbf, bare.now / 1000);
  await upload('parts', parts('two'));
  assert.equal((await isAnother('a secret in it')).sub, 'two');
  await upload('parts', parts('two', false));
  await isAnother('the key of its signer');
  await upload('tokens', withToken('4h'));
  const { nbf, exp } = await isAnother('how long it is valid');
  assert.equal(exp - nbf, 4 * 3600);
  await upload('tokens', withToken('4h', '{sub: $$SCONE::x$$, aud: b}'));
  assert.equal((await isAnother('another claim')).aud, 'b');
});

test('answers at once give the same token; where a secret in it changes meanwhile, all say what it is then', async () => {
  const upload = uploads();
  await upload('parts', parts('one'));
  await upload('tokens', withToken());
  const some = Array.from({ length: 8 }, () => printed('tokens'));
  assert.equal(new Set(await Promise.all(some)).size, 1);

  // All have looked for it before any has kept it, and half of them know an older secret.
  await upload('parts', parts('two'));
  const { activeVersion, issued } = bare.cas.store;
  const old = await bare.cas.store.versionByHash(
    'parts',
    (await activeVersion('parts'))?.hash ?? Buffer.alloc(0),
  );
  await upload('parts', parts('three'));
  const all = Promise.withResolvers<void>();
  let looking = 0;
  bare.cas.store.issued = async (...of) => {
    const found = await issued(...of);
    if (++looking === 8) all.resolve();
    await all.promise;
    return found;
  };
  let reading = 0;
  bare.cas.store.activeVersion = async (name) =>
    name === 'parts' && ++reading <= 8 && reading % 2 === 0 ? old : activeVersion(name);
  const tokens = await Promise.all(Array.from({ length: 8 }, () => printed('tokens')));
  assert.deepEqual(new Set(tokens.map((token) => claims(token).sub)), new Set(['three']));
  Object.assign(bare.cas.store, { activeVersion, issued });
  const next = await printed('tokens');
  assert.equal(claims(next).sub, 'three');
  assert.equal(await printed('tokens'), next);
});

test('a token that names its launcher is for that one, and is not kept', async () => {
  const las = testLas();
  bare = bareCas([las.platform]);
  const measurements = ['ab'.repeat(32), 'cd'.repeat(32)];
  await bare.upload(
    session(
      'own',
      `security: {attestation: {tolerate: [debug-mode]}}
services: [{name: s, mrenclaves: [${measurements}], command: [envcas, $$SCONE::t$$]}]
secrets:
  - {name: k, kind: private-key, key_type: P-384}
  - {name: t, kind: jwt, signer: k, alg: ES384, validity: {for: 1h}, payload: {sw: $$SCONE::self::software_identity$$}}
`,
    ),
  );
  for (const measurement of measurements) {
    const { configuration } = await bare.launch('own', 's', { las, measurement });
    assert.equal(claims(configuration.command[1]?.join('')).sw, measurement);
  }
  assert.equal(await bare.cas.store.issued('own', 0, 't'), undefined);
});

test('a certificate is made anew before it runs out, for the same key, and openssl accepts it then', {
  skip: missing('openssl'),
}, async () => {
  const folder = temporaryFolder();
  await bare.upload(
    session(
      'renewed',
      `${service('$$SCONE::c$$#$$SCONE::ca$$')}secrets:\n  - {name: k, kind: private-key}\n  - {name: ca, kind: x509-ca, private_key: k, valid_for: 1 year}\n  - {name: own, kind: private-key}\n  - {name: c, kind: x509, private_key: own, issuer: ca, valid_for: 30 days, san: "dns:a.example"}\n`,
    ),
  );
  const seen: string[] = [];
  const DAY = 24 * 3600 * 1000;
  const start = bare.now;
  for (let day = 0; day < 800; day += 7) {
    bare.now = start + day * DAY;
    const [certificate = '', authority = ''] = ((await printed('renewed')) ?? '').split('#');
    const { validToDate } = new X509Certificate(certificate);
    assert.ok(validToDate.getTime() - bare.now > 7 * DAY, `day ${day}`);
    if (seen.at(-1) === certificate) continue;
    seen.push(certificate);
    const [leaf, root] = [join(folder, 'leaf.pem'), join(folder, 'root.pem')];
    writeFileSync(leaf, certificate);
    writeFileSync(root, authority);
    const at = ['-attime', String(Math.floor(bare.now / 1000))];
    execFileSync('openssl', ['verify', ...at, '-x509_strict', '-CAfile', root, leaf], { stdio: 'ignore' });
  }
  assert.ok(seen.length > 30, `${seen.length}`);
  const keys = seen.map((pem) => new X509Certificate(pem).publicKey.export({ type: 'spki', format: 'pem' }));
  assert.equal(new Set(keys).size, 1);
});

test('what an older version of the program took is still there for its owner, and tells strangers nothing', async () => {
  const text = session(
    'old',
    'images: [{name: i, volumes: [{name: gone, path: /x}]}]\naccess_policy: {read: CREATOR}\n',
  );
  const form = {
    form: 2,
    hash: 'ab'.repeat(32),
    text,
    creator: keyOf('alice'),
    session: {
      name: 'old',
      access_policy: { read: ['CREATOR'], update: ['CREATOR'] },
      secrets: [],
      services: [],
      images: [],
      volumes: [],
    },
    secrets: [],
  };
  const hash = bare.cas.keyring.pseudonym(Buffer.from(form.hash));
  const place = `version/old/1/${hash.toString('hex')}`;
  const sealed = bare.cas.keyring.seal(Buffer.from(JSON.stringify(form)), place);
  await bare.cas.store.addVersion({ session: 'old', number: 1, hash, sealed, upload: null });
  assert.equal((await readSession(bare.cas, 'old', by('alice'))).session, text);
  assert.deepEqual(await readHistory(bare.cas, 'old', by('alice'), 10), {
    versions: [{ number: 1, hash: form.hash, created: null, by: [] }],
    more: false,
  });
  await assert.rejects(readSession(bare.cas, 'old', by('eve')), code('ACCESS_DENIED'));
  await bare.upload(session('old', `predecessor: ${form.hash}\n`));
});

test("where an older policy's configuration of the launcher is not understood, the host's is not taken instead", async () => {
  const file = { path: '/etc/envcas/config.yaml', content: 'program: relative' };
  const form = {
    form: 3,
    hash: 'ab'.repeat(32),
    text: '',
    creator: null,
    session: {
      name: 'old',
      access_policy: {},
      security: {
        attestation: { mode: 'none', tolerate: [], ignore_advisories: [], trusted_scone_qe_pubkeys: [] },
      },
      secrets: [],
      services: [
        {
          name: 's',
          image_name: 'i',
          command: [],
          environment: {},
          attestation: [],
          mrenclaves: [],
          platforms: [],
        },
      ],
      images: [{ name: 'i', injection_files: [file], volumes: [] }],
      volumes: [],
    },
    secrets: [],
  };
  const hash = bare.cas.keyring.pseudonym(Buffer.from(form.hash));
  const sealed = bare.cas.keyring.seal(
    Buffer.from(JSON.stringify(form)),
    `version/old/1/${hash.toString('hex')}`,
  );
  await bare.cas.store.addVersion({ session: 'old', number: 1, hash, sealed, upload: null });
  await assert.rejects(bare.launch('old', 's'), code('POLICY_UNUSABLE'));
});

test('without a salt, a later version of a session that had one is warned of', async () => {
  const { uploadSession } = await import('../../src/cas/upload.ts');
  const first = await bare.upload(session('salted', `salt: ${'ab'.repeat(16)}\n`));
  const { warnings } = await uploadSession(
    bare.cas,
    session('salted', `predecessor: ${first}\n`),
    keyOf('alice'),
  );
  assert.match(warnings.map(({ message }) => message).join(), /the hash is public/);
});
