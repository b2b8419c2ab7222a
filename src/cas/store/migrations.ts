import { failure } from '../../errors.ts';

/**
 * Every change to the tables is a new entry; a database knows how many of them it has seen. What landed is never changed.
 * PostgreSQL came with the sixth, so its first five are empty.
 */
export const migrations: readonly { sqlite: string; postgres: string }[] = [
  {
    sqlite: `CREATE TABLE state (
     name TEXT PRIMARY KEY,
     value BLOB NOT NULL
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE version (
     session TEXT NOT NULL,
     number INTEGER NOT NULL,
     hash BLOB NOT NULL,
     sealed BLOB NOT NULL,
     PRIMARY KEY (session, number),
     UNIQUE (session, hash)
   ) STRICT;
   CREATE TABLE one_time_password (
     secret BLOB NOT NULL,
     step INTEGER NOT NULL,
     PRIMARY KEY (secret, step)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE wrong_code (
     account TEXT NOT NULL,
     source TEXT NOT NULL,
     count INTEGER NOT NULL,
     last INTEGER NOT NULL,
     PRIMARY KEY (account, source)
   ) STRICT, WITHOUT ROWID;`,
    postgres: '',
  },
  {
    sqlite: `CREATE TABLE certificate (
     session TEXT NOT NULL,
     number INTEGER NOT NULL,
     name TEXT NOT NULL,
     generation INTEGER NOT NULL,
     sealed BLOB NOT NULL,
     PRIMARY KEY (session, number, name, generation)
   ) STRICT;`,
    postgres: '',
  },
  {
    sqlite: `ALTER TABLE version ADD COLUMN upload BLOB;
   ALTER TABLE version ADD COLUMN namespace TEXT;
   UPDATE version SET namespace =
     CASE WHEN session = '/' THEN NULL
          WHEN instr(session, '/') = 0 THEN '/'
          ELSE rtrim(rtrim(session, replace(session, '/', '')), '/') END;
   CREATE INDEX session_in_namespace ON version (namespace, session) WHERE number = 1;
   CREATE INDEX wrong_code_last ON wrong_code (last);
   CREATE TABLE process (
     session TEXT NOT NULL,
     process BLOB NOT NULL,
     PRIMARY KEY (session, process)
   ) STRICT, WITHOUT ROWID;`,
    postgres: '',
  },
  {
    sqlite: `CREATE TABLE issued (
     session TEXT NOT NULL,
     number INTEGER NOT NULL,
     name TEXT NOT NULL,
     generation INTEGER NOT NULL,
     sealed BLOB NOT NULL,
     PRIMARY KEY (session, number, name)
   ) STRICT;
   INSERT INTO issued SELECT session, number, name, max(generation), sealed FROM certificate
     GROUP BY session, number, name;
   DROP TABLE certificate;`,
    postgres: '',
  },
  {
    sqlite: `CREATE TABLE attestation_key (
     endorsement_key BLOB PRIMARY KEY,
     name BLOB NOT NULL,
     reset_count INTEGER NOT NULL DEFAULT 0,
     restart_count INTEGER NOT NULL DEFAULT 0
   ) STRICT, WITHOUT ROWID;
   CREATE INDEX attestation_key_name ON attestation_key (name);
   CREATE TABLE collateral (
     key TEXT PRIMARY KEY,
     issued INTEGER NOT NULL,
     until INTEGER NOT NULL,
     kept INTEGER NOT NULL,
     content BLOB NOT NULL
   ) STRICT;`,
    postgres: '',
  },
  {
    // `code` authenticates a row that is in the clear; `creator` is a pseudonym, by which sessions are counted; `news` marks
    // what other processes of the CAS are to hear of.
    sqlite: `ALTER TABLE version ADD COLUMN creator BLOB;
   CREATE INDEX session_of_creator ON version (creator) WHERE number = 1;
   ALTER TABLE one_time_password ADD COLUMN attempt BLOB;
   ALTER TABLE one_time_password ADD COLUMN code BLOB;
   ALTER TABLE process ADD COLUMN attempt BLOB;
   ALTER TABLE process ADD COLUMN code BLOB;
   ALTER TABLE wrong_code ADD COLUMN code BLOB;
   ALTER TABLE attestation_key ADD COLUMN code BLOB;
   ALTER TABLE collateral ADD COLUMN code BLOB;
   CREATE TABLE audit_log (
     sequence INTEGER PRIMARY KEY,
     line BLOB NOT NULL,
     tree BLOB,
     news INTEGER NOT NULL DEFAULT 0
   ) STRICT;
   CREATE INDEX audit_log_news ON audit_log (sequence) WHERE news = 1;`,
    postgres: `CREATE TABLE state (
     name TEXT COLLATE "C" PRIMARY KEY,
     value BYTEA NOT NULL
   );
   CREATE TABLE version (
     session TEXT COLLATE "C" NOT NULL,
     number BIGINT NOT NULL,
     hash BYTEA NOT NULL,
     sealed BYTEA NOT NULL,
     upload BYTEA,
     namespace TEXT COLLATE "C",
     creator BYTEA,
     PRIMARY KEY (session, number),
     UNIQUE (session, hash)
   );
   CREATE INDEX session_in_namespace ON version (namespace, session) WHERE number = 1;
   CREATE INDEX session_of_creator ON version (creator) WHERE number = 1;
   CREATE TABLE issued (
     session TEXT COLLATE "C" NOT NULL,
     number BIGINT NOT NULL,
     name TEXT COLLATE "C" NOT NULL,
     generation BIGINT NOT NULL,
     sealed BYTEA NOT NULL,
     PRIMARY KEY (session, number, name)
   );
   CREATE TABLE one_time_password (
     secret BYTEA NOT NULL,
     step BIGINT NOT NULL,
     attempt BYTEA,
     code BYTEA,
     PRIMARY KEY (secret, step)
   );
   CREATE TABLE wrong_code (
     account TEXT COLLATE "C" NOT NULL,
     source TEXT COLLATE "C" NOT NULL,
     count BIGINT NOT NULL,
     last BIGINT NOT NULL,
     code BYTEA,
     PRIMARY KEY (account, source)
   );
   CREATE INDEX wrong_code_last ON wrong_code (last);
   CREATE TABLE process (
     session TEXT COLLATE "C" NOT NULL,
     process BYTEA NOT NULL,
     attempt BYTEA,
     code BYTEA,
     PRIMARY KEY (session, process)
   );
   CREATE TABLE attestation_key (
     endorsement_key BYTEA PRIMARY KEY,
     name BYTEA NOT NULL,
     reset_count BIGINT NOT NULL DEFAULT 0,
     restart_count BIGINT NOT NULL DEFAULT 0,
     code BYTEA
   );
   CREATE INDEX attestation_key_name ON attestation_key (name);
   CREATE TABLE collateral (
     key TEXT COLLATE "C" PRIMARY KEY,
     issued BIGINT NOT NULL,
     until BIGINT NOT NULL,
     kept BIGINT NOT NULL,
     content BYTEA NOT NULL,
     code BYTEA
   );
   CREATE TABLE audit_log (
     sequence BIGINT PRIMARY KEY,
     line BYTEA NOT NULL,
     tree BYTEA,
     news BIGINT NOT NULL DEFAULT 0
   );
   CREATE INDEX audit_log_news ON audit_log (sequence) WHERE news = 1;`,
  },
];

