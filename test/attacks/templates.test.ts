import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decidingSecrets } from '../../src/cas/deciding.ts';
import { explainAdmission } from '../../src/cas/explain.ts';
import { createResolver } from '../../src/cas/secrets.ts';
import { activeSession } from '../../src/cas/versions.ts';
import { formatKeyHash } from '../../src/policy/key-hash.ts';
import { bareCas, keyOf } from '../support/cas.ts';

/** A template on the host is chosen by whoever is there: it must not bring him what keeps him out of other services. */
const bare = bareCas();

const image = 'images: [{name: i, injection_files: [/template]}]\n';
const open = 'security: {attestation: {mode: none}}\n';
const session = (name: string, rest: string) => `name: ${name}\nversion: "0.3.12"\n${open}${rest}`;
/** Names of the secrets that a template on the host may use. */
const offered = async (name: string) => {
  const { configuration } = await bare.launch(name, 'unguarded');
  return [...new Set(configuration.secrets.map(({ reference }) => reference.replace(/[:.].*$/, '')))];
};
const guarded = (more: string) =>
  `services:\n  - {name: unguarded, image_name: i}\n  - {name: guarded, image_name: i, ${more}}\n`;
const otp = 'one_time_password_shared_secret: $$SCONE::otp:base32nopad$$';

test('a bad value elsewhere in the policy does not bring a template the secret of one-time passwords', async () => {
  await bare.upload(
    session('vault', 'secrets: [{name: otp, kind: binary, export: [{session: shop}, {session: again}]}]\n'),
  );
  await bare.upload(
    session('elsewhere', 'secrets: [{name: plat, kind: ascii, value: oops, export: [{session: shop}]}]\n'),
    'mallory',
  );
  const secrets =
    'secrets:\n  - {name: otp, import: {session: vault, secret: otp}}\n' +
    '  - {name: plat, import: {session: elsewhere, secret: plat}}\n  - {name: other, kind: ascii}\n';
  const services = guarded(`${otp}, platforms: [$$SCONE::plat$$]`);
  await bare.upload(session('shop', `${services}${image}${secrets}`));
  assert.deepEqual(await offered('shop'), ['other']);
});

test('nor does another name for it, or a secret that shows it', async () => {
  await bare.upload(
    session(
      'again',
      `${guarded(otp)}${image}secrets:
  - {name: otp, import: {session: vault, secret: otp}}
  - {name: twin, import: {session: vault, secret: otp}}
  - {name: key, kind: private-key, key_type: P-384}
  - {name: token, kind: jwt, signer: key, alg: ES384, validity: {for: 1h}, payload: {a: "$$SCONE::twin:hex$$"}}
  - {name: other, kind: ascii}
`,
    ),
  );
  assert.deepEqual(await offered('again'), ['key', 'other']);
});

test('nor a secret of another session that shows it', async () => {
  await bare.upload(
    session(
      'issuer',
      `secrets:
  - {name: tok, kind: ascii, export: [{session: taker}]}
  - {name: key, kind: private-key, key_type: P-384}
  - {name: j, kind: jwt, signer: key, alg: ES384, validity: {for: 1h}, payload: {a: $$SCONE::tok$$}, export: [{session: taker}]}
`,
    ),
  );
  await bare.upload(
    session(
      'taker',
      `${guarded('one_time_password_shared_secret: $$SCONE::tok$$')}${image}secrets:
  - {name: tok, import: {session: issuer, secret: tok}}
  - {name: j, import: {session: issuer, secret: j}}
  - {name: other, kind: ascii}
`,
    ),
  );
  assert.deepEqual(await offered('taker'), ['other']);
});

test('nor is it found out at the cost of all others', async () => {
  const chain = Array.from(
    { length: 1990 },
    (_, at) =>
      `  - {name: t${at}, kind: jwt, signer: key, alg: ES384, validity: {for: 1h}, payload: {a: $$SCONE::${at === 1989 ? 'otp:hex' : `t${at + 1}`}$$}}\n`,
  );
  await bare.upload(
    session(
      'chain',
      `${guarded(otp)}${image}secrets:
  - {name: otp, kind: binary}
  - {name: key, kind: private-key, key_type: P-384}
${chain.join('')}`,
    ),
  );
  const version = await activeSession(bare.cas, 'chain');
  assert.ok(version);
  // One after the other: rounds over all of them would take half a minute.
  assert.equal((await decidingSecrets(bare.cas, version, createResolver(bare.cas))).size, 1991);
});

