import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, test } from 'node:test';
import { openSqlite } from '../../src/cas/store/sqlite.ts';
import { pauseAfter, type Store } from '../../src/cas/store/store.ts';

let folder: string;
let path: string;
let store: Store;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'envcas-store-'));
  path = join(folder, 'cas.db');
  store = openSqlite(path);
});
afterEach(async () => {
  await store.close();
  rmSync(folder, { recursive: true });
});

const version = (session: string, number: number, hash: string) => ({
  session,
  number,
  hash: Buffer.from(hash),
  sealed: Buffer.from(hash),
  upload: Buffer.from('upload'),
});
/** Of a code of a step, or a wrong one. */
const attempt = (step: number | undefined, now = 1_000_000, source = '192.0.2.1') => ({
  right: step !== undefined,
  ...(step !== undefined && { once: { secret: Buffer.from('pseudonym'), step } }),
  account: 'session/service',
  source,
  now,
});

test('of two versions with one number, the first is kept', async () => {
  assert.equal(await store.addVersion(version('s', 1, 'a')), 'added');
  assert.equal(await store.addVersion(version('s', 1, 'b')), 'taken');
  assert.equal((await store.activeVersion('s'))?.hash.toString(), 'a');
  assert.equal(await store.addVersion(version('s', 2, 'b')), 'added');
  assert.deepEqual(await store.activeVersion('s'), version('s', 2, 'b'));
  assert.equal(await store.activeVersion('other'), undefined);
});

test('a value of the CAS is made once; who comes second gets the first', async () => {
  assert.equal(await store.readState('identity'), undefined);
  assert.deepEqual(await store.createState('identity', Buffer.from('one')), Buffer.from('one'));
  assert.deepEqual(await store.createState('identity', Buffer.from('two')), Buffer.from('one'));
  await store.replaceState('identity', Buffer.from('three'));
  assert.deepEqual(await store.readState('identity'), Buffer.from('three'));
});

test('of what is issued at once, the first is kept, until there is a later generation', async () => {
  const issue = (generation: number, sealed: string) => ({
    ...{ session: 's', number: 1, name: 'n', generation },
    sealed: Buffer.from(sealed),
  });
  const kept = (generation: number, sealed: string) => ({ generation, sealed: Buffer.from(sealed) });
  const other = openSqlite(path);
  assert.equal(await store.issued('s', 1, 'n'), undefined);
  assert.deepEqual(await store.keepIssued(issue(1, 'a')), kept(1, 'a'));
  assert.deepEqual(await other.keepIssued(issue(1, 'b')), kept(1, 'a'));
  assert.deepEqual(await other.keepIssued(issue(2, 'c')), kept(2, 'c'));
  assert.deepEqual(await store.keepIssued(issue(1, 'd')), kept(2, 'c'), 'who comes late');
  assert.deepEqual(await store.issued('s', 1, 'n'), kept(2, 'c'));
  assert.equal(await store.issued('s', 2, 'n'), undefined);
  await other.close();
});

test('the last of the certificates that an older version of the program kept is still there', async () => {
  const db = new DatabaseSync(path);
  db.exec(`DROP TABLE issued; DROP TABLE attestation_key; DROP TABLE collateral; PRAGMA user_version = 3;
    CREATE TABLE certificate (
      session TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL,
      generation INTEGER NOT NULL, sealed BLOB NOT NULL,
      PRIMARY KEY (session, number, name, generation)
    ) STRICT;
    INSERT INTO certificate VALUES ('s', 1, 'n', 1, x'01'), ('s', 1, 'n', 10, x'03'), ('s', 1, 'n', 9, x'02'),
      ('s', 2, 'n', 1, x'04')`);
  db.close();
  const upgraded = openSqlite(path);
  assert.deepEqual(await upgraded.issued('s', 1, 'n'), { generation: 10, sealed: Buffer.from([3]) });
  assert.deepEqual(await upgraded.issued('s', 2, 'n'), { generation: 1, sealed: Buffer.from([4]) });
  await upgraded.close();
});

test('a step is good once for a secret, for all who share the database', async () => {
  const other = openSqlite(path);
  assert.deepEqual(await store.attempt(attempt(7)), { outcome: 'accepted' });
  assert.deepEqual(await other.attempt(attempt(7)), { outcome: 'used' });
  assert.deepEqual(await other.attempt(attempt(8)), { outcome: 'accepted' });
  assert.deepEqual(
    await store.attempt({ ...attempt(7), once: { secret: Buffer.from('another'), step: 7 } }),
    {
      outcome: 'accepted',
    },
  );
  await other.close();
});

