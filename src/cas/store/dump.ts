import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { failure } from '../../errors.ts';
import type { Keyring } from '../keyring.ts';
import type { Database, Row, Statements, Value } from './database.ts';
import { integers, migrations, type Table, tables } from './migrations.ts';

/**
 * A store as lines of JSON, the same whichever engine it comes from or goes to:
 *
 *     {"format":"envcas-store/1","version":…,"created":…}
 *     ["TABLE", value, …]                      values in the order of `tables`; bytes as {"base64":…}
 *     ["state", "backup", value]               the code: sealed, over all lines before
 *     {"rows":…,"sha256":…}                    of all lines before
 *
 * Sealed values stay sealed; nothing in it is secret by itself. The code is a row of `state`, which 0.1.0 reads as any other;
 * 0.1.0 itself writes none.
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
    // A pattern over megabytes exceeds the stack.
    v.strictObject({ base64: v.pipe(v.string(), v.check(isBase64)) }),
    v.transform(({ base64 }) => Buffer.from(base64, 'base64')),
  ),
]);
const tableNames = Object.keys(tables) as Table[];
const rowLine = v.tupleWithRest([v.picklist(tableNames)], cell);

/** Name of the row of `state` that holds the code of a backup. */
const CODE = 'backup';
const PLACE = `state/${CODE}`;
/** Contents of the code. */
interface Code {
  /** SHA-256 of all lines before. */
  sha256: string;
  /** Numbers of rows, by table. */
  rows: Record<string, number>;
  /** Last entry of the audit log: its number, and SHA-256 of its line. */
  head: { sequence: number; sha256: string } | null;
}

const ROWS_AT_ONCE = 500;
/** Bytes of rows that are held at a time; one row may have more. */
const BYTES_AT_ONCE = 8 * 1024 * 1024;

/** Rows of all tables, a table after the other, as they are at one moment; {@link BYTES_AT_ONCE} of them are held. */
export async function eachRow(
  statements: Statements,
  visit: (table: Table, row: Row) => Promise<void> | void,
): Promise<void> {
  for (const table of tableNames) {
    const key = tables[table].key.join(', ');
    const [columns, size] = [columnsOf(table).join(', '), sizeOf(table)];
    let after: Value[] = [];
    /** The next rows of the table. */
    const next = (what: string, limit: number) => {
      const places = after.map((_, at) => `$${at + 1}`).join(', ');
      const from = after.length > 0 ? `WHERE (${key}) > (${places})` : '';
      return statements.all(`SELECT ${what} FROM ${table} ${from} ORDER BY ${key} LIMIT ${limit}`, ...after);
    };
    for (;;) {
      const sizes = await next(`${size} AS size`, ROWS_AT_ONCE);
      for (const count of portions(sizes.map((row) => Number(row.size)))) {
        const rows = await next(columns, count);
        for (const row of rows) await visit(table, row);
        const last = rows.at(-1);
        if (last) after = tables[table].key.map((column) => last[column] ?? null);
      }
      if (sizes.length < ROWS_AT_ONCE) break;
    }
  }
}

/** SQL for the bytes of a row, numbers aside; of large values neither engine reads more than their length. */
const sizeOf = (table: Table): string =>
  columnsOf(table)
    .filter((column) => !integers.has(column))
    .map((column) => `COALESCE(octet_length(${column}), 0)`)
    .join(' + ');

/** Lengths of parts of a list, none of which has more than {@link BYTES_AT_ONCE} unless it is one alone. */
function* portions(sizes: readonly number[]): Generator<number> {
  let [count, bytes] = [0, 0];
  for (const size of sizes) {
    if (count > 0 && bytes + size > BYTES_AT_ONCE) {
      yield count;
      [count, bytes] = [0, 0];
    }
    count++;
    bytes += size;
  }
  if (count > 0) yield count;
}

/** Finds out what the code of a backup is over. */
function summary() {
  const digest = createHash('sha256');
  const rows: Record<string, number> = {};
  let head: Code['head'] = null;
  return {
    line: (text: string) => void digest.update(text).update('\n'),
    row(table: Table, row: Row) {
      rows[table] = (rows[table] ?? 0) + 1;
      if (table === 'audit_log') head = { sequence: Number(row.sequence), sha256: sha256(row.line ?? '') };
    },
    sha256: () => digest.copy().digest('hex'),
    rows: () => Object.values(rows).reduce((sum, count) => sum + count, 0),
    code: (): Code => ({ sha256: digest.copy().digest('hex'), rows, head }),
  };
}

const sha256 = (value: Value) =>
  createHash('sha256')
    .update(Buffer.isBuffer(value) ? value : String(value))
    .digest('hex');

