import { AsyncLocalStorage } from 'node:async_hooks';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { setImmediate } from 'node:timers/promises';
import { failure, reason } from '../../errors.ts';
import { oneAtATime } from '../../platform/in-turn.ts';
import { createPrivate } from '../../platform/private-file.ts';
import { correlated, newCorrelationId } from '../observe/correlation.ts';
import { inThread } from '../threads.ts';
import { Conflict, type Database, type Row, type Statements, type Value } from './database.ts';
import { migrations, requireTable } from './migrations.ts';
import { expectedOfSqlite, requireShape, sqliteShape } from './shape.ts';

/** Statements that are kept compiled; there are fewer, but for those that write several rows at once. */
const MOST_PREPARED = 256;
/**
 * How long another process may hold the database, in milliseconds: while nothing else can be done here, which is long enough
 * for a write on a good disk, and in all.
 */
const STANDSTILL = 10;
const PATIENCE = 10_000;
const LONGEST_PAUSE = 20;
/** Bytes of a transaction from which on others are served before it is committed, and a thread does the checkpoint. */
const LARGE = 1024 * 1024;
/** Pages of the write-ahead log at which a commit does a checkpoint itself; and while a thread has one to do. */
const CHECKPOINT = 1000;
const LATE_CHECKPOINT = 16_000;

/**
 * Opens a database in one file (`:memory:` for none). What has returned has reached the disk: write-ahead log,
 * synchronous=FULL. Several processes may have it open at once.
 * @throws Failure STATE_UNUSABLE
 */
export function openSqlite(path: string): Database {
  let db: DatabaseSync;
  try {
    // The files that SQLite makes beside it are like it.
    if (path !== ':memory:') createPrivate(path);
    db = new DatabaseSync(path, { timeout: PATIENCE });
    db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;');
    migrate(db, path);
    db.exec(`PRAGMA busy_timeout = ${STANDSTILL}; PRAGMA wal_autocheckpoint = ${CHECKPOINT}`);
  } catch (error) {
    if (error instanceof Error && error.name === 'Failure') throw error;
    throw failure('STATE_UNUSABLE', { path, detail: reason(error) });
  }

  const prepared = new Map<string, StatementSync>();
  const prepare = (sql: string): StatementSync => {
    const known = prepared.get(sql);
    if (known) return known;
    if (prepared.size >= MOST_PREPARED) prepared.clear();
    const statement = db.prepare(numbered(sql));
    prepared.set(sql, statement);
    return statement;
  };
  const attempt = <Result>(work: () => Result): Result => {
    try {
      return work();
    } catch (error) {
      throw toFailure(path, error);
    }
  };
  const patiently = async <Result>(work: () => Result): Promise<Result> => {
    const deadline = performance.now() + PATIENCE;
    for (;;)
      try {
        return work();
      } catch (error) {
        if (!isBusy(error) || performance.now() > deadline) throw toFailure(path, error);
        await new Promise((resolve) => setTimeout(resolve, Math.random() * LONGEST_PAUSE));
      }
  };
  const all = (sql: string, values: Value[]) =>
    prepare(sql)
      .all(...values)
      .map(toRow);
  let written = 0;
  const run = (sql: string, values: Value[]) => {
    for (const value of values) if (Buffer.isBuffer(value)) written += value.length;
    return Number(prepare(sql).run(...values).changes);
  };
  const statements: Statements = {
    all: async (sql, ...values) => attempt(() => all(sql, values)),
    run: async (sql, ...values) => attempt(() => run(sql, values)),
  };

  // One connection: while a transaction is open, nothing else may become part of it.
  const inTurn = oneAtATime();
  const within = new AsyncLocalStorage<true>();
  let open = 0;
  let checkpoints = 0;
  const closing = new AbortController();
  /** What is in the write-ahead log is durable; to copy it to its place takes as long again. */
  const checkpointAside = async () => {
    const own = { source: '', identity: '', gone: closing.signal };
    checkpoints++;
    try {
      await correlated(newCorrelationId(), own, () => inThread('long', 'checkpoint', path));
    } catch {
      // Then the next commit does it.
    }
    checkpoints--;
    if (checkpoints === 0 && db.isOpen) db.exec(`PRAGMA wal_autocheckpoint = ${CHECKPOINT}`);
  };
  const requireOutside = () => {
    // It would wait for its own end.
    if (within.getStore()) throw new Error('within a transaction, its own statements are used');
  };
  const outside = async <Result>(work: () => Result): Promise<Result> => {
    requireOutside();
    if (open === 0)
      try {
        return work();
      } catch (error) {
        if (!isBusy(error)) throw toFailure(path, error);
      }
    return inTurn(() => patiently(work));
  };
  return {
    engine: 'sqlite',
    name: path,
    all: (sql, ...values) => outside(() => all(sql, values)),
    run: (sql, ...values) => outside(() => run(sql, values)),
    async transaction(work) {
      requireOutside();
      open++;
      return inTurn(async () => {
        await patiently(() => db.exec('BEGIN IMMEDIATE'));
        try {
          written = 0;
          const result = await within.run(true, () => work(statements));
          const isLarge = written > LARGE && path !== ':memory:';
          if (isLarge) {
            db.exec(`PRAGMA wal_autocheckpoint = ${LATE_CHECKPOINT}`);
            await setImmediate();
          }
          attempt(() => db.exec('COMMIT'));
          if (isLarge) void checkpointAside();
          return result;
        } catch (error) {
          if (db.isTransaction) db.exec('ROLLBACK');
          throw error;
        }
      }).finally(() => open--);
    },
    async snapshot(work) {
      // A connection of its own has a moment of its own; what is in memory has just one.
      if (path === ':memory:') {
        requireShape(path, sqliteShape(db), expectedOfSqlite());
        return work(statements);
      }
      const reader = attempt(() => new DatabaseSync(path, { readOnly: true, timeout: PATIENCE }));
      try {
        const each = async (sql: string, values: Value[]) =>
          attempt(() => {
            const statement = reader.prepare(numbered(sql));
            // Whoever checks a store is to be given the row of a damaged number, instead of an error.
            statement.setReadBigInts(true);
            return statement.all(...values).map(toRow);
          });
        attempt(() => reader.exec('BEGIN'));
        requireShape(
          path,
          attempt(() => sqliteShape(reader)),
          expectedOfSqlite(),
        );
        return await work({
          all: (sql, ...values) => each(sql, values),
          run: async (sql, ...values) => (await each(sql, values)).length,
        });
      } finally {
        reader.close();
      }
    },
    async close() {
      closing.abort();
      db.close();
    },
  };
}