test('wrong codes cost more and more time, for their source alone', async () => {
  let now = 1_000_000;
  for (let guess = 0; guess < 5; guess++)
    assert.deepEqual(await store.attempt(attempt(undefined, now)), { outcome: 'invalid' });
  // Now even the right code is not looked at, and not used up.
  assert.deepEqual(await store.attempt(attempt(7, now)), { outcome: 'throttled', seconds: 30 });
  assert.deepEqual(await store.attempt(attempt(6, now, '192.0.2.2')), { outcome: 'accepted' });
  now += 30_000;
  assert.deepEqual(await store.attempt(attempt(undefined, now)), { outcome: 'invalid' });
  assert.deepEqual(await store.attempt(attempt(7, now)), { outcome: 'throttled', seconds: 60 });
  now += 60_000;
  assert.deepEqual(await store.attempt(attempt(7, now)), { outcome: 'accepted' });
  assert.deepEqual(await store.attempt(attempt(undefined, now)), { outcome: 'invalid' });
  assert.deepEqual(await store.attempt(attempt(undefined, now)), { outcome: 'invalid' });
});

test('the pause doubles up to an hour', () => {
  assert.deepEqual([0, 4, 5, 6, 7, 11, 12, 60].map(pauseAfter), [0, 0, 30, 60, 120, 1920, 3600, 3600]);
});

test('a clock that is set back neither ends a pause nor lengthens it', async () => {
  for (let guess = 0; guess < 5; guess++) await store.attempt(attempt(undefined, 9_000_000));
  const throttled = { outcome: 'throttled', seconds: 30 };
  assert.deepEqual(await store.attempt(attempt(7, 1_000)), throttled);
  assert.deepEqual(await store.attempt(attempt(7, 31_000)), { outcome: 'accepted' });
});

test('a database of a newer version is left alone', async () => {
  const db = new DatabaseSync(path);
  db.exec('PRAGMA user_version = 999');
  db.close();
  assert.throws(() => openSqlite(path), { code: 'STATE_UNUSABLE', message: /newer version/ });
});

test('a file that is no database is refused', () => {
  assert.throws(() => openSqlite(folder), { code: 'STATE_UNUSABLE' });
});

test('a proof that is good more than once is counted where it is wrong', async () => {
  const token = { account: 'token', source: '192.0.2.1', now: 1_000_000 };
  assert.deepEqual(await store.attempt({ ...token, right: true }), { outcome: 'accepted' });
  assert.deepEqual(await store.attempt({ ...token, right: true }), { outcome: 'accepted' });
  for (let guess = 0; guess < 5; guess++)
    assert.deepEqual(await store.attempt({ ...token, right: false }), { outcome: 'invalid' });
  assert.deepEqual(await store.attempt({ ...token, right: true }), { outcome: 'throttled', seconds: 30 });
});

test('a process comes to a session once', async () => {
  const process = Buffer.alloc(32, 1);
  assert.equal(await store.admitProcess('s', process), true);
  assert.equal(await store.admitProcess('s', process), false);
  assert.equal(await store.admitProcess('other', process), true);
  assert.equal(await store.admitProcess('s', Buffer.alloc(32, 2)), true);
});

test('the history of a session is told backwards, a part at a time', async () => {
  for (const number of [1, 2, 3]) await store.addVersion(version('s', number, String(number)));
  await store.addVersion(version('s/below', 1, 'x'));
  const numbers = async (before: number, limit: number) =>
    (await store.versions('s', before, limit)).map(({ number }) => number);
  assert.deepEqual(await numbers(100, 2), [3, 2]);
  assert.deepEqual(await numbers(2, 2), [1]);
  assert.deepEqual((await store.versions('s', 2, 1))[0], version('s', 1, '1'));
});

test('the sessions just below a namespace are listed in order, a part at a time', async () => {
  const names = ['a', 'a.b', 'a/c', 'a/c/d', 'a/~', 'a0', 'b', '-', '~z/~'];
  assert.equal(await store.addVersion(version('/', 1, 'root')), 'added');
  for (const name of names) await store.addVersion(version(name, 1, name));
  await store.addVersion(version('a/c', 2, 'again'));
  assert.deepEqual(await store.sessionsIn('a', '', 10), ['a/c', 'a/~']);
  assert.deepEqual(await store.sessionsIn('a', 'a/c', 1), ['a/~']);
  assert.deepEqual(await store.sessionsIn('a/c', '', 10), ['a/c/d']);
  assert.deepEqual(await store.sessionsIn('/', '', 100), ['-', 'a', 'a.b', 'a0', 'b']);
  assert.deepEqual(await store.sessionsIn('/', 'a', 2), ['a.b', 'a0']);
});

test('a first version is added only while its namespace is as it was', async () => {
  assert.equal(await store.addVersion(version('top', 1, 'a'), { session: '/', number: 0 }), 'added');
  assert.equal(await store.addVersion(version('top/a', 1, 'a'), { session: 'top', number: 1 }), 'added');
  await store.addVersion(version('top', 2, 'b'));
  assert.equal(
    await store.addVersion(version('top/b', 1, 'b'), { session: 'top', number: 1 }),
    'parent changed',
  );
  assert.equal(await store.activeVersion('top/b'), undefined);
});