/** Writes a store; `write` is given a line at a time. @param now milliseconds since 1970 */
export async function dump(
  database: Database,
  keyring: Pick<Keyring, 'seal'>,
  write: (line: string) => Promise<void>,
  now: number,
): Promise<{ rows: number; sha256: string }> {
  const all = summary();
  const say = async (content: unknown) => {
    const line = JSON.stringify(content);
    all.line(line);
    await write(`${line}\n`);
  };
  const sayRow = async (table: Table, row: Row) => {
    const cells = columnsOf(table).map((column) => {
      const value = row[column] ?? null;
      return Buffer.isBuffer(value) ? { base64: value.toString('base64') } : value;
    });
    await say([table, ...cells]);
  };
  await say({ format: FORMAT, version: migrations.length, created: now });
  await database.snapshot((statements) =>
    eachRow(statements, async (table, row) => {
      // A restore by 0.1.0 has left it.
      if (isCode(table, row)) return;
      all.row(table, row);
      await sayRow(table, row);
    }),
  );
  const sealed = keyring.seal(Buffer.from(JSON.stringify(all.code())), PLACE);
  await sayRow('state', { name: CODE, value: sealed });
  const end = { rows: all.rows() + 1, sha256: all.sha256() };
  await write(`${JSON.stringify(end)}\n`);
  return end;
}

const isCode = (table: Table, row: Row) => table === 'state' && row.name === CODE;

/** What {@link readDump} has found. */
export interface DumpFacts {
  created: number;
  rows: number;
  sha256: string;
  /** The code, sealed; undefined of a backup of 0.1.0. */
  code: Buffer | undefined;
}

/**
 * Reads what {@link dump} has written, and checks that it is whole.
 * @param visit is given each row before it is known whether the rest is right
 * @param keyring opens the code, which without it is not checked
 * @throws Failure BACKUP_INVALID with the line
 */
export async function readDump(
  lines: AsyncIterable<string>,
  visit: (table: Table, row: Row) => Promise<void> | void,
  keyring?: Pick<Keyring, 'open'>,
): Promise<DumpFacts> {
  const all = summary();
  let number = 0;
  let created: number | undefined;
  /** The code, if it is the last row; and what it is to be. */
  let coded: { sealed: Buffer; expected: string } | undefined;
  /** Rows named as the code is. */
  let codes = 0;
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
      const row: Row = Object.fromEntries(columns.map((column, at) => [column, cells[at] ?? null]));
      if (isCode(table, row)) {
        if (!Buffer.isBuffer(row.value)) throw invalid('it is no code');
        codes++;
        coded = { sealed: row.value, expected: JSON.stringify(all.code()) };
      } else {
        coded = undefined;
        all.row(table, row);
        await visit(table, row);
      }
    } else {
      const parsed = v.safeParse(trailer, content);
      if (!parsed.success) throw invalid('it is neither a row nor the end');
      end = parsed.output;
      const rows = all.rows() + codes;
      if (end.rows !== rows) throw invalid(`${rows} rows came before, and it says ${end.rows}`);
      if (end.sha256 !== all.sha256()) throw invalid('a line before was changed: the digest is another');
      if (coded && keyring && !isRight(coded, keyring))
        throw invalid('what came before is not as this CAS has written it: the code is another');
      continue;
    }
    all.line(line);
  }
  if (!end || created === undefined)
    throw failure('BACKUP_INVALID', { line: number + 1, detail: 'it ends early' });
  return { created, rows: all.rows(), sha256: end.sha256, code: coded?.sealed };
}

function isRight(coded: { sealed: Buffer; expected: string }, keyring: Pick<Keyring, 'open'>): boolean {
  try {
    return keyring.open(coded.sealed, PLACE).toString() === coded.expected;
  } catch {
    return false;
  }
}

function isBase64(text: string): boolean {
  return Buffer.from(text, 'base64').toString('base64') === text;
}

/** Puts rows into tables, many at a time. @returns `add`, and `flush` for what is left in the end */
export function rowWriter(statements: Statements) {
  let table: Table | undefined;
  let rows: Row[] = [];
  let bytes = 0;
  const flush = async () => {
    const [into, all] = [table, rows];
    rows = [];
    bytes = 0;
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
      const size = Object.values(row).reduce<number>((sum, value) => sum + lengthOf(value), 0);
      if (into !== table || rows.length >= ROWS_AT_ONCE || bytes + size > BYTES_AT_ONCE) {
        await flush();
        table = into;
      }
      rows.push(row);
      bytes += size;
    },
    flush,
  };
}

const lengthOf = (value: Value) => (Buffer.isBuffer(value) || typeof value === 'string' ? value.length : 8);

export async function emptyTables(statements: Statements): Promise<void> {
  for (const table of tableNames) await statements.run(`DELETE FROM ${table}`);
}

/** Whether nothing is in any table. */
export async function isEmpty(database: Statements): Promise<boolean> {
  for (const table of tableNames)
    if ((await database.all(`SELECT 1 FROM ${table} LIMIT 1`)).length > 0) return false;
  return true;
}

export const columnsOf = (table: Table): readonly string[] => [...tables[table].key, ...tables[table].rest];
