import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { Secret } from 'otpauth';
import { openAuditLog } from '../../src/cas/audit-log.ts';
import { keyring as createKeyring, type Keyring } from '../../src/cas/keyring.ts';
import { openSeal, readSeal, type Seal } from '../../src/cas/seal/record.ts';
import { unsealBySelf } from '../../src/cas/seal/unseal.ts';
import { checkStore, requireWhole } from '../../src/cas/store/check.ts';
import type { Database, Value } from '../../src/cas/store/database.ts';
import { dump } from '../../src/cas/store/dump.ts';
import { type Table, tables } from '../../src/cas/store/migrations.ts';
import { openDatabase } from '../../src/cas/store/open.ts';
import { openState, openStore } from '../../src/cas/store/sql.ts';
import { failure } from '../../src/errors.ts';
import { codeFrom, launch, makeIdentity, makeLas, upload } from '../support/client.ts';
import { onEachEngine } from '../support/engines.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { executables, run, startCas } from '../support/stack.ts';

const { scone } = executables();
/** Bits that are flipped in a database file. */
const FLIPS = Number(process.env.ENVCAS_FLIPS ?? 100);

const sessionText = (name: string, secret: string) => `name: ${name}
version: "0.3.10"
security: {attestation: {tolerate: [debug-mode]}, singleton_enclaves: true}
services:
  - name: s
    image_name: i
    mrenclaves: [${'ab'.repeat(32)}]
    command: [envcas, $$SCONE::token:hex$$, $$SCONE::certificate:crt$$]
    one_time_password_shared_secret: ${secret}
images: [{name: i, injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/echo"}]}]
secrets:
  - {name: token, kind: binary, size: 16}
  - {name: authority, kind: x509-ca, common_name: authority, private_key: key}
  - {name: key, kind: private-key}
  - {name: certificate, kind: x509, common_name: leaf, issuer: authority, private_key: leaf}
  - {name: leaf, kind: private-key}
`;

