import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { inThread } from '../../src/cas/threads.ts';
import { formatKeyHash } from '../../src/policy/key-hash.ts';
import { InvalidText } from '../../src/policy/problem.ts';
import { bareCas, testLas } from '../support/cas.ts';
import { makeIdentity } from '../support/client.ts';

/** What a launcher has the CAS do before it has shown anything: sign, ask other CASes, look at secrets. */
test('whoever shows no Evidence has nothing of a policy filled in, and whoever is not admitted no second factor', async () => {
  const bare = bareCas();
  const asked: string[] = [];
  bare.cas.otherCases = {
    ...bare.cas.otherCases,
    import: async (_version, { secret }, _hops, unavailable) => {
      asked.push(secret);
      throw unavailable('there is no other CAS');
    },
  };
  const from = (secret: string) =>
    `{name: ${secret}, kind: ascii, import: {session: x, secret: ${secret}, cas_key: ${formatKeyHash(Buffer.alloc(32, 5))}, cas_url: cas.example.org}}`;
  const session = (name: string, platforms: string) => `name: ${name}
version: "0.3.12"
security:
  attestation: {tolerate: [debug-mode], one_time_password_shared_secret: $$SCONE::otp$$}
  service_access_token: $$SCONE::token$$
services: [{name: s, attestation: {mrenclave: ${'ab'.repeat(32)}}, platforms: ${platforms}}]
secrets: [${['token', 'otp', 'platform'].map(from).join(', ')}]
`;
  await bare.upload(session('anywhere', '[]'));
  await bare.upload(session('somewhere', '[$$SCONE::platform$$]'));
  for (const name of ['anywhere', 'somewhere'])
    await assert.rejects(bare.launch(name, 's'), { code: 'EVIDENCE_MISSING' });
  assert.deepEqual(asked, []);
  // Anybody makes Evidence that verifies, by a LAS of his own.
  await assert.rejects(bare.launch('anywhere', 's', { las: testLas() }), { code: 'PLATFORM_UNTRUSTED' });
  assert.deepEqual(asked, []);
  await assert.rejects(bare.launch('somewhere', 's', { las: testLas() }), { code: 'ADMISSION_UNKNOWN' });
  assert.deepEqual(asked, ['platform']);
});

test('nor is it found what Evidence is asked for by a value, a token or another CAS; by fragments of this CAS it is', async () => {
  const bare = bareCas();
  const las = testLas();
  bare.cas.operator = { names: [], trustedPlatforms: [las.platform] };
  const touched: string[] = [];
  bare.cas.otherCases = {
    ...bare.cas.otherCases,
    import: async (_version, { secret }, _hops, unavailable) => {
      touched.push(secret);
      throw unavailable('there is no other CAS');
    },
  };
  const { keepIssued } = bare.cas.store;
  bare.cas.store.keepIssued = (issued) => {
    touched.push(issued.name);
    return keepIssued(issued);
  };
  const elsewhere = `import: {session: x, secret: sec, cas_key: ${formatKeyHash(Buffer.alloc(32, 5))}, cas_url: cas.example.org}`;
  const key = '{name: k, kind: private-key, key_type: P-384}';
  const token = `${key}, {name: tok, kind: jwt, signer: k, alg: ES384, validity: {for: 1h}, payload: {a: b}}`;
  const none = 'kind: config-fragment, value: {mode: none}';
  const tolerant = 'tolerate: [debug-mode]';
  const launch = async (name: string, security: string, secrets: string, given?: typeof las) => {
    await bare.upload(
      `name: ${name}\nversion: "0.3.12"\nsecurity: ${security}\nservices: [{name: s, attestation: {mrenclave: ${'ab'.repeat(32)}}}]\nsecrets: [${secrets}]\n`,
    );
    const refused = (error: { code: string }) => error.code;
    const alone = await bare.launch(name, 's').then(() => 'granted', refused);
    return given ? [alone, await bare.launch(name, 's', { las }).then(() => 'granted', refused)] : alone;
  };
  for (const [name, security, secrets] of [
    ['elsewhere', '$$SCONE::sec$$', `{name: sec, kind: config-fragment, ${elsewhere}}`],
    ['mode-elsewhere', '{attestation: {mode: $$SCONE::sec$$}}', `{name: sec, kind: ascii, ${elsewhere}}`],
    ['token', '{attestation: {mode: $$SCONE::tok$$}}', token],
    [
      'within',
      '$$SCONE::f$$',
      `${token}, {name: f, kind: config-fragment, value: {attestation: {mode: $$SCONE::tok$$}}}`,
    ],
  ] as const)
    assert.equal(await launch(name, security, secrets), 'EVIDENCE_MISSING', name);
  assert.deepEqual(touched, []);
  const value = `{attestation: {mode: $$SCONE::m$$, ${tolerant}}}`;
  assert.deepEqual(await launch('value', value, '{name: m, kind: ascii, value: none}', las), [
    'EVIDENCE_MISSING',
    'granted',
  ]);
  await bare.upload(
    `name: parts\nversion: "0.3.12"\nservices: []\nsecrets: [{name: att, ${none}, export: [{session: on}]}]\n`,
  );
  await bare.upload(
    'name: on\nversion: "0.3.12"\nservices: []\nsecrets: [{name: att, import: {session: parts, secret: att}, export: [{session: fragments}]}]\n',
  );
  const imported = '{name: att, import: {session: on, secret: att}}';
  assert.equal(await launch('fragments', '{attestation: $$SCONE::att$$}', imported), 'granted');
});

test('one signer that an alias names thirty thousand times costs nobody a request', async () => {
  const bare = bareCas();
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const pem = JSON.stringify(publicKey.export({ type: 'spki', format: 'pem' }));
  const many = Array<string>(30_000).fill('*k').join(', ');
  const policies = [
    `{read: [{signer: &k ${pem}}, ${Array<string>(30_000).fill('{signer: *k}').join(', ')}], update: NONE}`,
    `{read: [&k ${pem}, ${many}], update: NONE}`,
  ];
  for (const policy of policies) {
    const text = `name: many\nversion: "0.3.12"\naccess_policy: ${policy}\n`;
    const error: unknown = await bare.upload(text).then(
      () => assert.fail('it was taken'),
      (thrown: unknown) => thrown,
    );
    assert.ok(error instanceof InvalidText);
    // What is said of it is short.
    assert.ok(JSON.stringify(error.problems).length < 16_384);
  }
});

test('what is no collateral, however much of it, is read while others are served', async () => {
  const { certificate } = await makeIdentity('x');
  const many = certificate.repeat(500);
  const files = [{ name: 'many', bytes: Buffer.from(many) }];
  const input = { files, others: [], roots: new Set<string>(), at: Date.now() };
  let rounds = 0;
  const count = setInterval(() => rounds++, 0);
  const judged = await inThread('short', 'judgeCollateral', input).finally(() => clearInterval(count));
  assert.ok(rounds > 1);
  assert.deepEqual(judged, []);
});
