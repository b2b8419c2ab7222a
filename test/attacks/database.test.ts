import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Database } from '../../src/cas/store/database.ts';
import { isEmpty } from '../../src/cas/store/dump.ts';
import { moveStore } from '../../src/cas/store/move.ts';
import { openDatabase } from '../../src/cas/store/open.ts';
import { type Engine, onEachEngine } from '../support/engines.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { executables, run } from '../support/stack.ts';

/** What who administers a database puts in the place of tables. */

/** A view that has rows without an end, where the audit log was. */
const endless = {
  SQLite: `CREATE VIEW audit_log AS
    WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number)
    SELECT n AS sequence, x'00' AS line, NULL AS tree, 0 AS news FROM number`,
  PostgreSQL: `CREATE VIEW audit_log AS SELECT n AS sequence, '\\x00'::bytea AS line, NULL::bytea AS tree, 0::bigint AS news
    FROM generate_series(1::bigint, 1000000000000) AS n`,
};

async function withEndlessView({ name, address }: Engine): Promise<string> {
  const at = await address();
  const database = await openDatabase(at);
  await database.run('INSERT INTO state (name, value) VALUES ($1, $2)', 'identity', Buffer.of(1));
  await database.run('DROP TABLE audit_log');
  await database.run(endless[name]);
  await database.close();
  return at;
}

async function isUntouched(address: string): Promise<boolean> {
  const database = await openDatabase(address);
  const empty = await isEmpty(database);
  await database.close();
  return empty;
}

onEachEngine('a view without an end in the place of a table', (engine) => {
  const scone = (folder: string, ...args: string[]) =>
    run('timeout', ['120', executables().scone, ...args], { PATH: process.env.PATH, HOME: folder });

  test('is not moved: that is told at once, and where it was to go stays empty', async () => {
    const folder = temporaryFolder();
    const from = await withEndlessView(engine);
    for (const to of [await engine.address(), `sqlite:${join(folder, 'to.db')}`]) {
      const { status, stderr } = scone(folder, 'cas', 'migrate', '--from', from, '--to', to);
      assert.equal(status, 74, stderr);
      assert.match(stderr, /audit_log is no table, but: view\n[\s\S]*Code: STORE_DAMAGED/);
      assert.ok(to.startsWith('postgres') || !existsSync(to.slice(7)) || (await isUntouched(to)));
    }
  });

  test('is not looked at, nor opened by a CAS', async () => {
    const folder = temporaryFolder();
    const store = await withEndlessView(engine);
    for (const args of [
      ['check-store', '--dir', folder],
      ['rekey', '--dir', folder, '--shares', '2/3'],
      ['serve', '--dir', folder, '--api-port', '0', '--enclave-port', '0', '--workers', '1'],
    ]) {
      const { status, stderr } = scone(folder, 'cas', ...args, '--store', store);
      assert.equal(status, 74, stderr);
      assert.match(stderr, /audit_log is no table/);
    }
  });

  test('takes nothing that is moved, or restored, into it', async () => {
    const folder = temporaryFolder();
    const store = await withEndlessView(engine);
    const from = join(folder, 'from.db');
    await (await openDatabase(`sqlite:${from}`)).close();
    for (const args of [
      ['migrate', '--from', `sqlite:${from}`, '--to', store],
      ['restore', '--dir', folder, '--store', store, from],
    ])
      assert.match(scone(folder, 'cas', ...args).stderr, /audit_log is no table/);
  });

  test('leaves a store that could not be marked as moved the only one', async () => {
    const from = await openDatabase(await engine.address());
    const to = await openDatabase(await engine.address());
    await from.run('INSERT INTO state (name, value) VALUES ($1, $2)', 'identity', Buffer.of(1));
    const unmarkable: Database = {
      ...from,
      run: async () => {
        throw new Error('the disk is full');
      },
    };
    await assert.rejects(moveStore(unmarkable, to), /the disk is full/);
    assert.equal(await isEmpty(to), true);
    assert.equal(await moveStore(from, to), 1);
    await from.close();
    await to.close();
  });
});

test('a virtual table is none either, and a pipe is no store', async () => {
  const folder = temporaryFolder();
  const at = `sqlite:${join(folder, 'cas.db')}`;
  const database = await openDatabase(at);
  await database.run('DROP TABLE collateral');
  await database.run('CREATE VIRTUAL TABLE collateral USING fts5(key, issued, until, kept, content, code)');
  await database.close();
  await assert.rejects(openDatabase(at), {
    code: 'STORE_DAMAGED',
    message: /collateral is no table, but: virtual/,
  });
  const pipe = join(folder, 'pipe');
  assert.equal(spawnSync('mkfifo', ['-m', '600', pipe]).status, 0);
  const { status, stderr } = run(
    'timeout',
    ['120', executables().scone, 'cas', 'migrate', '--from', `sqlite:${pipe}`, '--to', 'sqlite:/dev/null/x'],
    { PATH: process.env.PATH, HOME: folder },
  );
  assert.equal(status, 74, stderr);
  assert.match(stderr, /it is not a regular file/);
});
