import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, test } from 'node:test';
import type { Database, Row, Statements } from '../../src/cas/store/database.ts';
import { columnsOf, dump, eachRow, readDump, rowWriter } from '../../src/cas/store/dump.ts';
import { type Table, tables } from '../../src/cas/store/migrations.ts';
import { moveStore } from '../../src/cas/store/move.ts';
import { openDatabase } from '../../src/cas/store/open.ts';
import { onEachEngine } from '../support/engines.ts';

const NOW = Date.UTC(2026, 0, 1);

async function* linesOf(text: string) {
  yield* text.split('\n').slice(0, -1);
}

/** Seals nothing, so that texts can be compared. */
const bare = { seal: (plaintext: Buffer) => plaintext, open: (sealed: Buffer) => sealed };

async function textOf(database: Database): Promise<string> {
  const lines: string[] = [];
  await dump(database, bare, async (line) => void lines.push(line), NOW);
  return lines.join('');
}

/** Some rows of every table, with whatever may stand in them. */
async function fill(database: Database): Promise<void> {
  await database.transaction(async (statements) => {
    const writer = rowWriter(statements);
    const kinds = await kindsOf();
    for (const table of Object.keys(tables) as Table[])
      for (let number = 1; number <= 1203; number++) {
        const row: Row = {};
        for (const column of columnsOf(table)) {
          const kind = kinds[`${table}.${column}`];
          if (kind === 'BLOB') row[column] = Buffer.concat([Buffer.of(number >> 8, number), randomBytes(5)]);
          else row[column] = kind === 'TEXT' ? `${'é/'.repeat(number % 3)}${number}` : number;
        }
        await writer.add(table, row);
      }
    await writer.flush();
  });
}

/** What the columns hold, as SQLite says it. */
async function kindsOf(): Promise<Record<string, string>> {
  const database = await openDatabase('sqlite::memory:');
  const kinds: Record<string, string> = {};
  for (const table of Object.keys(tables))
    for (const { name, type } of await database.all(`SELECT name, type FROM pragma_table_info('${table}')`))
      kinds[`${table}.${name}`] = String(type);
  await database.close();
  return kinds;
}

test('every column of every table is moved', async () => {
  const kinds = Object.keys(await kindsOf()).sort();
  const moved = (Object.keys(tables) as Table[]).flatMap((table) =>
    columnsOf(table).map((column) => `${table}.${column}`),
  );
  assert.deepEqual(moved.sort(), kinds);
});

onEachEngine('what is kept', (engine) => {
  let database: Database;
  const opened: Database[] = [];
  const open = async (address: string) => {
    const its = await openDatabase(address);
    opened.push(its);
    return its;
  };
  beforeEach(async () => {
    database = await open(await engine.address());
  });
  afterEach(async () => {
    for (const each of opened.splice(0)) await each.close();
  });

  test('is written as lines, and read again as it was', async () => {
    await fill(database);
    const text = await textOf(database);
    const other = await open(await engine.address());
    await other.transaction(async (statements) => {
      const writer = rowWriter(statements);
      const { rows, created } = await readDump(linesOf(text), (table, row) => writer.add(table, row));
      await writer.flush();
      assert.equal(rows, 1203 * Object.keys(tables).length);
      assert.equal(created, NOW);
    });
    assert.equal(await textOf(other), text);
  });

  test('is moved to a database of either kind, once', async () => {
    await fill(database);
    const text = await textOf(database);
    const inMemory = await open('sqlite::memory:');
    await moveStore(database, inMemory);
    assert.equal(await textOf(inMemory), text);
    await assert.rejects(moveStore(database, await open('sqlite::memory:')), { code: 'STORE_MOVED' });
    const back = await open(await engine.address());
    await moveStore(inMemory, back);
    assert.equal(await textOf(back), text);
    await assert.rejects(moveStore(back, database), { code: 'STORE_NOT_EMPTY' });
  });

  test('is read and written a few megabytes at a time, however large its rows are', async () => {
    const most = 8 * 1024 * 1024;
    const [rows, large] = [9, 3 * 1024 * 1024];
    const counted: number[] = [];
    const bytesOf = (values: unknown[]) =>
      values.reduce<number>((sum, value) => sum + (Buffer.isBuffer(value) ? value.length : 0), 0);
    const counting = (its: Statements): Statements => ({
      async all(sql, ...values) {
        const found = await its.all(sql, ...values);
        counted.push(bytesOf(found.flatMap((row) => Object.values(row))));
        return found;
      },
      run(sql, ...values) {
        counted.push(bytesOf(values));
        return its.run(sql, ...values);
      },
    });
    for (const size of [large, most + 1])
      await database.transaction(async (statements) => {
        const writer = rowWriter(counting(statements));
        for (let number = 1; number <= rows; number++)
          await writer.add('issued', {
            ...{ session: `s${size}`, number, name: 'n', generation: 1, sealed: Buffer.alloc(size) },
          });
        await writer.flush();
      });
    let read = 0;
    await eachRow(counting(database), () => void read++);
    assert.equal(read, 2 * rows);
    // One row alone may have more.
    assert.deepEqual([...new Set(counted.filter((bytes) => bytes > most))], [most + 1]);
  });

  test('is read as of one moment, while others write', async () => {
    const put = (name: string) =>
      database.run('INSERT INTO state (name, value) VALUES ($1, $2)', name, Buffer.of(1));
    await put('before');
    const seen: string[] = [];
    await database.snapshot(async (statements) => {
      await statements.all('SELECT name FROM state');
      await put('meanwhile');
      await eachRow(statements, (_table, row) => void seen.push(String(row.name)));
    });
    assert.deepEqual(seen, ['before']);
    assert.equal((await database.all('SELECT name FROM state')).length, 2);
  });
});

test('whatever is changed in the lines is noticed, with the line', async () => {
  const database = await openDatabase('sqlite::memory:');
  for (const name of ['a', 'b', 'c'])
    await database.run('INSERT INTO state (name, value) VALUES ($1, $2)', name, Buffer.from(name));
  const text = await textOf(database);
  await database.close();
  const read = (changed: string) => readDump(linesOf(changed), () => {});
  assert.equal((await read(text)).rows, 3);
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at++) {
    const flipped = Buffer.from(bytes);
    flipped[at] = (flipped[at] ?? 0) ^ 1;
    await assert.rejects(read(flipped.toString('latin1')), { code: 'BACKUP_INVALID' }, `byte ${at}`);
  }
  const lines = text.split('\n');
  for (let count = 0; count < lines.length - 1; count++)
    await assert.rejects(
      read(
        lines
          .slice(0, count)
          .map((line) => `${line}\n`)
          .join(''),
      ),
      {
        code: 'BACKUP_INVALID',
      },
    );
  await assert.rejects(read(`${text}{}\n`), { message: /^line 7 .*after the end/ });
  await assert.rejects(read(lines.toSpliced(2, 1).join('\n')), { message: /3 rows came before/ });
});
