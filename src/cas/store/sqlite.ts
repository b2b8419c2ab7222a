import { DatabaseSync } from 'node:sqlite';
import { failure, reason } from '../../errors.ts';
import { namespaceOf } from '../../policy/names.ts';
import { type Generation, MOST_CHIPS, pauseAfter, type Store, type StoredVersion } from './store.ts';

/** Every change to the schema is a new entry; `user_version` counts those that a database has seen. */
const migrations = [
  `CREATE TABLE state (
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
  `CREATE TABLE certificate (
     session TEXT NOT NULL,
     number INTEGER NOT NULL,
     name TEXT NOT NULL,
     generation INTEGER NOT NULL,
     sealed BLOB NOT NULL,
     PRIMARY KEY (session, number, name, generation)
   ) STRICT;`,
  `ALTER TABLE version ADD COLUMN upload BLOB;
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
  `CREATE TABLE issued (
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
  `CREATE TABLE attestation_key (
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
];

const FORGET_WRONG_CODES_AFTER = 24 * 3600 * 1000;

/**
 * Opens a store in one file (`:memory:` for none).
 *
 * A method that has returned has reached the disk: write-ahead log, synchronous=FULL.
 * @throws Failure STATE_UNUSABLE
 */
export function openSqlite(path: string): Store {
  let db: DatabaseSync;
  try {
    db = new DatabaseSync(path);
    db.exec(
      'PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000; PRAGMA trusted_schema = OFF;',
    );
    migrate(db, path);
  } catch (error) {
    if (error instanceof Error && error.name === 'Failure') throw error;
    throw failure('STATE_UNUSABLE', { path, detail: reason(error) });
  }

  const readState = db.prepare('SELECT value FROM state WHERE name = ?');
  const createState = db.prepare('INSERT INTO state (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING');
  const replaceState = db.prepare('UPDATE state SET value = ? WHERE name = ?');
  const activeVersion = db.prepare(
    'SELECT session, number, hash, sealed, upload FROM version WHERE session = ? ORDER BY number DESC LIMIT 1',
  );
  const versionByHash = db.prepare(
    'SELECT session, number, hash, sealed, upload FROM version WHERE session = ? AND hash = ?',
  );
  const versions = db.prepare(
    `SELECT session, number, hash, sealed, upload FROM version WHERE session = ? AND number < ?
     ORDER BY number DESC LIMIT ?`,
  );
  const sessionsIn = db.prepare(
    'SELECT session FROM version WHERE namespace = ? AND session > ? AND number = 1 ORDER BY session LIMIT ?',
  );
  const newestNumber = db.prepare('SELECT max(number) AS number FROM version WHERE session = ?');
  const addVersion = db.prepare(
    `INSERT INTO version (session, number, hash, sealed, upload, namespace)
     SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE ?1 <> '/' OR ?2 > 1 OR NOT EXISTS (SELECT 1 FROM version)
     ON CONFLICT DO NOTHING`,
  );
  const issued = db.prepare(
    'SELECT generation, sealed FROM issued WHERE session = ? AND number = ? AND name = ?',
  );
  const keepIssued = db.prepare(
    `INSERT INTO issued (session, number, name, generation, sealed) VALUES (?, ?, ?, ?, ?)
     ON CONFLICT DO UPDATE SET generation = excluded.generation, sealed = excluded.sealed
     WHERE generation < excluded.generation`,
  );
  const wrongCodes = db.prepare('SELECT count, last FROM wrong_code WHERE account = ? AND source = ?');
  const countWrongCode = db.prepare(
    `INSERT INTO wrong_code (account, source, count, last) VALUES (?, ?, 1, ?)
     ON CONFLICT DO UPDATE SET count = count + 1, last = excluded.last`,
  );
  const moveWrongCodes = db.prepare('UPDATE wrong_code SET last = ? WHERE account = ? AND source = ?');
  const forgetWrongCodes = db.prepare(
    'DELETE FROM wrong_code WHERE (account = ? AND source = ?) OR last < ?',
  );
  const spendStep = db.prepare(
    'INSERT INTO one_time_password (secret, step) VALUES (?, ?) ON CONFLICT DO NOTHING',
  );

  const admitProcess = db.prepare(
    'INSERT INTO process (session, process) VALUES (?, ?) ON CONFLICT DO NOTHING',
  );

  const collateral = db.prepare('SELECT key, issued, until, kept, content FROM collateral ORDER BY key');
  const keepCollateral = db.prepare(
    `INSERT INTO collateral (key, issued, until, kept, content) VALUES (?, ?, ?, ?, ?)
     ON CONFLICT DO UPDATE SET issued = excluded.issued, until = excluded.until, kept = excluded.kept,
       content = excluded.content
     WHERE issued <= excluded.issued`,
  );
  const forgetCollateral = db.prepare(
    `DELETE FROM collateral WHERE key IN
       (SELECT key FROM collateral WHERE key LIKE '/vcek/%' OR key LIKE 'vlek/%'
        ORDER BY kept DESC LIMIT -1 OFFSET ?)`,
  );
  const endorsementKey = db.prepare('SELECT endorsement_key FROM attestation_key WHERE name = ?');
  const enrol = db.prepare(
    `INSERT INTO attestation_key (endorsement_key, name) VALUES (?, ?)
     ON CONFLICT (endorsement_key) DO UPDATE SET name = excluded.name, reset_count = 0, restart_count = 0
     WHERE name <> excluded.name`,
  );
  const boot = db.prepare('SELECT reset_count, restart_count FROM attestation_key WHERE name = ?');
  const noteBoot = db.prepare('UPDATE attestation_key SET reset_count = ?, restart_count = ? WHERE name = ?');

  /** The statements run in one piece, as the calls are synchronous, and across processes by the write lock. */
  const transaction = <Result>(work: () => Result): Result => {
    db.exec('BEGIN IMMEDIATE');
    try {
      const result = work();
      db.exec('COMMIT');
      return result;
    } catch (error) {
      if (db.isTransaction) db.exec('ROLLBACK');
      throw error;
    }
  };

  return {
    readState: async (name) => blob(readState.get(name)?.value),
    createState: async (name, value) =>
      transaction(() => {
        createState.run(name, value);
        return blob(readState.get(name)?.value) as Buffer;
      }),
    replaceState: async (name, value) => {
      replaceState.run(value, name);
    },
    activeVersion: async (session) => versionOf(activeVersion.get(session)),
    versionByHash: async (session, hash) => versionOf(versionByHash.get(session, hash)),
    issued: async (session, number, name) => generationOf(issued.get(session, number, name)),
    keepIssued: async ({ session, number, name, generation, sealed }) =>
      transaction(() => {
        keepIssued.run(session, number, name, generation, sealed);
        return generationOf(issued.get(session, number, name)) as Generation;
      }),
    versions: async (session, before, limit) =>
      versions.all(session, before, limit).map((row) => versionOf(row) as StoredVersion),
    sessionsIn: async (namespace, after, limit) =>
      sessionsIn.all(namespace, after, limit).map(({ session }) => String(session)),
    addVersion: async ({ session, number, hash, sealed, upload }, parent) =>
      transaction(() => {
        if (parent && Number(newestNumber.get(parent.session)?.number ?? 0) !== parent.number)
          return 'parent changed';
        const namespace = namespaceOf(session) ?? null;
        const { changes } = addVersion.run(session, number, hash, sealed, upload, namespace);
        return changes === 1 ? 'added' : 'taken';
      }),
    collateral: async () =>
      collateral.all().map((row) => ({
        key: String(row.key),
        issued: Number(row.issued),
        until: Number(row.until),
        kept: Number(row.kept),
        content: blob(row.content) as Buffer,
      })),
    keepCollateral: async ({ key, issued, until, kept, content }) =>
      transaction(() => {
        const { changes } = keepCollateral.run(key, issued, until, kept, content);
        forgetCollateral.run(MOST_CHIPS);
        return changes === 1;
      }),
    endorsementKey: async (name) => blob(endorsementKey.get(name)?.endorsement_key),
    enrol: async (key, name) => {
      enrol.run(key, name);
    },
    noteBoot: async (name, resetCount, restartCount) =>
      transaction(() => {
        const known = boot.get(name);
        if (!known) return false;
        const resets = resetCount - Number(known.reset_count);
        const restarts = restartCount - Number(known.restart_count);
        if (resets < 0 || (resets === 0 && restarts < 0)) return false;
        if (resets > 0 || restarts > 0) noteBoot.run(resetCount, restartCount, name);
        return true;
      }),
    admitProcess: async (session, process) => admitProcess.run(session, process).changes === 1,
    attempt: async ({ account, source, right, once, now }) =>
      transaction(() => {
        const wrong = wrongCodes.get(account, source);
        const pause = pauseAfter(Number(wrong?.count ?? 0)) * 1000;
        const last = Number(wrong?.last ?? 0);
        // Where the clock was set back, the pause begins anew: it is neither lost nor longer.
        if (last > now) moveWrongCodes.run(now, account, source);
        const waited = Math.max(0, now - last);
        if (waited < pause) return { outcome: 'throttled', seconds: Math.ceil((pause - waited) / 1000) };
        if (!right) {
          countWrongCode.run(account, source, now);
          return { outcome: 'invalid' };
        }
        if (once && spendStep.run(once.secret, once.step).changes === 0) return { outcome: 'used' };
        forgetWrongCodes.run(account, source, now - FORGET_WRONG_CODES_AFTER);
        return { outcome: 'accepted' };
      }),
    close: async () => db.close(),
  };
}

function migrate(db: DatabaseSync, path: string): void {
  db.exec('BEGIN EXCLUSIVE');
  try {
    const version = Number(db.prepare('PRAGMA user_version').get()?.user_version);
    if (version > migrations.length)
      throw failure('STATE_UNUSABLE', { path, detail: 'it was written by a newer version of this program' });
    for (const migration of migrations.slice(version)) db.exec(migration);
    db.exec(`PRAGMA user_version = ${migrations.length}; COMMIT`);
  } catch (error) {
    if (db.isTransaction) db.exec('ROLLBACK');
    throw error;
  }
}

function versionOf(row: Record<string, unknown> | undefined): StoredVersion | undefined {
  return (
    row && {
      session: String(row.session),
      number: Number(row.number),
      hash: blob(row.hash) as Buffer,
      sealed: blob(row.sealed) as Buffer,
      upload: blob(row.upload) ?? null,
    }
  );
}

function generationOf(row: Record<string, unknown> | undefined): Generation | undefined {
  return row && { generation: Number(row.generation), sealed: blob(row.sealed) as Buffer };
}

function blob(value: unknown): Buffer | undefined {
  return value instanceof Uint8Array
    ? Buffer.from(value.buffer, value.byteOffset, value.byteLength)
    : undefined;
}