test('nor what fragments name, here and in other sessions, though a service cannot be launched by them', async () => {
  await bare.upload(
    session(
      'rules',
      `secrets:
  - {name: deep, kind: ascii, value: x, export: [{session: fragments}]}
  - name: rule
    kind: config-fragment
    value: {one_time_password_shared_secret: $$SCONE::deep$$, mrenclave: $$SCONE::missing$$}
    export: [{session: fragments}]
  - {name: missing, import: {session: nowhere, secret: x}}
`,
    ),
  );
  await bare.upload(
    session(
      'fragments',
      `${guarded('attestation: [$$SCONE::rule$$, $$SCONE::own$$]')}${image}secrets:
  - {name: rule, import: {session: rules, secret: rule}}
  - {name: renamed, import: {session: rules, secret: deep}}
  - {name: own, kind: config-fragment, value: {mrenclave: $$SCONE::measurement$$}}
  - {name: measurement, kind: ascii, value: nonsense}
  - {name: other, kind: ascii}
`,
    ),
  );
  assert.deepEqual(await offered('fragments'), ['other']);
});

test('whoever imports a fragment is not told what it refers to by what explains his policy', async () => {
  const bare = bareCas();
  await bare.upload(
    `name: lib
version: "0.3.12"
services: []
secrets:
  - {name: tok, kind: binary, size: 32}
  - {name: F, kind: config-fragment, value: "$$SCONE::tok:hex$$", export: [{session: thief}]}
`,
    'victim',
  );
  await bare.upload(
    `name: thief
version: "0.3.12"
security: {attestation: {tolerate: [debug-mode]}}
services: [{name: x, mrenclaves: ["$$SCONE::F$$"], command: envcas}]
secrets: [{name: F, kind: config-fragment, import: {session: lib, secret: F}}]
`,
    'thief',
  );
  const as = (who: string) => ({ certificate: keyOf(who), signers: [] });
  await assert.rejects(explainAdmission(bare.cas, { session: 'thief', service: 'x' }, as('thief')), {
    code: 'ACCESS_DENIED',
  });
});

test('nor what decides in a session that it is exported to', async () => {
  const importing = 'secrets: [{name: otp, import: {session: home, secret: code}}]\n';
  await bare.upload(session('bank', `services: [{name: s, ${otp}}]\n${importing}`), 'bob');
  await bare.upload(
    session(
      'home',
      `services: [{name: unguarded, image_name: i}]\n${image}secrets:
  - {name: code, kind: binary, export: [{session: bank}, {session: nobody}]}
  - {name: other, kind: ascii, export: [{session: bank}]}
`,
    ),
  );
  assert.deepEqual(await offered('home'), ['other']);
});

test('nor what decides where it goes by way of others, to a whole namespace, or to more sessions than are looked at', async () => {
  const onTheWay =
    'secrets: [{name: otp, import: {session: start-0, secret: code}, export: [{session: way-0/end}]}]\n';
  const many = Array.from({ length: 33 }, (_, at) => `{session: nobody-${at}}`).join();
  for (const [at, to] of ['{session: way-0}', '{namespace: way-1}', '{namespace: /}', many].entries()) {
    await bare.upload(session(`way-${at}`, at === 0 ? onTheWay : 'services: []\n'), 'carol');
    const importing = `{name: otp, import: ${at === 0 ? '{session: way-0, secret: otp}' : `{session: start-${at}, secret: code}`}}`;
    await bare.upload(
      session(`way-${at}/end`, `services: [{name: s, ${otp}}]\nsecrets: [${importing}]\n`),
      'carol',
    );
    const own = `  - {name: code, kind: binary, export: [${to}]}\n  - {name: other, kind: ascii, export: [{session: nobody}]}\n`;
    await bare.upload(
      session(`start-${at}`, `services: [{name: unguarded, image_name: i}]\n${image}secrets:\n${own}`),
    );
    assert.deepEqual(await offered(`start-${at}`), ['other'], to);
  }
});

test('nor what it is given as others are, in whose sessions it decides', async () => {
  await bare.upload(
    session(
      'strongroom',
      'secrets: [{name: otp, kind: binary, export: [{session: mine}, {session: theirs}]}]\n',
    ),
  );
  const importing = '{name: otp, import: {session: strongroom, secret: otp}}';
  await bare.upload(session('theirs', `services: [{name: s, ${otp}}]\nsecrets: [${importing}]\n`), 'bob');
  await bare.upload(
    session(
      'mine',
      `${image}services: [{name: unguarded, image_name: i}]\nsecrets: [${importing}, {name: other, kind: ascii}]\n`,
    ),
    'carol',
  );
  assert.deepEqual(await offered('mine'), ['other']);
});

test('nor the same that comes back by the key of the CAS itself', async () => {
  const own = `cas_url: "127.0.0.1:1", cas_key: ${formatKeyHash(bare.cas.key)}`;
  await bare.upload(
    session(
      'source',
      `secrets: [{name: otp, kind: binary, export: [{session: twins}, {session: twins, ${own}}]}]\n`,
    ),
  );
  const secrets =
    'secrets:\n  - {name: otp, import: {session: source, secret: otp}}\n' +
    `  - {name: twin, kind: binary, import: {session: source, secret: otp, ${own}}}\n  - {name: other, kind: ascii}\n`;
  await bare.upload(session('twins', `${guarded(otp)}${image}${secrets}`));
  assert.deepEqual(await offered('twins'), ['other']);
});
