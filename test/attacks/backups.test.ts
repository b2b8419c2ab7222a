import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, test } from 'node:test';
import fc from 'fast-check';
import { checkHead } from '../../src/audit/tree-head.ts';
import { openCas } from '../../src/cas/open-cas.ts';
import { makeBackup, restoreBackup, restoreInto, type WithoutCode } from '../../src/cas/owner/backup.ts';
import { readOwner } from '../../src/cas/owner/owner.ts';
import type { Database } from '../../src/cas/store/database.ts';
import { dump, isEmpty } from '../../src/cas/store/dump.ts';
import { openDatabase } from '../../src/cas/store/open.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { type WholeStore, wholeStore } from '../support/whole-store.ts';

/** What is done to a backup by who hands it to an owner, and has no key. */

let database: Database;
let store: WholeStore;
let lines: string[];
const backed = () => ({
  ...{ database, keyring: store.keyring, audit: store.bare.cas.audit, log: store.bare.cas.log },
});
const backup = async () => (await text(makeBackup(backed(), store.bare.now))).split('\n').slice(0, -1);
/** All rows of the database, as lines. */
const content = async () => {
  const all: string[] = [];
  await dump(database, { seal: (plaintext) => plaintext }, async (line) => void all.push(line), 0);
  return all.join('');
};
/** With an end that is right, which anybody can make. */
const ended = (some: readonly string[]): string => {
  const all = some.map((line) => `${line}\n`).join('');
  const end = { rows: some.length - 1, sha256: createHash('sha256').update(all).digest('hex') };
  return `${all}${JSON.stringify(end)}\n`;
};
const restore = (its: string, withoutCode?: WithoutCode) =>
  restoreBackup(backed(), Readable.from([its]), withoutCode);

beforeEach(async () => {
  database = await openDatabase('sqlite::memory:');
  store = await wholeStore(database, { sessions: 3, versions: 3, bytes: 10, others: 2, entries: 5 });
  lines = await backup();
  await store.bare.upload('name: later\nversion: "0.3"\n');
});
afterEach(() => database.close());

const rowsOf = (its: readonly string[]) => its.slice(1, -2);
const codeOf = (its: readonly string[]) => its.at(-2) ?? '';
const isRow = (table: string, name: string) => (line: string) => line.startsWith(`["${table}","${name}"`);

test('a backup that is edited in any way is refused, and nothing is changed', async () => {
  const before = await content();
  const [head = ''] = lines;
  const rows = rowsOf(lines);
  const at = fc.nat(rows.length - 1);
  const edits = fc.oneof(
    at.map((index) => ['a row less', rows.toSpliced(index, 1)] as const),
    at.map((index) => ['a row doubled', rows.toSpliced(index, 0, rows[index] ?? '')] as const),
    fc
      .tuple(at, at)
      .filter(([one, other]) => rows[one] !== rows[other])
      .map(([one, other]) => {
        const changed = rows.toSpliced(one, 1, rows[other] ?? '').toSpliced(other, 1, rows[one] ?? '');
        return ['rows in another order', changed] as const;
      }),
    fc
      .tuple(at, fc.nat(1000), fc.constantFrom(...'0123456789abcdefAZ+/", '))
      .map(([index, place, character]) => {
        const row = rows[index] ?? '';
        const where = place % row.length;
        return [
          'a row changed',
          rows.toSpliced(index, 1, row.slice(0, where) + character + row.slice(where + 1)),
        ] as const;
      })
      .filter(([, changed]) => changed.join() !== rows.join()),
    at.map((index) => ['cut', rows.slice(0, index)] as const),
    fc.constant(['a row more', ['["state","other",{"base64":"AAAA"}]', ...rows]] as const),
  );
  await fc.assert(
    fc.asyncProperty(edits, async ([what, edited]) => {
      for (const code of [[codeOf(lines)], []])
        await assert.rejects(
          restore(ended([head, ...edited, ...code])),
          { code: /^(BACKUP_INVALID|BACKUP_WITHOUT_CODE|STORE_DAMAGED)$/ },
          what,
        );
    }),
    { numRuns: 100 },
  );
  assert.equal(await content(), before);
});

test('a code of another backup, or of another time, is good for none', async () => {
  const later = await backup();
  const before = await content();
  const [head = ''] = lines;
  for (const made of [
    ended([head, ...rowsOf(lines), codeOf(later)]),
    ended([JSON.stringify({ ...JSON.parse(head), created: 1 }), ...rowsOf(lines), codeOf(lines)]),
    ended([head, codeOf(lines), ...rowsOf(lines)]),
    ended([head, ...rowsOf(lines), codeOf(lines), codeOf(lines)]).replace(/\n$/, '\n{}\n'),
  ])
    await assert.rejects(restore(made), { code: /^BACKUP_/ });
  assert.equal(await content(), before);
  await restore(`${lines.join('\n')}\n`);
});

