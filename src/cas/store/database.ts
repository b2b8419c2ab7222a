/**
 * A SQL database in the little that its engines have in common: SQLite, PostgreSQL and what speaks its dialect. Statements
 * name their values `$1`, `$2`, …; times and counters are integers below 2^53, bytes are Buffers.
 */
export interface Database extends Statements {
  /** For the few statements that cannot be said in one way, such as those that make tables. */
  engine: 'sqlite' | 'postgres';
  /** What this is, for people; never with a password. */
  name: string;
  /**
   * Runs statements that take effect together or not at all, as if nothing else ran at the same time. `work` runs again
   * where others were in the way, so it does nothing beside its statements.
   */
  transaction<Result>(work: (statements: Statements) => Promise<Result>): Promise<Result>;
  /**
   * Reads what there is at one moment, while others go on writing. `work` runs once, and writes nothing.
   * @throws Failure STORE_DAMAGED where tables are not those that migrations make
   */
  snapshot<Result>(work: (statements: Statements) => Promise<Result>): Promise<Result>;
  close(): Promise<void>;
}

export interface Statements {
  /** Runs one statement and gives its rows. @throws Failure STORE_UNAVAILABLE, or {@link Conflict} */
  all(sql: string, ...values: Value[]): Promise<Row[]>;
  /** Runs one statement and tells how many rows it changed. @throws as {@link all} */
  run(sql: string, ...values: Value[]): Promise<number>;
}

export type Value = string | number | Buffer | null;
/** By the name of the column; bytes as Buffer, integers as number. */
export type Row = Record<string, Value>;

/** A statement was refused by a unique constraint: another row with this key is there already. */
export class Conflict extends Error {}