function migrate(db: DatabaseSync, path: string): void {
  db.exec('BEGIN EXCLUSIVE');
  try {
    const version = Number(db.prepare('PRAGMA user_version').get()?.user_version);
    if (version > migrations.length)
      throw failure('STATE_UNUSABLE', { path, detail: 'it was written by a newer version of this program' });
    const kinds = db.prepare("SELECT name, type FROM pragma_table_list WHERE schema = 'main'").all();
    for (const { name, type } of kinds) requireTable(path, name, type);
    for (const { sqlite } of migrations.slice(version)) db.exec(sqlite);
    requireShape(path, sqliteShape(db), expectedOfSqlite());
    db.exec(`PRAGMA user_version = ${migrations.length}; COMMIT`);
  } catch (error) {
    if (db.isTransaction) db.exec('ROLLBACK');
    throw error;
  }
}

/** `$1` is a name in SQLite, and `?1` a number. */
const numbered = (sql: string) => sql.replaceAll(/\$(\d+)/g, '?$1');

function toRow(row: Record<string, unknown>): Row {
  for (const [name, value] of Object.entries(row))
    if (value instanceof Uint8Array)
      row[name] = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    else if (typeof value === 'bigint') row[name] = Number(value);
  return row as Row;
}

const BUSY = 5;
const UNIQUE = [1555, 2067];
const DAMAGED = [11, 26];

const isBusy = (error: unknown) => ((error as { errcode?: number }).errcode ?? 0) % 256 === BUSY;

/** By SQLite's result codes (sqlite.org/rescode.html); the first eight bits say which kind it is. */
function toFailure(name: string, error: unknown): unknown {
  const { errcode, code: nodeCode } = error as { errcode?: number; code?: string };
  // No number that was written is above 2^53.
  if (nodeCode === 'ERR_OUT_OF_RANGE')
    return failure('STORE_DAMAGED', { store: name, detail: reason(error) });
  if (errcode === undefined) return error;
  if (UNIQUE.includes(errcode)) return new Conflict(reason(error));
  const code = DAMAGED.includes(errcode & 0xff) ? 'STORE_DAMAGED' : 'STORE_UNAVAILABLE';
  return failure(code, { store: name, detail: reason(error) });
}