test('without a code it is taken only by who says so, who is shown first what it changes', async () => {
  const { cas } = store.bare;
  const [head = ''] = lines;
  const codeless = ended([head, ...rowsOf(lines)]);
  await assert.rejects(restore(codeless), { code: 'BACKUP_WITHOUT_CODE' });
  assert.deepEqual((await restore(codeless, 'listed')).changes, []);
  const before = await content();

  // A registration is taken out, with the entry of the log that tells of it unseen.
  const less = rowsOf(lines).filter((line) => !isRow('state', 'registrations-2')(line));
  const { changes } = await restore(ended([head, ...less]), 'listed');
  assert.equal(changes.length, 1);
  assert.match(changes[0] ?? '', /^- registration: .*"name":"other"/);
  assert.equal(await content(), before, 'a list changes nothing');
  await restore(codeless, 'taken');
  assert.notEqual(await content(), before);
  assert.ok(await readOwner(cas));
});

test('what a CAS cannot do without is missed in it, also by who takes one without a code', async () => {
  const before = await content();
  const [head = ''] = lines;
  for (const name of ['seal', 'identity', 'audit-log-key', 'owner'])
    await assert.rejects(
      restore(ended([head, ...rowsOf(lines).filter((line) => !isRow('state', name)(line))]), 'taken'),
      { code: 'STORE_DAMAGED' },
      name,
    );
  for (const row of ['["state","moved",{"base64":"AAAA"}]', '["state","restoring",{"base64":"AAAA"}]'])
    await assert.rejects(restore(ended([head, row, ...rowsOf(lines)]), 'taken'), { code: 'STORE_DAMAGED' });
  const noLog = rowsOf(lines).filter((line) => !line.startsWith('["audit_log"'));
  await assert.rejects(restore(ended([head, ...noLog]), 'taken'), /audit_log: it is missing/);
  const noCodes = noLog.map((line) =>
    /^\["(process|attestation_key|collateral)"/.test(line) ? line.replace(/,\{[^{]*\}\]$/, ',null]') : line,
  );
  await assert.rejects(restore(ended([head, ...noCodes]), 'taken'), /was not written by this CAS/);
  assert.equal(await content(), before);
});

test('into an empty database nothing is put before all of it was looked at', async () => {
  const path = join(temporaryFolder(), 'backup');
  const [head = ''] = lines;
  const empty = await openDatabase('sqlite::memory:');
  const open = async () => store.keyring;
  for (const edited of [
    ended([head, ...rowsOf(lines).slice(0, -1), codeOf(lines)]),
    ended([head, ...rowsOf(lines)]),
  ]) {
    writeFileSync(path, edited);
    await assert.rejects(restoreInto(empty, path, open), { code: /^BACKUP_/ });
    assert.equal(await isEmpty(empty), true);
  }
  writeFileSync(path, `${lines.join('\n')}\n`);
  const strange = await openDatabase('sqlite::memory:');
  await strange.run("INSERT INTO process (session, process) VALUES ('s', $1)", Buffer.of(1));
  await assert.rejects(restoreInto(strange, path, open), { code: 'STORE_NOT_EMPTY' });
  await restoreInto(empty, path, open);
  await empty.close();
  await strange.close();
});

test('a restore that nobody has made is not believed', async () => {
  const facts = Buffer.from(JSON.stringify({ created: 1, rows: 1, sha256: 'ab'.repeat(32) }));
  await database.run("INSERT INTO state (name, value) VALUES ('restoring', $1)", facts);
  const options = {
    ...{ directory: '/nowhere', host: '', apiPort: 0, enclavePort: 0, names: [], trustedPlatforms: [] },
    ...{ lasSocket: '', log: store.bare.cas.log },
  };
  await assert.rejects(openCas(database, options), { code: 'RESTORE_UNFINISHED' });
  const { restored } = await store.bare.cas.audit.head();
  assert.equal(restored, undefined);
});

test('one backup that is restored twice is told as a restore each time, and once', async () => {
  const { cas } = store.bare;
  const see = async (before?: Parameters<typeof checkHead>[2]) =>
    checkHead(await cas.audit.head(before?.size), cas.key, before, 'cas');
  let seen = await see();
  for (const day of [1, 2]) {
    store.bare.now += day * 86_400_000;
    await restore(`${lines.join('\n')}\n`);
    await assert.rejects(see(seen), { code: 'CAS_RESTORED' });
    // Who attests the CAS again accepts it.
    seen = await see();
    await cas.audit.record({ operation: 'session_read' });
    seen = await see(seen);
  }
  // The store is put back to the first of them, without a restore.
  const known = { ...seen, restoredAt: new Date(store.bare.now + 1).toISOString(), root: '00'.repeat(32) };
  await assert.rejects(see(known), { code: 'CAS_ROLLED_BACK' });
});
