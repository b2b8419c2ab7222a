import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { failure } from '../../errors.ts';
import type { Database, Row, Statements, Value } from './database.ts';
import { migrations, type Table, tables } from './migrations.ts';

/**
 * A store as lines of JSON, the same whichever engine it comes from or goes to:
 *
 *     {"format":"envcas-store/1","version":…,"created":…}
 *     ["TABLE", value, …]                      values in the order of `tables`; bytes as {"base64":…}
 *     {"rows":…,"sha256":…}                    of all lines before
 *
 * What is sealed stays so; nothing in it is secret by itself.
 */
const FORMAT = 'envcas-store/1';

const header = v.strictObject({
  format: v.literal(FORMAT),
  /** Of the tables. */
  version: v.pipe(v.number(), v.integer(), v.minValue(1)),
  /** When it was made, in milliseconds since 1970. */
  created: v.pipe(v.number(), v.integer()),
});
const trailer = v.strictObject({
  rows: v.pipe(v.number(), v.integer(), v.minValue(0)),
  sha256: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
});
const cell = v.union([
  v.null(),
  v.string(),
  v.pipe(v.number(), v.safeInteger()),
  v.pipe(
    v.strictObject({ base64: v.pipe(v.string(), v.base64()) }),
    v.transform(({ base64 }) => Buffer.from(base64, 'base64')),
  ),
]);
const tableNames = Object.keys(tables) as Table[];
const rowLine = v.tupleWithRest([v.picklist(tableNames)], cell);

const ROWS_AT_ONCE = 500;

/** Rows of all tables, a table after the other, as they are at one moment. */
export async function eachRow(
  statements: Statements,
  visit: (table: Table, row: Row) => Promise<void> | void,
): Promise<void> {
  for (const table of tableNames) {
    const { key } = tables[table];
    const columns = columnsOf(table).join(', ');
    let after: Value[] = [];
    for (;;) {
      const from =
        after.length > 0
          ? `WHERE (${key.join(', ')}) > (${key.map((_, at) => `$${at + 1}`).join(', ')})`
          : '';
      const rows = await statements.all(
        `SELECT ${columns} FROM ${table} ${from} ORDER BY ${key.join(', ')} LIMIT ${ROWS_AT_ONCE}`,
        ...after,
      );
      for (const row of rows) await visit(table, row);
      const last = rows.at(-1);
      if (!last || rows.length < ROWS_AT_ONCE) break;
      after = key.map((column) => last[column] ?? null);
    }
  }
}

/** Writes a store; `write` is given a few lines at a time. @param now milliseconds since 1970 */
export async function dump(
  database: Database,
  write: (lines: string) => Promise<void>,
  now: number,
): Promise<{ rows: number; sha256: string }> {
  const digest = createHash('sha256');
  const say = async (line: string) => {
    digest.update(line);
    await write(line);
  };
  let rows = 0;
  await say(`${JSON.stringify({ format: FORMAT, version: migrations.length, created: now })}\n`);
  await database.snapshot((statements) =>
    eachRow(statements, async (table, row) => {
      rows++;
      const cells = columnsOf(table).map((column) => {
        const value = row[column] ?? null;
        return Buffer.isBuffer(value) ? { base64: value.toString('base64') } : value;
      });
      await say(`${JSON.stringify([table, ...cells])}\n`);
    }),
  );
  const end = { rows, sha256: digest.digest('hex') };
  await write(`${JSON.stringify(end)}\n`);
  return end;
}

/** What {@link readDump} has found. */
export interface DumpFacts {
  created: number;
  rows: number;
  sha256: string;
}

/**
 * Reads what {@link dump} has written, and checks that it is whole.
 * @param visit is given each row before it is known whether the rest is right
 * @throws Failure BACKUP_INVALID with the line
 */
export async function readDump(
  lines: AsyncIterable<string>,
  visit: (table: Table, row: Row) => Promise<void> | void,
): Promise<DumpFacts> {
  const digest = createHash('sha256');
  let number = 0;
  let created: number | undefined;
  let rows = 0;
  let end: v.InferOutput<typeof trailer> | undefined;
  for await (const line of lines) {
    number++;
    const invalid = (detail: string) => failure('BACKUP_INVALID', { line: number, detail });
    if (end) throw invalid('there is something after the end');
    let content: unknown;
    try {
      content = JSON.parse(line);
    } catch {
      throw invalid('it is not JSON');
    }
    if (created === undefined) {
      const parsed = v.safeParse(header, content);
      if (!parsed.success) throw invalid(`it does not begin as ${FORMAT} does`);
      if (parsed.output.version !== migrations.length)
        throw invalid(
          `its tables are of version ${parsed.output.version}, and those of this program of ${migrations.length}`,
        );
      created = parsed.output.created;
    } else if (Array.isArray(content)) {
      const parsed = v.safeParse(rowLine, content);
      if (!parsed.success) throw invalid('it is no row');
      const [table, ...cells] = parsed.output;
      const columns = columnsOf(table);
      if (cells.length !== columns.length) throw invalid(`a row of ${table} has ${columns.length} values`);
      rows++;
      await visit(table, Object.fromEntries(columns.map((column, at) => [column, cells[at] ?? null])));
    } else {
      const parsed = v.safeParse(trailer, content);
      if (!parsed.success) throw invalid('it is neither a row nor the end');
      end = parsed.output;
      if (end.rows !== rows) throw invalid(`${rows} rows came before, and it says ${end.rows}`);
      if (end.sha256 !== digest.digest('hex'))
        throw invalid('a line before was changed: the digest is another');
      continue;
    }
    digest.update(`${line}\n`);
  }
  if (!end || created === undefined)
    throw failure('BACKUP_INVALID', { line: number + 1, detail: 'it ends early' });
  return { created, ...end };
}

/** Puts rows into tables, many at a time. @returns `add`, and `flush` for what is left in the end */
export function rowWriter(statements: Statements) {
  let table: Table | undefined;
  let rows: Row[] = [];
  const flush = async () => {
    const [into, all] = [table, rows];
    rows = [];
    if (!into || all.length === 0) return;
    const columns = columnsOf(into);
    let place = 0;
    const places = all.map(() => `(${columns.map(() => `$${++place}`).join(', ')})`);
    await statements.run(
      `INSERT INTO ${into} (${columns.join(', ')}) VALUES ${places.join(', ')}`,
      ...all.flatMap((row) => columns.map((column) => row[column] ?? null)),
    );
  };
  return {
    async add(into: Table, row: Row) {
      if (into !== table || rows.length >= ROWS_AT_ONCE) {
        await flush();
        table = into;
      }
      rows.push(row);
    },
    flush,
  };
}

export async function emptyTables(statements: Statements): Promise<void> {
  for (const table of tableNames) await statements.run(`DELETE FROM ${table}`);
}

/** Whether anything was ever kept in a database. */
export async function isEmpty(database: Database): Promise<boolean> {
  return (await database.all('SELECT 1 FROM state LIMIT 1')).length === 0;
}

export const columnsOf = (table: Table): readonly string[] => [...tables[table].key, ...tables[table].rest];
