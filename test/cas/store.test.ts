import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { afterEach, beforeEach, test } from 'node:test';
import { Conflict, type Database } from '../../src/cas/store/database.ts';
import { openDatabase } from '../../src/cas/store/open.ts';
import { codeOfRow, isAuthentic, openStore } from '../../src/cas/store/sql.ts';
import { type Comer, pauseAfter, type Store } from '../../src/cas/store/store.ts';
import { onEachEngine } from '../support/engines.ts';

const authenticate = (content: Buffer, place: string) =>
  createHmac('sha256', 'key').update(place).update(content).digest();

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
const comer = (launch: number): Comer => ({
  launch: Buffer.alloc(32, launch),
  source: '192.0.2.1',
  patience: Number.POSITIVE_INFINITY,
});

test('the pause doubles up to an hour', () => {
  assert.deepEqual([0, 4, 5, 6, 7, 11, 12, 60].map(pauseAfter), [0, 0, 30, 60, 120, 1920, 3600, 3600]);
});

onEachEngine('a store', (engine) => {
  let address: string;
  let database: Database;
  let store: Store;
  const opened: Database[] = [];
  /** As another process would. */
  const open = async () => {
    const its = await openDatabase(address);
    opened.push(its);
    return openStore(its, authenticate);
  };
  beforeEach(async () => {
    address = await engine.address();
    store = await open();
    database = opened[0] as Database;
  });
  afterEach(async () => {
    for (const each of opened.splice(0)) await each.close();
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
    assert.equal(await store.replaceState('identity', Buffer.from('three'), Buffer.from('one')), true);
    assert.equal(await store.replaceState('identity', Buffer.from('four'), Buffer.from('one')), false);
    assert.deepEqual(await store.readState('identity'), Buffer.from('three'));
  });

  test('of what is issued at once, the first is kept, until there is a later generation', async () => {
    const issue = (generation: number, sealed: string) => ({
      ...{ session: 's', number: 1, name: 'n', generation },
      sealed: Buffer.from(sealed),
    });
    const kept = (generation: number, sealed: string) => ({ generation, sealed: Buffer.from(sealed) });
    const other = await open();
    assert.equal(await store.issued('s', 1, 'n'), undefined);
    assert.deepEqual(await store.keepIssued(issue(1, 'a')), kept(1, 'a'));
    assert.deepEqual(await other.keepIssued(issue(1, 'b')), kept(1, 'a'));
    assert.deepEqual(await other.keepIssued(issue(2, 'c')), kept(2, 'c'));
    assert.deepEqual(await store.keepIssued(issue(1, 'd')), kept(2, 'c'), 'who comes late');
    assert.deepEqual(await store.issued('s', 1, 'n'), kept(2, 'c'));
    assert.equal(await store.issued('s', 2, 'n'), undefined);
  });

  test('a step is good once for a secret, for all who share the database', async () => {
    const other = await open();
    assert.deepEqual(await store.attempt(attempt(7)), { outcome: 'accepted' });
    assert.deepEqual(await other.attempt(attempt(7)), { outcome: 'used' });
    assert.deepEqual(await other.attempt(attempt(8)), { outcome: 'accepted' });
    assert.deepEqual(
      await store.attempt({ ...attempt(7), once: { secret: Buffer.from('another'), step: 7 } }),
      {
        outcome: 'accepted',
      },
    );
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

  test('a clock that is set back neither ends a pause nor lengthens it', async () => {
    for (let guess = 0; guess < 5; guess++) await store.attempt(attempt(undefined, 9_000_000));
    const throttled = { outcome: 'throttled', seconds: 30 };
    assert.deepEqual(await store.attempt(attempt(7, 1_000)), throttled);
    assert.deepEqual(await store.attempt(attempt(7, 31_000)), { outcome: 'accepted' });
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
    assert.equal(await store.admitProcess('s', process, 1), 0);
    assert.equal(await store.admitProcess('s', process, 1), undefined);
    assert.equal(await store.admitProcess('other', process, 1), 0);
    assert.equal(await store.admitProcess('s', Buffer.alloc(32, 2), 1), 0);
  });

  test('the history of a session is told backwards, a part at a time', async () => {
    for (const number of [1, 2, 3]) await store.addVersion(version('s', number, String(number)));
    await store.addVersion(version('s/below', 1, 'x'));
    const numbers = async (before: number, limit: number) =>
      (await store.heads('s', before, limit)).map(({ number }) => number);
    assert.deepEqual(await numbers(100, 2), [3, 2]);
    assert.deepEqual(await numbers(2, 2), [1]);
    const { sealed: _, ...head } = version('s', 1, '1');
    assert.deepEqual(await store.heads('s', 2, 1), [head]);
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

  test('a launch that was cut off may come again with its code, and nobody else', async () => {
    const mine = comer(1);
    assert.deepEqual(await store.attempt({ ...attempt(7), comer: mine }), { outcome: 'accepted' });
    const again = await (await open()).attempt({ ...attempt(7), comer: mine });
    assert.deepEqual(again, { outcome: 'accepted', repetition: 1 });
    for (const other of [comer(2), { ...mine, source: 'elsewhere' }, undefined])
      assert.deepEqual(await store.attempt({ ...attempt(7), comer: other }), { outcome: 'used' });
    assert.deepEqual(await store.attempt(attempt(8)), { outcome: 'accepted' });
    assert.deepEqual(await store.attempt(attempt(8)), { outcome: 'used' }, 'two without a name are two');
    const process = Buffer.alloc(32, 3);
    assert.equal(await store.admitProcess('s', process, 1, mine), 0);
    assert.equal(await store.admitProcess('s', process, 1, mine), 1);
    assert.equal(await store.admitProcess('s', process, 1, comer(2)), undefined);
  });

  test('once it has its answer it does not come again, nor when its time is over, nor for ever without one', async () => {
    const mine = comer(1);
    const other = await open();
    const [code, process] = [{ secret: Buffer.from('pseudonym'), step: 7 }, Buffer.alloc(32, 3)];
    await store.attempt({ ...attempt(7), comer: mine });
    await store.admitProcess('s', process, 1, mine);
    await other.complete({ table: 'one_time_password', key: code });
    await other.complete({ table: 'process', key: { session: 's', process } });
    assert.deepEqual(await store.attempt({ ...attempt(7), comer: mine }), { outcome: 'used' });
    assert.equal(await store.admitProcess('s', process, 1, mine), undefined);

    const hasty = { ...mine, patience: 10_000 };
    const times = [1_000_000, 1_009_999, 1_010_000];
    const outcomes: unknown[] = [];
    for (const now of times) outcomes.push(await store.attempt({ ...attempt(8, now), comer: hasty }));
    assert.deepEqual(outcomes, [
      { outcome: 'accepted' },
      { outcome: 'accepted', repetition: 1 },
      { outcome: 'used' },
    ]);

    const all: unknown[] = [];
    for (const now of [9, 9, 3, 12, 9]) all.push(await store.attempt({ ...attempt(9, now), comer: mine }));
    assert.deepEqual(all.slice(3), [{ outcome: 'accepted', repetition: 3 }, { outcome: 'used' }]);
    const at = Array.from({ length: 9 }, (_, time) => [store, other][time % 2]);
    const together = await Promise.all(at.map((it) => it?.attempt({ ...attempt(10), comer: mine })));
    assert.equal(together.filter((result) => result?.outcome === 'accepted').length, 4);
  });

  test('a launch that a replica of 0.1.0 has admitted comes to this one, and is one of this one then', async () => {
    const mine = { ...comer(1), patience: 10_000 };
    const row = { secret: Buffer.from('pseudonym'), step: 7, attempt: mine.launch };
    await database.run(
      'INSERT INTO one_time_password (secret, step, attempt, code) VALUES ($1, $2, $3, $4)',
      ...[row.secret, row.step, row.attempt, codeOfRow(authenticate, 'one_time_password', row)],
    );
    assert.deepEqual(await store.attempt({ ...attempt(7), comer: comer(2) }), { outcome: 'used' });
    const again = { outcome: 'accepted', repetition: 1 };
    assert.deepEqual(await store.attempt({ ...attempt(7), comer: mine }), again);
    // Which compares the whole of it.
    const [kept] = await database.all('SELECT secret, step, attempt, code FROM one_time_password');
    assert.ok(kept && isAuthentic(authenticate, 'one_time_password', kept));
    assert.notDeepEqual(kept.attempt, mine.launch);
    assert.deepEqual(await store.attempt({ ...attempt(7, 1_010_000), comer: mine }), { outcome: 'used' });
  });

  test('guesses at once are counted each, and a code at once is good once', async () => {
    const stores = [store, await open(), await open()];
    const guesses = await Promise.all(
      Array.from({ length: 12 }, (_, guess) => stores[guess % 3]?.attempt(attempt(undefined))),
    );
    assert.equal(guesses.filter((result) => result?.outcome === 'invalid').length, 5);
    assert.equal(guesses.filter((result) => result?.outcome === 'throttled').length, 7);
    const codes = await Promise.all(
      Array.from({ length: 12 }, (_, code) => stores[code % 3]?.attempt(attempt(9, 2_000_000, 'elsewhere'))),
    );
    assert.equal(codes.filter((result) => result?.outcome === 'accepted').length, 1);
  });

  test('a row that was changed, or written by somebody else, is named and not believed', async () => {
    await store.attempt(attempt(7));
    for (let guess = 0; guess < 3; guess++) await store.attempt(attempt(undefined));
    await store.enrol(Buffer.from('ek'), Buffer.from('ak'));
    const damaged = (row: string) => ({ code: 'STORE_DAMAGED', message: new RegExp(row) });
    await database.run('UPDATE wrong_code SET count = 0');
    await assert.rejects(store.attempt(attempt(undefined)), damaged('wrong_code session/service 192.0.2.1'));
    await database.run('UPDATE attestation_key SET name = $1', Buffer.from('other'));
    await assert.rejects(store.endorsementKey(Buffer.from('other')), damaged('attestation_key 656b'));
    await database.run(
      'INSERT INTO attestation_key (endorsement_key, name) VALUES ($1, $2)',
      Buffer.from('forged'),
      Buffer.from('own'),
    );
    await assert.rejects(store.endorsementKey(Buffer.from('own')), damaged('attestation_key'));
    await database.run('UPDATE one_time_password SET attempt = $1', Buffer.alloc(32, 1));
    await assert.rejects(
      store.attempt({ ...attempt(7, 2_000_000, 'elsewhere'), comer: comer(1) }),
      damaged('one_time_password'),
    );
  });

  test('a transaction happens whole or not at all, and nothing else becomes part of it', async () => {
    const name = (row: string) => database.all('SELECT value FROM state WHERE name = $1', row);
    const put = 'INSERT INTO state (name, value) VALUES ($1, $2)';
    const reached = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    const failing = database.transaction(async (statements) => {
      await statements.run(put, 'inside', Buffer.of(1));
      reached.resolve();
      await go.promise;
      throw new Error('no');
    });
    await reached.promise;
    const outside = database.run(put, 'outside', Buffer.of(2));
    go.resolve();
    await assert.rejects(failing, { message: 'no' });
    await outside;
    assert.equal((await name('inside')).length, 0);
    assert.equal((await name('outside')).length, 1);
    await assert.rejects(database.run(put, 'outside', Buffer.of(3)), Conflict);
    await assert.rejects(database.run('SELECT nothing FROM nowhere'), { code: 'STORE_UNAVAILABLE' });
  });

  test("transactions that are in each other's way all happen", async () => {
    const second = await openDatabase(address);
    opened.push(second);
    await database.run("INSERT INTO state (name, value) VALUES ('n', $1)", Buffer.from('0'));
    const add = (its: Database) =>
      its.transaction(async (statements) => {
        const [row] = await statements.all("SELECT value FROM state WHERE name = 'n'");
        await statements.run(
          "UPDATE state SET value = $1 WHERE name = 'n'",
          Buffer.from(String(Number(row?.value) + 1)),
        );
      });
    await Promise.all(Array.from({ length: 20 }, (_, at) => add(at % 2 ? database : second)));
    assert.equal(String((await database.all("SELECT value FROM state WHERE name = 'n'"))[0]?.value), '20');
  });

  test('how many sessions somebody has is counted by who created them', async () => {
    const creator = Buffer.alloc(32, 5);
    await store.addVersion({ ...version('a', 1, 'a'), creator });
    await store.addVersion({ ...version('a', 2, 'b'), creator });
    await store.addVersion({ ...version('b', 1, 'a'), creator });
    await store.addVersion(version('c', 1, 'a'));
    assert.equal(await store.sessionsOf(creator), 2);
    assert.equal(await store.sessionsOf(Buffer.alloc(32)), 0);
  });
});
