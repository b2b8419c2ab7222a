import assert from 'node:assert/strict';
import { createPublicKey } from 'node:crypto';
import { afterEach, beforeEach, test } from 'node:test';
import { beginning, type Entry, verifyEntry } from '../../src/audit/entry.ts';
import { append, emptyFrontier, leafHash, rootOf } from '../../src/audit/merkle-tree.ts';
import { checkHead, type RememberedLog } from '../../src/audit/tree-head.ts';
import { type AuditLog, type News, openAuditLog } from '../../src/cas/audit-log.ts';
import { keyring, makeMasterKeys } from '../../src/cas/keyring.ts';
import type { Database } from '../../src/cas/store/database.ts';
import { openDatabase } from '../../src/cas/store/open.ts';
import { openState } from '../../src/cas/store/sql.ts';
import { onEachEngine } from '../support/engines.ts';

const keys = keyring(makeMasterKeys());
const cas = Buffer.alloc(32, 7);

onEachEngine('an audit log', (engine) => {
  let address: string;
  let database: Database;
  let log: AuditLog;
  const opened: Database[] = [];
  /** As another process would. */
  const open = async (its?: Database) => {
    const own = its ?? (await openDatabase(address));
    if (!its) opened.push(own);
    return openAuditLog({ database: own, store: openState(own), keyring: keys, cas, clock: Date.now });
  };
  beforeEach(async () => {
    address = await engine.address();
    log = await open();
    database = opened[0] as Database;
  });
  afterEach(async () => {
    for (const each of opened.splice(0)) await each.close();
  });
  const read = (number: number) => ({ operation: 'session_read', session: `s${number}` }) as const;

  /** Reads it from its beginning as an auditor does, and gives the root. */
  const audit = async () => {
    let position = beginning;
    let frontier = emptyFrontier;
    for (const line of await log.lines(1, 1_000_000)) {
      const { sequence, signature } = verifyEntry(line, position, createPublicKey(log.key));
      position = { sequence, signature };
      frontier = append(frontier, leafHash(line));
    }
    return { size: position.sequence, root: rootOf(frontier).toString('hex') };
  };
  const check = (answer: Awaited<ReturnType<AuditLog['head']>>, before?: RememberedLog) =>
    checkHead(answer, cas, before, 'cas');

  test('is a chain of signed entries, whose head is the root over them', async () => {
    assert.equal((await log.head()).head.size, 0);
    for (let number = 1; number <= 3; number++) await log.record(read(number));
    const { head } = await log.head();
    assert.deepEqual({ size: head.size, root: head.root }, await audit());
    assert.match(
      String((await log.lines(2, 1))[0]),
      /^\{"sequence":2,.*"session":"s2",.*"signature":"\w{128}"\}$/,
    );
  });

  test('is one for all who write it at once, and none of what was recorded is missing', async () => {
    const logs = [log, await open(), await open()];
    await Promise.all(
      logs.flatMap((each, who) =>
        Array.from({ length: 300 }, (_, number) => each.record(read(who * 1000 + number))),
      ),
    );
    const { size } = await audit();
    assert.equal(size, 900);
    const sessions = new Set((await log.lines(1, 1000)).map((line) => JSON.parse(String(line)).session));
    assert.equal(sessions.size, 900);
    for (const each of logs) assert.equal((await each.head()).head.size, 900);
  });

  test('is proven to extend whatever was seen of it, by all processes and after a new start', async () => {
    const seen: RememberedLog[] = [];
    for (let number = 0; number < 20; number++) {
      await Promise.all(
        Array.from({ length: 1 + ((number * 13) % 67) }, (_, entry) => log.record(read(entry))),
      );
      seen.push(check(await log.head()));
    }
    const again = await open();
    await again.record(read(0));
    for (const before of seen) {
      assert.equal(check(await again.head(before.size), before).size, (seen.at(-1)?.size ?? 0) + 1);
      assert.equal(check(await log.head(before.size), before).size, (seen.at(-1)?.size ?? 0) + 1);
    }
  });

  test('one that was set back, or is another, is told from one that goes on', async () => {
    for (let number = 1; number <= 300; number++) await log.record(read(number));
    const before = check(await log.head());
    await database.run('DELETE FROM audit_log WHERE sequence > 290');
    const back = await open();
    const set = { code: 'CAS_ROLLED_BACK', message: /audit log of 290 entries does not begin with the 300/ };
    const now = await back.head(before.size);
    assert.throws(() => check(now, before), set);
    for (let number = 1; number <= 20; number++) await back.record(read(number));
    const longer = await back.head(before.size);
    assert.throws(() => check(longer, before), { code: 'CAS_ROLLED_BACK' });
    assert.throws(() => check({ ...longer, key: before.key.replace('M', 'N') }, before), {
      code: 'CAS_PROTOCOL',
    });
    assert.throws(() => checkHead(longer, Buffer.alloc(32), before, 'cas'), { code: 'CAS_PROTOCOL' });
  });

  test('a process under which it was set back does not go on as if nothing had been', async () => {
    for (let number = 1; number <= 10; number++) await log.record(read(number));
    const before = check(await log.head());
    await database.run('DELETE FROM audit_log WHERE sequence > 5');
    await log.record(read(11));
    assert.equal((await audit()).size, 6);
    const now = await log.head(before.size);
    assert.throws(() => check(now, before), { code: 'CAS_ROLLED_BACK' });
  });

  test('any bit that is changed in it is noticed when it is opened or read, with the entry', async () => {
    for (let number = 1; number <= 3; number++) await log.record(read(number));
    const [row] = await database.all('SELECT line FROM audit_log WHERE sequence = 2');
    const line = row?.line as Buffer;
    for (let at = 0; at < line.length; at += 3) {
      const changed = Buffer.from(line);
      changed[at] = (changed[at] ?? 0) ^ 1;
      await database.run('UPDATE audit_log SET line = $1 WHERE sequence = 2', changed);
      await assert.rejects(open(database), { code: 'AUDIT_LOG_DAMAGED' }, `byte ${at}`);
      await assert.rejects(audit(), { code: 'AUDIT_LOG_DAMAGED', message: /^entry [23] / }, `byte ${at}`);
    }
  });

  test('what is done together with an entry is done only if that is written', async () => {
    const put = 'INSERT INTO state (name, value) VALUES ($1, $2)';
    const done = await log.recordWith(async (statements) => {
      await statements.run(put, 'a', Buffer.of(1));
      return { result: 'done', entries: [read(1)] };
    });
    assert.equal(done, 'done');
    const other = await open();
    await other.record(read(2));
    // Slower than the other one, so it happens again, and then once.
    await log.recordWith(async (statements) => {
      await statements.run(put, 'b', Buffer.of(1));
      return { result: undefined, entries: [read(3)] };
    });
    await assert.rejects(
      log.recordWith(async (statements) => {
        await statements.run(put, 'c', Buffer.of(1));
        throw new Error('no');
      }),
      { message: 'no' },
    );
    const names = (await database.all("SELECT name FROM state WHERE name < 'd' ORDER BY name"))
      .map(({ name }) => name)
      .filter((name) => String(name).length === 1);
    assert.deepEqual(names, ['a', 'b']);
    assert.equal((await audit()).size, 3);
  });

  test('what fails in one is no burden for the next, also where nothing is known of the log any more', async () => {
    await log.record(read(1));
    const failing = Object.assign(new Error('the disk is full'), { code: 'STORE_UNAVAILABLE' });
    for (let number = 2; number <= 4; number++) {
      await assert.rejects(
        log.recordWith(() => Promise.reject(failing)),
        { message: failing.message },
      );
      await log.recordWith(async () => ({ result: undefined, entries: [read(number)] }));
    }
    assert.equal((await audit()).size, 4);
  });

  test('one that was put in its place, as long or longer, is gone on with, and not with what was before', async () => {
    const other = openAuditLog({
      ...{ database, store: openState(database), keyring: keys, cas: Buffer.alloc(32, 8), clock: Date.now },
    });
    for (let number = 1; number <= 3; number++) await log.record(read(number));
    const lines = await database.all('SELECT sequence, line FROM audit_log ORDER BY sequence');
    await log.record(read(4));
    // As after a restore: entries 1 to 3 as they were, and another 4.
    await database.run('DELETE FROM audit_log WHERE sequence > 3');
    await (await other).record(read(44));
    await log.record(read(5));
    await log.recordWith(async () => ({ result: undefined, entries: [read(6)] }));
    const now = await log.lines(1, 10);
    assert.equal((await audit()).size, 6);
    assert.deepEqual(
      now.slice(0, 3).map(String),
      lines.map(({ line }) => String(line)),
    );
    assert.match(String(now[3]), /"s44"/);
  });

  /** What a process hears of. */
  const hear = async (its: AuditLog): Promise<News> => {
    const heard: News[] = [];
    await its.news(async (news) => void heard.push(news));
    return heard[0] as News;
  };

  test('all hear of what they have to know, once, and of sessions only what others have stored', async () => {
    const other = await open();
    await log.record({ operation: 'session_updated', session: 'a' });
    await log.record(read(1));
    await other.record({ operation: 'session_created', session: 'b' });
    const heard = async (its: AuditLog) => (await hear(its)).entries.map(({ session }) => session);
    assert.deepEqual(await heard(log), ['b']);
    assert.deepEqual(await heard(other), ['a']);
    assert.deepEqual(await heard(log), []);
    await database.run('DELETE FROM audit_log WHERE sequence > 1');
    assert.deepEqual(await hear(other), { entries: [], replaced: true });
    assert.deepEqual(await hear(other), { entries: [], replaced: false });
  });

  test('who has stored another configuration hears of it as others do', async () => {
    const other = await open();
    await log.record({ operation: 'owner_configuration_updated', version: 2 });
    for (const each of [log, other])
      assert.deepEqual(
        (await hear(each)).entries.map(({ operation }) => operation),
        ['owner_configuration_updated'],
      );
  });

  test('what nobody could react to is heard of again, a log that was replaced too', async () => {
    const other = await open();
    const fail = () => other.news(() => Promise.reject(new Error('away')));
    await log.record({ operation: 'session_updated', session: 'a' });
    await log.record({ operation: 'owner_configuration_updated', version: 2 });
    await assert.rejects(fail(), { message: 'away' });
    assert.equal((await hear(other)).entries.length, 2);
    assert.equal((await hear(other)).entries.length, 0);
    await other.head();
    await database.run('DELETE FROM audit_log WHERE sequence > 1');
    await assert.rejects(fail(), { message: 'away' });
    assert.equal((await hear(other)).replaced, true);
    assert.equal((await hear(other)).replaced, false);
  });

  test('after another log took its place all hear of changes again, also who has written to that one', async () => {
    const other = await open();
    for (let version = 1; version <= 8; version++) {
      await log.record({ operation: 'owner_configuration_updated', version });
      await hear(other);
    }
    await database.run('DELETE FROM audit_log WHERE sequence > 2');
    // It finds the shorter log by itself when it writes.
    await other.record(read(1));
    assert.equal((await hear(other)).replaced, true);
    await log.record({ operation: 'owner_configuration_updated', version: 9 });
    assert.deepEqual(
      (await hear(other)).entries.map(({ operation }) => operation),
      ['owner_configuration_updated'],
    );
  });

  test('what was done after a restore is heard of together with that', async () => {
    const other = await open();
    for (let number = 1; number <= 4; number++) await log.record(read(number));
    await other.head();
    await hear(other);
    await database.run('DELETE FROM audit_log WHERE sequence > 2');
    await log.record({ operation: 'store_restored' });
    await database.run("INSERT INTO state (name, value) VALUES ('restored', $1)", Buffer.from('3'));
    await log.record({ operation: 'cas_sealed', certificate: 'a' });
    const { entries, replaced } = await hear(other);
    assert.deepEqual(
      { replaced, heard: entries.map(({ operation }) => operation) },
      { replaced: true, heard: ['cas_sealed'] },
    );
  });

  test('who has another write for him hears of a log that was put in its place, and what comes then', async () => {
    await log.record(read(1));
    const its = await openDatabase(address);
    opened.push(its);
    const recorder = (entry: Entry) => log.record(entry);
    const kept = { database: its, store: openState(its), keyring: keys, cas, clock: Date.now };
    const worker = await openAuditLog({ ...kept, recorder });
    for (const session of ['a', 'b', 'c']) await log.record({ operation: 'session_updated', session });
    const heard = async () => (await hear(worker)).entries.map(({ session }) => session);
    assert.deepEqual(await heard(), ['a', 'b', 'c']);
    // A restore of what is shorter, which begins in the same way.
    await database.run('DELETE FROM audit_log WHERE sequence > 1');
    const restored = await open();
    await restored.record({ operation: 'session_updated', session: 'd' });
    assert.deepEqual(await hear(worker), { entries: [], replaced: true });
    await restored.record({ operation: 'session_updated', session: 'e' });
    assert.deepEqual(await heard(), ['e']);
  });

  test('refusals beyond a number are counted, and not written one by one', async () => {
    const refuse = () => log.recordRefusal({ operation: 'service_refused', code: 'X' });
    await Promise.all(Array.from({ length: 500 }, refuse));
    const { size } = await audit();
    assert.ok(size >= 50 && size < 60, String(size));
    // After half a second there is room for one more, which tells how many are not there.
    await new Promise((resolve) => setTimeout(resolve, 700));
    await refuse();
    const lines = (await log.lines(size + 1, 10)).map((line) => JSON.parse(String(line)));
    assert.deepEqual(
      lines.map(({ operation, count }) => ({ operation, count })),
      [
        { operation: 'refusals_omitted', count: 500 - size },
        { operation: 'service_refused', count: undefined },
      ],
    );
  });
});
