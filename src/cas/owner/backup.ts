import { createReadStream, createWriteStream, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { failure, reason } from '../../errors.ts';
import { linesIn } from '../../lines.ts';
import { openAuditLog, RESTORED } from '../audit-log.ts';
import type { Cas } from '../cas.ts';
import { keyOf, readIdentity } from '../identity.ts';
import type { Keyring } from '../keyring.ts';
import { MOST_PROBLEMS, requireWhole, rowChecker } from '../store/check.ts';
import type { Database, Statements } from '../store/database.ts';
import { type DumpFacts, dump, emptyTables, isEmpty, readDump, rowWriter } from '../store/dump.ts';
import { openState } from '../store/sql.ts';
import type { State } from '../store/store.ts';
import { changesBetween, DESCRIBED } from './standing.ts';

/** A CAS with its database, as far as backups are concerned. */
export type Backed = Pick<Cas, 'audit' | 'keyring' | 'log'> & { database: Database };

/** A backup of everything, as it is at one moment, while the CAS goes on. What is sealed stays so. */
export function makeBackup({ database, keyring, log }: Omit<Backed, 'audit'>, now: number): Readable {
  const stream = new PassThrough();
  const write = async (line: string) => {
    if (!stream.write(line)) await drained(stream);
    if (stream.destroyed) throw new Error('whoever wanted it is gone');
  };
  dump(database, keyring, write, now).then(
    () => stream.end(),
    (error: unknown) => {
      log.warn({ error: reason(error) }, 'a backup was not finished');
      stream.destroy(error instanceof Error ? error : new Error(String(error)));
    },
  );
  return stream;
}

/** When a stream takes more, or nothing any more. */
const drained = (stream: PassThrough): Promise<void> =>
  new Promise((resolve) => {
    const done = () => {
      stream.off('drain', done).off('close', done);
      resolve();
    };
    stream.on('drain', done).on('close', done);
  });

/** Row of `state` from when rows were put back until the audit log says so; another process believes nothing in it. */
const RESTORING = 'restoring';
const LARGEST_LINE = 64 * 1024 * 1024;

/** A backup without a code, as 0.1.0 made it: refused, only looked at, or taken. */
export type WithoutCode = 'refused' | 'listed' | 'taken';

export interface Restored {
  /** Milliseconds since 1970. */
  created: number;
  rows: number;
  /** What a backup without a code changes of what security rests on; see {@link changesBetween}. */
  changes: string[];
}

/**
 * Puts a backup in the place of everything, after a look at all of it: it must be whole, and of this CAS. The seal stays as
 * it is now. The audit log says from now on that what was there is gone.
 * @param content lines that {@link makeBackup} gave
 * @throws Failure BACKUP_INVALID, BACKUP_WITHOUT_CODE or STORE_DAMAGED, and then nothing was changed
 */
export async function restoreBackup(
  cas: Backed,
  content: Readable,
  withoutCode: WithoutCode = 'refused',
): Promise<Restored> {
  const folder = mkdtempSync(join(tmpdir(), 'envcas-restore-'));
  const path = join(folder, 'backup');
  try {
    await pipeline(content, createWriteStream(path, { mode: 0o600 }));
    const { facts, state } = await examine(path, cas.keyring, withoutCode);
    const now = openState(cas.database);
    // The seal stays.
    const then: State = { ...state, readState: (name) => (name === 'seal' ? now : state).readState(name) };
    const changes = facts.code ? [] : await changesBetween(now, then, cas.keyring);
    const restored = { created: facts.created, rows: facts.rows, changes };
    if (withoutCode === 'listed') return restored;
    await cas.database.transaction(async (statements) => {
      const [seal] = await statements.all("SELECT value FROM state WHERE name = 'seal'");
      await putRows(statements, path, facts);
      await statements.run("UPDATE state SET value = $1 WHERE name = 'seal'", seal?.value ?? null);
    });
    await announceRestore(cas, facts);
    return restored;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Puts a backup into an empty database, where there is no CAS yet. It opens as it did when the backup was made, and its audit
 * log says what has happened.
 * @param open finds the keys that the state in the backup is sealed with
 * @throws Failure as {@link restoreBackup}, STORE_NOT_EMPTY, or what `open` throws; and then nothing was changed
 */
export async function restoreInto(
  database: Database,
  path: string,
  open: (state: State) => Promise<Keyring>,
  withoutCode: WithoutCode = 'refused',
): Promise<Restored> {
  if (!(await isEmpty(database))) throw failure('STORE_NOT_EMPTY', { store: database.name });
  const keyring = await open(await stateIn(path));
  const { facts, state } = await examine(path, keyring, withoutCode);
  const nothing = stateOf(new Map());
  const changes = facts.code ? [] : await changesBetween(nothing, state, keyring);
  const restored = { created: facts.created, rows: facts.rows, changes };
  if (withoutCode === 'listed') return restored;
  await database.transaction(async (statements) => {
    if (!(await isEmpty(statements))) throw failure('STORE_NOT_EMPTY', { store: database.name });
    await putRows(statements, path, facts);
  });
  const store = openState(database);
  const identity = await readIdentity(store, keyring);
  const cas = keyOf(identity);
  const audit = await openAuditLog({ database, store, keyring, cas, clock: Date.now });
  await announceRestore({ audit }, facts);
  return restored;
}

/** Looks at all of a backup. @throws Failure BACKUP_INVALID, BACKUP_WITHOUT_CODE or STORE_DAMAGED */
async function examine(path: string, keyring: Keyring, withoutCode: WithoutCode) {
  const checker = rowChecker(keyring);
  const problems: string[] = [];
  const kept = new Map<string, Buffer>();
  const facts = await readDump(
    linesOf(path),
    (table, row) => {
      if (table === 'state') keep(kept, row);
      if (problems.length < MOST_PROBLEMS) problems.push(...checker.check(table, row));
    },
    keyring,
  );
  if (!kept.has('seal')) problems.push('state seal: it is missing');
  requireWhole('in the backup', [...problems, ...checker.end()]);
  if (!facts.code && withoutCode === 'refused') throw failure('BACKUP_WITHOUT_CODE');
  return { facts, state: stateOf(kept) };
}

/** The state in a backup that is not looked at yet. */
async function stateIn(path: string): Promise<State> {
  const kept = new Map<string, Buffer>();
  await readDump(linesOf(path), (table, row) => {
    if (table === 'state') keep(kept, row);
  });
  if (!kept.has('seal')) throw failure('STORE_DAMAGED', { store: 'in the backup', detail: 'it has no seal' });
  return stateOf(kept);
}

function keep(kept: Map<string, Buffer>, { name, value }: { name?: unknown; value?: unknown }): void {
  if (DESCRIBED.includes(String(name)) && Buffer.isBuffer(value)) kept.set(String(name), value);
}

const stateOf = (rows: ReadonlyMap<string, Buffer>): State => ({
  readState: async (name) => rows.get(name),
  createState: async (_name, value) => value,
  replaceState: async () => false,
});

async function putRows(statements: Statements, path: string, facts: DumpFacts): Promise<void> {
  await emptyTables(statements);
  const writer = rowWriter(statements);
  const { sha256 } = await readDump(linesOf(path), (table, row) => writer.add(table, row));
  await writer.flush();
  if (sha256 !== facts.sha256)
    throw failure('BACKUP_INVALID', { line: 1, detail: 'it was changed meanwhile' });
  const { created, rows } = facts;
  await statements.run('DELETE FROM state WHERE name = $1', RESTORING);
  await statements.run(
    'INSERT INTO state (name, value) VALUES ($1, $2)',
    RESTORING,
    // As 0.1.0 has it.
    Buffer.from(JSON.stringify({ created, rows, sha256 })),
  );
}

/** Says in the audit log that this process has put the store back. */
async function announceRestore(
  { audit, log }: Pick<Backed, 'audit'> & Partial<Pick<Backed, 'log'>>,
  { created, rows, sha256 }: DumpFacts,
): Promise<void> {
  const entry = { backup: new Date(created).toISOString(), rows, sha256 };
  await audit.recordWith(async (statements, next) => {
    await statements.run('DELETE FROM state WHERE name = $1 OR name = $2', RESTORING, RESTORED);
    await statements.run(
      'INSERT INTO state (name, value) VALUES ($1, $2)',
      RESTORED,
      Buffer.from(String(next)),
    );
    return { result: undefined, entries: [{ operation: 'store_restored', ...entry }] };
  });
  log?.warn(entry, 'the store was restored from a backup');
}

/**
 * Makes sure that no restore was begun that the audit log does not tell of: whether it ended, and what it put there, only
 * the process knows that did it.
 * @throws Failure RESTORE_UNFINISHED
 */
export async function checkRestored(database: Database): Promise<void> {
  if (await openState(database).readState(RESTORING))
    throw failure('RESTORE_UNFINISHED', { store: database.name });
}

async function* linesOf(path: string): AsyncGenerator<string> {
  yield* backupLines(createReadStream(path, { highWaterMark: 1024 * 1024 }));
}

/** Lines of a backup. @throws Failure BACKUP_INVALID where one has no end */
export async function* backupLines(stream: Readable): AsyncGenerator<string> {
  const tooLong = (line: number) => failure('BACKUP_INVALID', { line, detail: 'it is too long' });
  for await (const line of linesIn(stream, LARGEST_LINE, tooLong)) yield line.toString();
}
