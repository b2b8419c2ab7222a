import assert from 'node:assert/strict';
import crypto, { createHash, createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { syncBuiltinESMExports } from 'node:module';
import { type AddressInfo, createServer } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import { createServer as createTlsServer } from 'node:tls';
import { authorize } from '../../src/cas/access.ts';
import { decidingSecrets } from '../../src/cas/deciding.ts';
import { hold, roomFor } from '../../src/cas/limits/held.ts';
import { jsonInPieces } from '../../src/cas/limits/json.ts';
import { createPace } from '../../src/cas/limits/pace.ts';
import { countStored, MEBIBYTE } from '../../src/cas/limits/stored.ts';
import { createTurns } from '../../src/cas/limits/turns.ts';
import { correlated } from '../../src/cas/observe/correlation.ts';
import { createOtherCases } from '../../src/cas/other-cas.ts';
import { planLaunch } from '../../src/cas/plan.ts';
import { createResolver } from '../../src/cas/secrets.ts';
import { readHash, readHistory } from '../../src/cas/sessions.ts';
import { inThread } from '../../src/cas/threads.ts';
import { uploadSession } from '../../src/cas/upload.ts';
import { publicValues } from '../../src/cas/values.ts';
import { activeSession, requireSession, type SessionVersion } from '../../src/cas/versions.ts';
import { failure } from '../../src/errors.ts';
import { formatKeyHash, publicKeyDigest } from '../../src/policy/key-hash.ts';
import { parseSession } from '../../src/policy/session.ts';
import { bareCas, keyOf } from '../support/cas.ts';
import { makeIdentity } from '../support/client.ts';
import { until } from '../support/until.ts';

/** Does something on behalf of somebody. */
const as = <Result>(source: string, work: () => Result, identity = 'a key', gone?: AbortSignal) =>
  correlated('test', { source, identity, ...(gone && { gone }) }, work);

/** A session that takes a second to be read, or some. */
const SLOW = `name: slow
version: "0.3.12"
services:
${Array.from({ length: 4 }, (_, at) => `  - {name: s${at}, command: a, mrenclaves: [${`${'ab'.repeat(32)}, `.repeat(15_000)}]}\n`).join('')}`;

/** How often the event loop came round while something was done. */
async function roundsDuring(work: Promise<unknown>): Promise<number> {
  let rounds = 0;
  const count = () => {
    rounds++;
    next = setImmediate(count);
  };
  let next = setImmediate(count);
  await work.finally(() => clearImmediate(next));
  return rounds;
}

test('keys that take long, and long texts, are made and read while others are served', async () => {
  const definition = { name: 'k', kind: 'private-key', key_type: 'RSA-3072' } as const;
  assert.ok((await roundsDuring(inThread('long', 'makeSecret', { definition, now: 0 }))) > 10);
  const secrets = Array.from({ length: 2000 }, (_, at) => `  - {name: s${at}, kind: pgp-key}\n`).join('');
  const text = `name: many\nversion: "0.3.12"\nservices: []\nsecrets:\n${secrets}`;
  const reading = inThread('long', 'parseSession', text);
  assert.ok((await roundsDuring(reading)) > 10);
  assert.equal((await reading).session.secrets.length, 2000);
});

test('what takes long among short jobs is done with the long ones, and keeps nobody waiting', async () => {
  const done: string[] = [];
  const ask = async (source: string, text: string) => {
    const { session } = await as(source, () => inThread('short', 'parseSession', text));
    done.push(source);
    return session.name;
  };
  const attacked = ask('attacker', SLOW);
  assert.equal(await ask('honest', 'name: a\nversion: "0.3.12"\nservices: []\n'), 'a');
  assert.equal(await attacked, 'slow');
  assert.deepEqual(done, ['honest', 'attacker']);
});

test('whose short jobs often take long has all of them done with the long ones', async () => {
  const done: string[] = [];
  const parse = async (source: string, thread: 'short' | 'long', text: string) => {
    await as(source, () => inThread(thread, 'parseSession', text));
    done.push(source);
  };
  const tiny = 'name: a\nversion: "0.3.12"\nservices: []\n';
  for (let time = 0; time < 3; time++) await parse('slow', 'short', SLOW);
  done.length = 0;
  await Promise.all([
    parse('who has much', 'long', SLOW),
    parse('slow', 'short', tiny),
    parse('honest', 'short', tiny),
  ]);
  assert.deepEqual(done, ['honest', 'who has much', 'slow']);
});

test('nothing is done any more for who has gone, and what is under way is ended', async () => {
  const busy = { code: 'CAS_BUSY' };
  const leaving = new AbortController();
  const ask = () => as('attacker', () => inThread('long', 'parseSession', SLOW), 'a key', leaving.signal);
  const asked = [ask(), ask()];
  leaving.abort();
  for (const each of asked) await assert.rejects(each, busy);
  await assert.rejects(ask(), busy);
  assert.equal((await as('honest', () => inThread('long', 'parseSession', SLOW))).session.name, 'slow');

  const turns = createTurns(1);
  const gate = Promise.withResolvers<void>();
  const first = turns(() => gate.promise);
  let begun = 0;
  const waiting = as('attacker', () => turns(async () => begun++), 'a key', AbortSignal.abort());
  gate.resolve();
  await Promise.all([first, assert.rejects(waiting, busy)]);
  assert.equal(begun, 0);
});

test('a text that is wrong is told as that, and its thread goes on', async () => {
  await assert.rejects(inThread('short', 'parseSession', 'name: [1'), { name: 'InvalidText' });
  const { session } = await inThread('short', 'parseSession', 'name: a\nversion: "0.3.12"\nservices: []\n');
  assert.equal(session.name, 'a');
});

test('whoever asks for much, by many keys, has others wait for one piece of it', async () => {
  const turns = createTurns(1);
  const done: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = turns(() => gate.promise);
  const ask = (source: string, identity: string) =>
    as(source, () => turns(async () => void done.push(`${source} ${identity}`)), identity);
  const asked = [
    ...Array.from({ length: 100 }, (_, at) => ask('attacker', `key ${at % 10}`)),
    ask('honest', 'a'),
    ask('honest', 'a'),
    ask('honest', 'b'),
  ];
  gate.resolve();
  await Promise.all([first, ...asked]);
  assert.deepEqual(done.slice(0, 7), [
    'attacker key 0',
    'honest a',
    'attacker key 1',
    // And so do keys of one source.
    'honest b',
    'attacker key 2',
    'honest a',
    'attacker key 3',
  ]);
  assert.equal(done.length, 103);
});

test('so much of one source waits, and no more', async () => {
  const turns = createTurns(1);
  const gate = Promise.withResolvers<void>();
  const first = turns(() => gate.promise);
  const ask = (source: string) => as(source, () => turns(async () => {}));
  const waiting = Array.from({ length: 256 }, () => ask('attacker'));
  await assert.rejects(ask('attacker'), { code: 'CAS_BUSY' });
  const honest = ask('honest');
  gate.resolve();
  await Promise.all([first, honest, ...waiting]);
  await ask('attacker');
});

test('whoever has much recorded, by whatever keys, has to wait; others do not', (t) => {
  as('192.0.2.66', () => {
    for (let stored = 0; stored < 64; stored++) countStored(MEBIBYTE);
    assert.throws(() => countStored(2 * MEBIBYTE), { code: 'CAS_BUSY' });
    // An entry alone has a bound of its own.
    countStored();
    assert.throws(
      () => {
        for (let entries = 0; entries < 300_000; entries++) countStored();
      },
      { code: 'CAS_BUSY' },
    );
  });
  as('192.0.2.1', () => countStored(MEBIBYTE));
  // Whoever goes on for a day may not go on as fast.
  const now = performance.now();
  let seconds = 0;
  t.mock.method(performance, 'now', () => now + 1000 * seconds);
  const refused = as('198.51.100.7', () => {
    for (; seconds < 24 * 3600; seconds += 32)
      try {
        countStored(32 * MEBIBYTE);
      } catch {
        return true;
      }
    return false;
  });
  assert.ok(refused && seconds > 3600, `${seconds}`);
  // What the CAS does by itself.
  for (let stored = 0; stored < 300; stored++) countStored(MEBIBYTE);
});

test('all versions of one client have so many bytes, whatever the sessions', async () => {
  const { cas } = bareCas();
  cas.mebibytesPerClient = 1;
  const text = (name: string, predecessor?: string) => `name: ${name}
version: "0.3.12"
${predecessor === undefined ? '' : `predecessor: ${predecessor}\n`}services: []
secrets: [{name: s, kind: ascii, value: "${'x'.repeat(150_000)}"}]
`;
  const upload = (body: string, who = 'attacker') => uploadSession(cas, body, keyOf(who));
  const { hash } = await upload(text('one'));
  await upload(text('one', hash));
  await assert.rejects(upload(text('two')), { code: 'TOO_MUCH_STORED' });
  await assert.rejects(upload(text('one', createHash('sha256').update('another').digest('hex'))), {
    code: 'PREDECESSOR_STALE',
  });
  await upload(text('two'), 'honest');
});

/** Calls of the thread that answers everybody for so many random bytes. */
function countRandom(t: TestContext): number[] {
  const sizes: number[] = [];
  const { randomBytes } = crypto;
  t.mock.method(crypto, 'randomBytes', (size: number) => {
    sizes.push(size);
    return randomBytes(size);
  });
  syncBuiltinESMExports();
  t.after(() => {
    t.mock.restoreAll();
    syncBuiltinESMExports();
  });
  return sizes;
}

const made = (size: number, count = 1) =>
  `name: made\nversion: "0.3.12"\nservices: []\nsecrets: [${Array.from({ length: count }, (_, at) => `{name: s${at}, kind: ascii, size: ${size}}`).join(', ')}]\n`;

test('for whoever has too much stored no secret is made', async (t) => {
  const bare = bareCas();
  const text = made(60_000);
  t.mock.method(performance, 'now', () => 0);
  const sizes = countRandom(t);
  await as('192.0.2.67', async () => {
    for (let stored = 0; stored < 63; stored++) countStored(MEBIBYTE);
    countStored(MEBIBYTE - 50_000);
    await assert.rejects(bare.upload(text), { code: 'CAS_BUSY' });
  });
  assert.deepEqual(
    sizes.filter((size) => size >= 60_000),
    [],
  );
  await as('192.0.2.2', () => bare.upload(text));
  assert.notEqual(sizes.filter((size) => size >= 60_000).length, 0);
});

test('large secrets are made, sealed and opened while others are served, and opened once', async (t) => {
  const bare = bareCas();
  const sizes = countRandom(t);
  const { keyring } = bare.cas;
  const whole: number[] = [];
  const opened: string[] = [];
  const note = (place: string, bytes: Buffer) => {
    if (place.startsWith('version/')) whole.push(bytes.length);
  };
  bare.cas.keyring = {
    ...keyring,
    seal(plaintext, place) {
      note(place, plaintext);
      return keyring.seal(plaintext, place);
    },
    open(sealed, place) {
      note(place, sealed);
      return keyring.open(sealed, place);
    },
    keyOf(sealed, place) {
      opened.push(place);
      return keyring.keyOf(sealed, place);
    },
  };
  // Each is small, and all of them are not.
  await bare.upload(made(MEBIBYTE / 16, 64));
  const first = await activeSession(bare.cas, 'made');
  assert.equal(await activeSession(bare.cas, 'made'), first);
  assert.deepEqual(
    [...(first?.secrets.values() ?? [])].map((secret) => secret.reveal().length),
    Array(64).fill(MEBIBYTE / 16),
  );
  assert.deepEqual(whole, []);
  assert.equal(opened.length, 1);
  assert.deepEqual(
    sizes.filter((size) => size >= MEBIBYTE / 16),
    [],
  );
});

/** Has the store note each version whose content is read. */
function countReading({ cas }: ReturnType<typeof bareCas>): number[] {
  const read: number[] = [];
  const note = (row: unknown) => {
    if (typeof row === 'object' && row && 'sealed' in row && 'number' in row) read.push(Number(row.number));
  };
  cas.store = new Proxy(cas.store, {
    get: (store, method) => {
      const call = Reflect.get(store, method) as (...args: unknown[]) => Promise<unknown>;
      return async (...args: unknown[]) => {
        const result = await call(...args);
        [result].flat().forEach(note);
        return result;
      };
    },
  });
  return read;
}

test('others are served between the values that a session publishes', async () => {
  const bare = bareCas();
  await bare.upload(made(20, 64).replaceAll('size: 20', 'export_public: true'));
  const telling = publicValues(bare.cas, 'made');
  assert.ok((await roundsDuring(telling)) >= 64);
  assert.equal(Object.keys(JSON.parse(await telling)).length, 64);
});

test('a history is told without the content of its versions', async () => {
  const bare = bareCas();
  let predecessor: string | undefined;
  for (let number = 1; number <= 102; number++)
    predecessor = await bare.upload(
      `name: s\nversion: "0.3.12"\n${predecessor ? `predecessor: ${predecessor}\n` : ''}`,
    );
  const read = countReading(bare);
  const client = { certificate: keyOf('alice'), signers: [] };
  const tell = async (before: number) => {
    const { versions, more } = (await readHistory(bare.cas, 's', client, before)) as {
      versions: { number: number }[];
      more: boolean;
    };
    return { numbers: versions.map(({ number }) => number), more };
  };
  const numbers = Array.from({ length: 100 }, (_, at) => 102 - at);
  assert.deepEqual(await tell(1000), { numbers, more: true });
  assert.deepEqual(await tell(101), {
    numbers: Array.from({ length: 100 }, (_, at) => 100 - at),
    more: false,
  });
  assert.deepEqual(await tell(3), { numbers: [2, 1], more: false });
  // By whose rules it is told.
  assert.deepEqual(read, [102, 102, 102]);
});

test('whoever shows no key has no session opened for its hash', async () => {
  const bare = bareCas();
  await bare.upload('name: closed\nversion: "0.3.12"\n');
  const hash = await bare.upload(`name: open\nversion: "0.3.12"\nsalt: ${'ab'.repeat(16)}\n`);
  const read = countReading(bare);
  await assert.rejects(readHash(bare.cas, 'closed', undefined), { code: 'IDENTITY_REQUIRED' });
  await assert.rejects(readHash(bare.cas, 'none', undefined), { code: 'SESSION_NOT_FOUND' });
  assert.equal(await readHash(bare.cas, 'open', undefined), hash);
  assert.deepEqual(read, []);
});

test('one large secret under many names is not held in all of them', async () => {
  const bare = bareCas();
  const names = Array.from({ length: 40 }, (_, at) => `s${at}`);
  await bare.upload(`name: large
version: "0.3.12"
services: []
secrets: [{name: s, kind: binary, size: 1048576, export: [{session: many}]}]
`);
  const many = (from: string[]) => `name: many
version: "0.3.12"
security: {attestation: {mode: none}}
services: [{name: s, image_name: i, command: envcas}]
images: [{name: i, injection_files: [{path: /etc/envcas/config.yaml, content: "{program: /bin/true, injection_files: [{from: /f, to: /tmp/f}]}"}, {path: /f, content: "${from.map((name) => `$$SCONE::${name}:hex$$`).join('')}"}]}]
secrets:
${names.map((name) => `  - {name: ${name}, import: {session: large, secret: s}}\n`).join('')}`;
  await bare.upload(many(names));
  // By what is held, before anything is put together.
  await assert.rejects(bare.launch('many', 's'), { code: 'CONFIGURATION_TOO_LARGE', message: /16777216/ });
});

test('two second factors that cannot be had are one refusal, and no error that ends the CAS', async () => {
  const bare = bareCas();
  await bare.upload(`name: a
version: "0.3.12"
security: {service_access_token: "$$SCONE::t$$", attestation: {mode: none, one_time_password_shared_secret: "$$SCONE::o$$"}}
services: [{name: s, command: envcas}]
secrets: [{name: t, import: {session: nowhere, secret: t}}, {name: o, import: {session: nowhere, secret: o}}]
`);
  // Of an error that nobody handles, the test runner makes a failure of this test.
  await assert.rejects(bare.launch('a', 's'), { code: 'ADMISSION_UNKNOWN' });
  await new Promise(setImmediate);
});

const none = 'version: "0.3.12"\nsecurity: {attestation: {mode: none}}\n';
/** A service whose file has a content. */
const withFile = (content: string) => `${none}services: [{name: s, image_name: i, command: envcas}]
images: [{name: i, injection_files: [{path: /etc/envcas/config.yaml, content: "{program: /bin/true, injection_files: [{from: /f, to: /tmp/f}]}"}, {path: /f, content: "${content}"}]}]
`;
const each = (count: number, write: (index: number) => string) =>
  Array.from({ length: count }, (_, index) => write(index));

for (const [kind, rest] of Object.entries({
  jwt: 'signer: k, alg: ES384, validity: {for: 24h}',
  x509: 'private_key: k',
  'public-key': 'private_key: k',
}))
  test(`many secrets of kind ${kind} are given out while others are served`, async () => {
    const bare = bareCas();
    const text = withFile(each(200, (at) => `$$SCONE::s${at}$$`).join(''));
    const secrets = each(200, (at) => `{name: s${at}, kind: ${kind}, ${rest}}`);
    await bare.upload(
      `name: many\n${text}secrets: [{name: k, kind: private-key, key_type: P-384}, ${secrets.join(', ')}]\n`,
    );
    // What is issued at the first launch is there at the second.
    await bare.launch('many', 's');
    assert.ok((await roundsDuring(bare.launch('many', 's'))) > 10);
  });

test('the largest answer is written as JSON while others are served, and says the same', async () => {
  const value = {
    files: [{ path: '/a', content: `${'a'.repeat(65_535)}€😀"\n`.repeat(40), none: undefined }, {}],
    words: Array.from({ length: 20_000 }, (_, at) => [`w${at}`, { argument: at }]),
    rest: [[], null, true, 1.5, ''],
  };
  const writing = jsonInPieces(createPace(), value);
  assert.ok((await roundsDuring(writing)) > 20);
  const pieces = await writing;
  assert.ok(Math.max(...pieces.map(({ length }) => length)) < MEBIBYTE / 2);
  assert.equal(Buffer.concat(pieces).toString(), JSON.stringify(value));
});

test('a token of many claims is put together in pieces, and says all of them', async (t) => {
  const bare = bareCas();
  const claims = each(5000, (at) => `c${at}: "${at}"`).join(', ');
  await bare.upload(`name: many
${withFile('$$SCONE::t$$')}secrets: [{name: k, kind: private-key, key_type: P-384}, {name: t, kind: jwt, signer: k, alg: ES384, validity: {for: 24h}, payload: {${claims}}}]
`);
  const tokenOf = async () =>
    Buffer.from(
      (await bare.launch('many', 's')).configuration.files.at(-1)?.content ?? '',
      'base64',
    ).toString();
  const token = await tokenOf();
  const stringify = t.mock.method(JSON, 'stringify');
  assert.equal(await tokenOf(), token);
  const sizes = stringify.mock.calls.map(({ result = '' }) => result.length);
  assert.ok(Math.max(...sizes) < 20_000, `${Math.max(...sizes)}`);
  const { c0, c4999, nbf } = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
  assert.deepEqual([c0, c4999, nbf], ['0', '4999', Math.floor(bare.now / 1000)]);
});

test('many references are filled in, and told where they lead, while others are served', async () => {
  const bare = bareCas();
  const text = withFile('$$SCONE::e$$'.repeat(30_000));
  await bare.upload(`name: many\n${text}secrets: [{name: e, kind: ascii, value: ""}]\n`);
  assert.ok((await roundsDuring(bare.launch('many', 's'))) > 50);
  const client = { certificate: keyOf('alice'), signers: [] };
  assert.ok((await roundsDuring(planLaunch(bare.cas, { session: 'many', service: 's' }, client))) > 25);
});

test('large secrets are given out in every form, and told to be kept out of output, while others are served', async () => {
  const roundsOf = async (content: string, supervise: string) => {
    const bare = bareCas();
    await bare.upload(`name: large
${none}services: [{name: s, image_name: i, command: envcas}]
images: [{name: i, injection_files: [{path: /etc/envcas/config.yaml, content: "{program: /bin/true, ${supervise}injection_files: [{from: /f, to: /tmp/f}]}"}, {path: /f${content}}]}]
secrets: [{name: b, kind: binary, size: 1000000}]
`);
    // Read and opened at the first launch.
    await bare.launch('large', 's');
    return roundsDuring(bare.launch('large', 's'));
  };
  // A template on the launcher's host can have it in base32, too, which another thread makes.
  assert.ok((await roundsOf('', '')) > 50);
  const inFile = `, content: "${'$$SCONE::b$$'.repeat(8)}"`;
  const without = await roundsOf(inFile, '');
  assert.ok((await roundsOf(inFile, 'supervise: {redact: true}, ')) >= without + 4);
});

test('one request reads no more sessions than have some megabytes', async () => {
  const bare = bareCas();
  const large = 'a'.repeat(1_900_000);
  const names = each(20, (at) => `s${at}`);
  for (const name of names)
    await bare.upload(`name: ${name}
${none}services: []
secrets: [{name: v, kind: ascii, value: b, export: [{session: many}]}, {name: w, kind: ascii, value: ${large}}]
`);
  const imports = names.map((name) => `{name: ${name}, import: {session: ${name}, secret: v}}`);
  const files = names.map((name) => `$$SCONE::${name}$$`).join('');
  await bare.upload(`name: many\n${withFile(files)}secrets: [${imports.join(', ')}]\n`);
  await assert.rejects(bare.launch('many', 's'), {
    code: 'POLICY_UNUSABLE',
    message: /the sessions that it reads have more than \d+ bytes/,
  });
});

test('what decides over launches is looked for while others are served', async () => {
  const bare = bareCas();
  const fragments = each(
    100,
    (at) =>
      `{name: f${at}, kind: config-fragment, value: "${each(100, (to) => `$$SCONE::f${to}$$`).join('')}"}`,
  );
  await bare.upload(`name: many\n${none}services: []\nsecrets: [${fragments.join(', ')}]\n`);
  const version = await requireSession(bare.cas, 'many');
  const looking = decidingSecrets(bare.cas, version, createResolver(bare.cas));
  assert.ok((await roundsDuring(looking)) > 5);
  assert.equal((await looking).size, 0);
});

test('a certificate of many names is made while others are served', async () => {
  const bare = bareCas();
  const names = each(2000, (at) => `h${at}.example`).join(', ');
  await bare.upload(
    `name: many\n${withFile('$$SCONE::c$$')}secrets: [{name: k, kind: private-key}, {name: c, kind: x509, private_key: k, dns: [${names}]}]\n`,
  );
  const launching = bare.launch('many', 's');
  assert.ok((await roundsDuring(launching)) > 100);
  const pem = Buffer.from((await launching).configuration.files.at(-1)?.content ?? '', 'base64');
  assert.match(new X509Certificate(pem).subjectAltName ?? '', /DNS:h0\.example, .*DNS:h1999\.example/);
});

describe('principals in a config-fragment', async () => {
  const { certificate } = await makeIdentity('somebody');
  const { publicKey } = generateKeyPairSync('ed25519');
  const signer = JSON.stringify(publicKey.export({ type: 'spki', format: 'pem' }));
  const hashes = each(2000, (at) => formatKeyHash(Buffer.from(`${at}`.padEnd(32))));
  for (const [kind, operation, principals] of [
    ['key hashes', 'read', hashes],
    ['certificates', 'read', each(400, () => JSON.stringify(certificate))],
    ['signers', 'update', each(1000, () => `{signer: ${signer}}`)],
  ] as const)
    test(`many ${kind} are looked at while others are served`, async () => {
      const bare = bareCas();
      await bare.upload(`name: many
${none}access_policy: {${operation}: $$SCONE::p$$}
services: []
secrets: [{name: p, kind: config-fragment, value: [${principals.join(', ')}]}]
`);
      const version = await requireSession(bare.cas, 'many');
      const mallory = { certificate: keyOf('mallory'), signers: [] };
      const looking = authorize(bare.cas, version, operation, mallory).catch(({ code }) => code);
      // Far more than by the steps of the request itself.
      assert.ok((await roundsDuring(looking)) > 100);
      assert.equal(await looking, 'ACCESS_DENIED');
    });
});

test('a fragment is read once in a launch, and not at all where it is too large', async (t) => {
  const parse = t.mock.method(JSON, 'parse');
  const launch = async (count: number) => {
    const bare = bareCas();
    const ids = each(count, (at) => `INTEL-SA-${String(at).padStart(5, '0')}`);
    const fragment = { attestation: { mode: 'none', ignore_advisories: ids } };
    await bare.upload(`name: many
version: "0.3.12"
security: $$SCONE::f$$
services: [{name: s, command: envcas}]
secrets: [{name: f, kind: config-fragment, value: ${JSON.stringify(fragment)}}]
`);
    const ended = await bare.launch('many', 's').then(
      () => 'launched',
      ({ code }) => code,
    );
    const json = JSON.stringify(fragment);
    const times = parse.mock.calls.filter(({ arguments: [text] }) => String(text) === json).length;
    return { times, ended };
  };
  assert.deepEqual(await launch(40_000), { times: 0, ended: 'ADMISSION_UNKNOWN' });
  assert.deepEqual(await launch(1000), { times: 1, ended: 'launched' });
});

test('who may do something is not denied it because the CAS is busy', async () => {
  const bare = bareCas();
  await bare.upload(`name: a\n${none}access_policy: {read: $$SCONE::p$$}
services: []
secrets: [{name: p, import: {session: b, secret: p}}]
`);
  const version = await requireSession(bare.cas, 'a');
  const { store } = bare.cas;
  bare.cas.store = { ...store, activeVersion: async () => Promise.reject(failure('CAS_BUSY')) };
  const alice = { certificate: keyOf('alice'), signers: [] };
  await assert.rejects(authorize(bare.cas, version, 'read', alice), { code: 'CAS_BUSY' });
});

test('of requests with many steps, one goes on at a time, and sources take turns', async () => {
  const order: string[] = [];
  const roundOf: number[] = [];
  let round = 0;
  const count = () => {
    round++;
    next = setImmediate(count);
  };
  let next = setImmediate(count);
  const go = (source: string, pieces: number) =>
    as(source, async () => {
      const pace = createPace();
      for (let piece = 0; piece < pieces; piece++) {
        await pace(1_000_000);
        order.push(source);
        roundOf.push(round);
      }
    });
  const attackers = Array.from({ length: 10 }, () => go('attacker', 5));
  await Promise.all([...attackers, go('honest', 3)]);
  clearImmediate(next);
  assert.ok(order.lastIndexOf('honest') < 9, order.join(' '));
  assert.equal(new Set(roundOf).size, 53);
});

test('answers that nobody takes are held for one source to a limit, and others have room', () => {
  const arrived = hold('attacker', 60 * MEBIBYTE);
  assert.equal(roomFor('attacker'), 4 * MEBIBYTE);
  assert.equal(roomFor('honest'), 64 * MEBIBYTE);
  arrived();
  assert.equal(roomFor('attacker'), 64 * MEBIBYTE);
});

test('a command is so many words, and no more', () => {
  const text = (words: number) =>
    `name: a\nversion: "0.3.12"\nsecurity: {attestation: {mode: none}}\nservices: [{name: s, command: "${'a '.repeat(words)}"}]\n`;
  assert.equal(parseSession(text(10_000)).session.services[0]?.command.length, 10_000);
  assert.throws(() => parseSession(text(10_001)), /expected at most 10000 words/);
});

describe('imports from CASes of an attacker', async () => {
  const own = await makeIdentity('cas');
  const version = (name: string) => ({ session: { name }, hash: 'ab'.repeat(32) }) as SessionVersion;
  const unavailable = (detail: string) => new Error(detail);
  const importOf = (cases: ReturnType<typeof createOtherCases>, port: number, key: string, name = 'own') =>
    cases.import(
      version(name),
      { session: 'x', secret: 's', cas_url: `127.0.0.1:${port}`, cas_key: key },
      0,
      unavailable,
    );

  test('one that says nothing, named by many sessions, leaves others their room', async () => {
    const cases = createOtherCases(own);
    let connections = 0;
    const silent = createServer(() => connections++).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const { port } = silent.address() as AddressInfo;
    const key = formatKeyHash(Buffer.alloc(32, 1));
    const held = Array.from({ length: 32 }, (_, at) =>
      as('attacker', () => importOf(cases, port, key, `free-${at}`)).catch(() => 'not reached'),
    );
    await until(() => connections === 32, 'all of them are under way');
    await assert.rejects(
      as('attacker', () => importOf(cases, port, key, 'another')),
      { code: 'CAS_BUSY' },
    );
    // Somebody else's is begun, and fails for its own reason.
    await assert.rejects(
      as('honest', () => importOf(cases, 1, key)),
      /cannot be reached/,
    );
    assert.deepEqual(new Set(await Promise.all(held)), new Set(['not reached']));
    silent.close();
  });

  test('one that sends megabytes is heard out no further than any secret goes', async () => {
    const { key, certificate } = await makeIdentity('attacker');
    let sent = 0;
    const generous = createTlsServer({ key, cert: certificate }, (socket) => {
      socket.on('error', () => {});
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${64 * MEBIBYTE}\r\n\r\n{"kind":"binary","secret":"`);
      const more = () => {
        while (!socket.destroyed && sent < 64 * MEBIBYTE) {
          sent += 65_536;
          if (!socket.write('A'.repeat(65_536))) return;
        }
      };
      socket.on('drain', more);
      more();
    }).listen(0, '127.0.0.1');
    await once(generous, 'listening');
    const { port } = generous.address() as AddressInfo;
    const hash = formatKeyHash(publicKeyDigest(createPublicKey(certificate)));
    await assert.rejects(
      as('attacker', () => importOf(createOtherCases(own), port, hash)),
      /cannot be reached/,
    );
    assert.ok(sent < 16 * MEBIBYTE, `${sent} bytes`);
    generous.close();
  });
});