onEachEngine('what is changed in a store behind the back of its CAS', (engine) => {
  let folder: string;
  let address: string;
  let database: Database;
  let rootKey: Buffer;
  let keyring: Keyring;
  const directory = () => join(folder, 'cas');
  const unseal = () =>
    unsealBySelf(openState(database), {
      ...{ keyFile: join(directory(), 'master.key'), directory: directory(), env: process.env },
    });

  beforeEach(async () => {
    folder = temporaryFolder();
    address = await engine.address();
    const las = makeLas();
    const alice = await makeIdentity('alice');
    const options = ['--store', address, '--workers', '1', '--trusted-platform', las.platform];
    const cas = await startCas(scone, directory(), [...options, '--log-level', 'error'], {
      PATH: process.env.PATH ?? '',
      HOME: folder,
    });
    try {
      for (const name of ['one', 'two']) {
        const secret = new Secret({ size: 20 });
        const text = sessionText(name, secret.base32);
        const hash = await upload(cas, alice, text);
        await upload(cas, alice, text.replace('name:', `predecessor: ${hash}\nname:`));
        const launchedBy = (oneTimePassword: string) =>
          launch(cas, {
            session: name,
            service: 's',
            oneTimePassword,
            process: randomBytes(32).toString('hex'),
            las,
          });
        await assert.rejects(launchedBy('000000'), { code: 'OTP_INVALID' });
        await launchedBy(codeFrom(secret));
        if (name === 'two') await assert.rejects(launchedBy('000000'), { code: 'OTP_INVALID' });
      }
    } finally {
      await cas.server.stop();
    }
    database = await openDatabase(address);
    const unsealed = await unseal();
    assert.ok('rootKey' in unsealed);
    rootKey = unsealed.rootKey;
    keyring = createKeyring(openSeal((await readSeal(openState(database))) as Seal, rootKey));
    // What takes hardware to come about.
    const store = openStore(database, keyring.authenticate);
    await store.enrol(randomBytes(32), randomBytes(34));
    const now = Date.now();
    await store.keepCollateral({
      key: 'k',
      issued: now,
      until: now + 1e9,
      kept: now,
      content: randomBytes(50),
    });
    const log = await openAuditLog({ database, store, keyring, cas: Buffer.alloc(32), clock: Date.now });
    await Promise.all(
      Array.from({ length: 300 }, (_, session) => log.record({ operation: 'session_read', session })),
    );
  });
  afterEach(async () => {
    await database.close();
  });

  test('is told of with the row, whichever value it is', async () => {
    const checked = await checkStore(database, keyring);
    assert.deepEqual(checked.problems, []);
    let flips = 0;
    for (const table of Object.keys(tables) as Table[]) {
      const { key, rest }: { key: readonly string[]; rest: readonly string[] } = tables[table];
      const rows = await database.all(`SELECT * FROM ${table} ORDER BY ${key.join(', ')}`);
      assert.ok(rows.length > 0, `${table} has rows`);
      const chosen = new Set([rows[0], rows[1], rows.at(-1), ...rows.filter(({ tree }) => tree)]);
      for (const row of chosen)
        for (const column of [...key, ...rest]) {
          const before = row?.[column] as Value;
          if (row === undefined || before === null || (table === 'state' && row.name === 'seal')) continue;
          const after = changed(before);
          const where = (columns: readonly string[]) =>
            columns.map((each, at) => `${each} = $${at + 2}`).join(' AND ');
          const set = (value: Value, its: Record<string, unknown>) =>
            database.run(
              `UPDATE ${table} SET ${column} = $1 WHERE ${where(key)}`,
              value,
              ...key.map((each) => its[each] as Value),
            );
          await set(after, row);
          const now = { ...row, [column]: after };
          const { problems } = await checkStore(database, keyring);
          assert.ok(
            problems.some((problem) => problem.startsWith(`${table} `)),
            `${table}.${column}: ${JSON.stringify(row)}: ${problems}`,
          );
          assert.throws(() => requireWhole('x', problems), { code: 'STORE_DAMAGED' });
          await set(before, now);
          flips++;
        }
    }
    assert.ok(flips > 60, `${flips}`);
    assert.deepEqual((await checkStore(database, keyring)).problems, []);
  });

  test('is told of with the row, where a number is larger than any that a CAS writes', async () => {
    const problemsWith = async (term: string) => {
      await database.run(`UPDATE version SET number = number + ${term} WHERE session = 'two'`);
      return (await checkStore(database, keyring)).problems;
    };
    assert.match((await problemsWith('4611686018427387904')).join('\n'), /^version two 4611686/m);
    const used = database.all("SELECT number FROM version WHERE session = 'two'");
    if (database.engine === 'sqlite') await assert.rejects(used, { code: 'STORE_DAMAGED' });
    else await used;
    assert.deepEqual(await problemsWith('-4611686018427387904'), []);
  });

  test('any bit of the key file, and the CAS says so instead of starting', async () => {
    const path = join(directory(), 'master.key');
    const key = readFileSync(path);
    for (let at = 0; at < key.length; at++) {
      const damaged = Buffer.from(key);
      damaged[at] = (damaged[at] ?? 0) ^ (1 << randomInt(8));
      writeFileSync(path, damaged, { mode: 0o600 });
      await assert.rejects(unseal(), { code: /^(SEAL_DAMAGED|UNSEAL_REFUSED|STATE_SEALED)$/ }, `byte ${at}`);
    }
    const serve = [
      'cas',
      'serve',
      '--dir',
      directory(),
      '--store',
      address,
      '--api-port',
      '0',
      '--enclave-port',
      '0',
    ];
    const { status, stderr } = run(scone, serve, { PATH: process.env.PATH ?? '', HOME: folder });
    assert.notEqual(status, 0);
    assert.match(stderr, /the key file is another one[\s\S]*Code: UNSEAL_REFUSED, exit status 77/);
    writeFileSync(path, key, { mode: 0o600 });
  });

  test('that it was sealed at all, and it is not sealed anew', async () => {
    await database.run("UPDATE state SET name = 'sea1' WHERE name = 'seal'");
    await assert.rejects(unseal(), { code: 'SEAL_DAMAGED', message: /it is missing/ });
    assert.equal(await readSeal(openState(database)), undefined);
  });

  const onFiles = engine.name === 'SQLite' ? test : () => {};
  onFiles('in a file of SQLite, any bit is told of, or says nothing', async (t) => {
    const textOf = async (its: Database) => {
      const lines: string[] = [];
      await dump(its, keyring, async (line) => void lines.push(line), 0);
      // Code and end are other ones each time.
      return lines.slice(0, -2).join('');
    };
    const whole = await textOf(database);
    await database.all('PRAGMA wal_checkpoint(TRUNCATE)');
    const path = address.replace('sqlite:', '');
    let told = 0;
    for (let flip = 0; flip < FLIPS; flip++) {
      const copy = join(folder, `damaged-${flip}.db`);
      copyFileSync(path, copy);
      const bytes = readFileSync(copy);
      const at = randomInt(bytes.length);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << randomInt(8));
      writeFileSync(copy, bytes);
      const what = `byte ${at} of ${bytes.length}`;
      let its: Database | undefined;
      try {
        its = await openDatabase(`sqlite:${copy}`);
        // As `scone cas check-store` does.
        const seal = await readSeal(openState(its));
        if (!seal) throw failure('SEAL_DAMAGED', { detail: 'it is missing' });
        const { problems } = await checkStore(its, createKeyring(openSeal(seal, rootKey)));
        if (problems.length > 0) told++;
        else assert.equal(await textOf(its), whole, what);
      } catch (error) {
        assert.match(
          String((error as { code?: string }).code),
          /^(STORE_\w+|STATE_\w+|SEAL_DAMAGED)$/,
          `${what}: ${error}`,
        );
        told++;
      } finally {
        await its?.close();
      }
    }
    t.diagnostic(`${told} of ${FLIPS} flips were told of; the others changed nothing that is kept`);
    assert.ok(told > FLIPS / 4);
  });
});

/** Another value, as little different as can be. */
function changed(value: Value): Value {
  if (typeof value === 'number') return value < 2 ? 1 - value : value + 1_000_000;
  const bytes = Buffer.from(value as string | Buffer);
  const at = randomInt(bytes.length);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return typeof value === 'string' ? bytes.toString() : bytes;
}