/**
 * What a store keeps, by table: the columns that name a row, and the others. What moves a store, or makes a backup of it,
 * goes by this.
 */
export const tables = {
  state: { key: ['name'], rest: ['value'] },
  version: { key: ['session', 'number'], rest: ['hash', 'sealed', 'upload', 'namespace', 'creator'] },
  issued: { key: ['session', 'number', 'name'], rest: ['generation', 'sealed'] },
  one_time_password: { key: ['secret', 'step'], rest: ['attempt', 'code'] },
  wrong_code: { key: ['account', 'source'], rest: ['count', 'last', 'code'] },
  process: { key: ['session', 'process'], rest: ['attempt', 'code'] },
  attestation_key: { key: ['endorsement_key'], rest: ['name', 'reset_count', 'restart_count', 'code'] },
  collateral: { key: ['key'], rest: ['issued', 'until', 'kept', 'content', 'code'] },
  audit_log: { key: ['sequence'], rest: ['line', 'tree', 'news'] },
} as const;
export type Table = keyof typeof tables;

/** Columns that hold integers, in whichever table. */
export const integers: ReadonlySet<string> = new Set([
  ...['number', 'generation', 'step', 'count', 'last', 'reset_count', 'restart_count'],
  ...['issued', 'until', 'kept', 'sequence', 'news'],
]);

/** All that migrations read or change. */
export const tablesEver: readonly string[] = [...Object.keys(tables), 'certificate', 'migration'];

/**
 * Whoever administers a database can put a view in the place of a table, which may have rows without an end.
 * @param kind `table`, or whatever the catalog says instead of what has this name
 * @throws Failure STORE_DAMAGED
 */
export function requireTable(store: string, name: unknown, kind: unknown): void {
  if (kind === 'table' || !tablesEver.includes(String(name))) return;
  throw failure('STORE_DAMAGED', { store, detail: `${name} is no table, but: ${kind}` });
}
