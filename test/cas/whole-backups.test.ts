import assert from 'node:assert/strict';
import { createReadStream, createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { afterEach, test } from 'node:test';
import fc from 'fast-check';
import { makeBackup, restoreBackup, restoreInto } from '../../src/cas/owner/backup.ts';
import { checkStore } from '../../src/cas/store/check.ts';
import type { Database } from '../../src/cas/store/database.ts';
import { eachRow } from '../../src/cas/store/dump.ts';
import { moveStore } from '../../src/cas/store/move.ts';
import { openDatabase } from '../../src/cas/store/open.ts';
import { nameOfRow } from '../../src/cas/store/sql.ts';
import { onEachEngine } from '../support/engines.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { type Counts, type WholeStore, wholeStore } from '../support/whole-store.ts';

/** Each row by its name, with a digest of it. */
async function contentOf(database: Database): Promise<Map<string, string>> {
  const content = new Map<string, string>();
  await database.snapshot((statements) =>
    eachRow(statements, (table, row) => {
      const values = Object.values(row).map((value) =>
        Buffer.isBuffer(value) ? value.toString('base64') : value,
      );
      content.set(nameOfRow(table, row), JSON.stringify(values));
    }),
  );
  return content;
}

/** What a restore adds to a store. */
const withoutRestore = (content: Map<string, string>, entries: number) =>
  [...content].filter(([name]) => name !== 'state restored' && name !== `audit_log ${entries + 1}`);

const entriesIn = (content: Map<string, string>) =>
  [...content.keys()].filter((name) => name.startsWith('audit_log ')).length;

onEachEngine('a whole store', (engine) => {
  const opened: Database[] = [];
  const open = async (address: string) => {
    const database = await openDatabase(address);
    opened.push(database);
    return database;
  };
  afterEach(async () => {
    for (const each of opened.splice(0)) await each.close();
  });

  const backed = ({ bare, database, keyring }: WholeStore) => ({
    ...{ database, keyring, audit: bare.cas.audit, log: bare.cas.log },
  });
  const goThroughAll = async (counts: Counts) => {
    const store = await wholeStore(await open(await engine.address()), counts);
    const { database, keyring, bare } = store;
    const before = await contentOf(database);
    const entries = entriesIn(before);
    assert.deepEqual((await checkStore(database, keyring)).problems, []);

    const moved = await open(await engine.address());
    await moveStore(database, moved);
    assert.deepEqual(await contentOf(moved), before);
    await database.run("DELETE FROM state WHERE name = 'moved'");

    const backup = join(temporaryFolder(), 'backup');
    await pipeline(makeBackup(backed(store), bare.now), createWriteStream(backup));
    await bare.upload('name: mistake\nversion: "0.3"\n');
    for (const round of [1, 2]) {
      await restoreBackup(backed(store), createReadStream(backup));
      const after = await contentOf(database);
      assert.deepEqual(withoutRestore(after, entries), [...before], `round ${round}`);
      assert.deepEqual((await checkStore(database, keyring)).problems, []);
    }
    const again = await open(await engine.address());
    await restoreInto(again, backup, async () => keyring);
    assert.deepEqual(withoutRestore(await contentOf(again), entries), [...before]);
    assert.deepEqual((await checkStore(again, keyring)).problems, []);
  };

  test('of any size comes back as it was from a backup, and from a move', async () => {
    const count = fc.nat(4);
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          ...{ sessions: fc.integer({ min: 1, max: 4 }), versions: fc.integer({ min: 1, max: 3 }) },
          ...{ bytes: fc.constantFrom(0, 10, 100_000), others: count, entries: fc.constantFrom(0, 1, 300) },
        }),
        goThroughAll,
      ),
      { numRuns: engine.name === 'SQLite' ? 10 : 3 },
    );
  });

  test('with rows as large as any becomes a backup that is restored', async () => {
    await goThroughAll({ sessions: 1, versions: 1, bytes: 12_000_000, others: 1, entries: 1 });
  });

  test('with more rows than are read at a time goes through as well', async () => {
    await goThroughAll({ sessions: 1, versions: 1, bytes: 0, others: 3, entries: 1203 });
  });
});
