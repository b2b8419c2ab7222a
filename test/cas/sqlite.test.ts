import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { beforeEach, test } from 'node:test';
import { migrations } from '../../src/cas/store/migrations.ts';
import { codeRowsOf, openStore } from '../../src/cas/store/sql.ts';
import { openSqlite } from '../../src/cas/store/sqlite.ts';
import { inThread } from '../../src/cas/threads.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { until } from '../support/until.ts';

const authenticate = (content: Buffer, place: string) =>
  createHmac('sha256', 'key').update(place).update(content).digest();

let folder: string;
let path: string;
beforeEach(() => {
  folder = temporaryFolder();
  path = join(folder, 'cas.db');
});

/** Rows of the tables that a database had after so many migrations. */
const rowsOf: Record<number, string> = {
  1: `INSERT INTO state VALUES ('identity', x'01');
    INSERT INTO version VALUES ('a/b', 1, x'01', x'02'), ('a', 1, x'03', x'04'), ('/', 1, x'05', x'06');
    INSERT INTO one_time_password VALUES (x'07', 8);
    INSERT INTO wrong_code VALUES ('account', 'source', 5, 1000000);`,
  2: `INSERT INTO certificate VALUES ('s', 1, 'n', 1, x'01'), ('s', 1, 'n', 10, x'03'), ('s', 1, 'n', 9, x'02'),
      ('s', 2, 'n', 1, x'04');`,
  3: `INSERT INTO process VALUES ('s', x'09');`,
  5: `INSERT INTO attestation_key VALUES (x'0a', x'0b', 3, 1);
    INSERT INTO collateral VALUES ('crl/x', 1, 2, 3, x'0c');`,
};

for (let version = 1; version < migrations.length; version++)
  test(`a database of version ${version} is brought up to date, with all that is in it`, async () => {
    const old = new DatabaseSync(path);
    for (const [index, { sqlite }] of migrations.slice(0, version).entries())
      old.exec(`${sqlite}; ${rowsOf[index + 1] ?? ''}`);
    old.exec(`PRAGMA user_version = ${version}`);
    old.close();
    // Of two processes at once, one does it.
    for (const database of [openSqlite(path), openSqlite(path)]) {
      const store = openStore(database, authenticate);
      await codeRowsOf(database)({ authenticate });
      assert.deepEqual(await store.readState('identity'), Buffer.of(1));
      assert.deepEqual((await store.activeVersion('a/b'))?.sealed, Buffer.of(2));
      assert.deepEqual(await store.sessionsIn('/', '', 10), ['a']);
      assert.deepEqual(await store.sessionsIn('a', '', 10), ['a/b']);
      const attempt = { account: 'other', source: 'source', right: true, now: 1_000_000 };
      assert.deepEqual(await store.attempt({ ...attempt, once: { secret: Buffer.of(7), step: 8 } }), {
        outcome: 'used',
      });
      assert.deepEqual(await store.attempt({ ...attempt, account: 'account' }), {
        outcome: 'throttled',
        seconds: 30,
      });
      if (version >= 2) {
        assert.deepEqual(await store.issued('s', 1, 'n'), { generation: 10, sealed: Buffer.of(3) });
        assert.deepEqual(await store.issued('s', 2, 'n'), { generation: 1, sealed: Buffer.of(4) });
      }
      if (version >= 3) assert.equal(await store.admitProcess('s', Buffer.of(9), 1_000_000), undefined);
      if (version >= 5) {
        assert.deepEqual(await store.endorsementKey(Buffer.of(0x0b)), Buffer.of(0x0a));
        assert.equal((await store.collateral()).length, 1);
      }
      await database.close();
    }
  });

test('a database of a newer version is left alone', async () => {
  await openSqlite(path).close();
  const db = new DatabaseSync(path);
  db.exec('PRAGMA user_version = 999');
  db.close();
  assert.throws(() => openSqlite(path), { code: 'STATE_UNUSABLE', message: /newer version/ });
});

test('a file that is no database is refused', () => {
  assert.throws(() => openSqlite(folder), { code: 'STATE_UNUSABLE' });
});

test('a new database, and what SQLite makes beside it, can be read by its owner alone', async () => {
  const umask = process.umask(0o022);
  try {
    const database = openSqlite(path);
    await openStore(database, authenticate).createState('a', Buffer.of(1));
    for (const name of ['', '-wal', '-shm']) assert.equal(statSync(`${path}${name}`).mode & 0o777, 0o600);
    await database.close();
  } finally {
    process.umask(umask);
  }
});

test('others are served before megabytes are committed, and a thread puts them into their place', async () => {
  const database = openSqlite(path);
  const names = `[${`${'ab'.repeat(32)}, `.repeat(15_000)}]`;
  const services = [1, 2, 3, 4].map((at) => `{name: s${at}, command: a, mrenclaves: ${names}}`);
  // The thread is busy for a second, so that what it is to do after that cannot be done yet.
  const before = inThread('long', 'parseSession', `name: slow\nversion: "0.3.12"\nservices: [${services}]\n`);
  let rounds = 0;
  setImmediate(() => rounds++);
  const content = Buffer.alloc(8 * 1024 * 1024, 1);
  await database.transaction((statements) =>
    statements.run('INSERT INTO state (name, value) VALUES ($1, $2)', 'large', content),
  );
  const { size } = statSync(path);
  assert.equal(rounds, 1);
  assert.ok(size < content.length, `${size}`);
  await before;
  await until(() => statSync(path).size > content.length, 'it is in its place');
  const [row] = await database.all('SELECT value FROM state WHERE name = $1', 'large');
  assert.ok(content.equals(row?.value as Buffer));
  await database.close();
});
