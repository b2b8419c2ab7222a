import { createReadStream, createWriteStream, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import * as v from 'valibot';
import { failure, reason } from '../../errors.ts';
import { linesIn } from '../../lines.ts';
import { RESTORED } from '../audit-log.ts';
import type { Cas } from '../cas.ts';
import { requireWhole, rowChecker } from '../store/check.ts';
import type { Database, Statements } from '../store/database.ts';
import { type DumpFacts, dump, emptyTables, isEmpty, readDump, rowWriter } from '../store/dump.ts';

/** A CAS with its database, as far as backups are concerned. */
export type Backed = Pick<Cas, 'audit' | 'keyring' | 'log'> & { database: Database };

/** A backup of everything, as it is at one moment, while the CAS goes on. What is sealed stays so. */
export function makeBackup({ database, log }: Backed, now: number): Readable {
  const stream = new PassThrough();
  const write = async (lines: string) => {
    if (!stream.write(lines))
      await new Promise((resolve) => stream.once('drain', resolve).once('close', resolve));
    if (stream.destroyed) throw new Error('whoever wanted it is gone');
  };
  dump(database, write, now).then(
    () => stream.end(),
    (error: unknown) => {
      log.warn({ error: reason(error) }, 'a backup was not finished');
      stream.destroy(error instanceof Error ? error : new Error(String(error)));
    },
  );
  return stream;
}

const NAME = 'restoring';
const LARGEST_LINE = 64 * 1024 * 1024;

/** What stands in the store from when its rows were put back until the audit log says so. */
const mark = v.strictObject({ created: v.number(), rows: v.number(), sha256: v.string() });

/**
 * Puts a backup in the place of everything, first making sure that it is whole, and one of this CAS. How the store opens stays
 * as it is now. What was there is gone, which the audit log says from now on.
 * @param content lines that {@link makeBackup} gave
 * @throws Failure BACKUP_INVALID or STORE_DAMAGED, and then nothing was changed
 */
export async function restoreBackup(cas: Backed, content: Readable): Promise<DumpFacts> {
  const folder = mkdtempSync(join(tmpdir(), 'envcas-restore-'));
  const path = join(folder, 'backup');
  try {
    await pipeline(content, createWriteStream(path, { mode: 0o600 }));
    const checker = rowChecker(cas.keyring);
    const problems: string[] = [];
    const facts = await readDump(
      linesOf(path),
      (table, row) => void problems.push(...checker.check(table, row)),
    );
    requireWhole('in the backup', [...problems, ...checker.end()]);
    await cas.database.transaction(async (statements) => {
      const [seal] = await statements.all("SELECT value FROM state WHERE name = 'seal'");
      await putRows(statements, path, facts);
      await statements.run("UPDATE state SET value = $1 WHERE name = 'seal'", seal?.value ?? null);
    });
    await announceRestore(cas);
    return facts;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Puts a backup into an empty database, where there is no CAS yet. It opens as it did when the backup was made; the CAS that
 * is started on it says in its audit log what has happened.
 * @throws Failure BACKUP_INVALID or STORE_NOT_EMPTY, and then nothing was changed
 */
export async function restoreInto(database: Database, path: string): Promise<DumpFacts> {
  if (!(await isEmpty(database))) throw failure('STORE_NOT_EMPTY', { store: database.name });
  const facts = await readDump(linesOf(path), () => {});
  await database.transaction((statements) => putRows(statements, path, facts));
  return facts;
}

async function putRows(statements: Statements, path: string, facts: DumpFacts): Promise<void> {
  await emptyTables(statements);
  const writer = rowWriter(statements);
  await readDump(linesOf(path), (table, row) => writer.add(table, row));
  await writer.flush();
  await statements.run('DELETE FROM state WHERE name = $1', NAME);
  await statements.run(
    'INSERT INTO state (name, value) VALUES ($1, $2)',
    NAME,
    Buffer.from(JSON.stringify(facts satisfies v.InferInput<typeof mark>)),
  );
}

/** Says in the audit log that the store was put back, if it was since anybody said so. */
export async function announceRestore({ audit, log }: Pick<Backed, 'audit' | 'log'>): Promise<void> {
  const facts = await audit.recordWith(async (statements, next) => {
    const [row] = await statements.all('SELECT value FROM state WHERE name = $1', NAME);
    if (!row) return { result: undefined, entries: [] };
    const { created, ...rest } = v.parse(mark, JSON.parse(String(row.value)));
    await statements.run('DELETE FROM state WHERE name = $1 OR name = $2', NAME, RESTORED);
    await statements.run(
      'INSERT INTO state (name, value) VALUES ($1, $2)',
      RESTORED,
      Buffer.from(String(next)),
    );
    const result = { backup: new Date(created).toISOString(), ...rest };
    return { result, entries: [{ operation: 'store_restored', ...result }] };
  });
  if (facts) log.warn(facts, 'the store was restored from a backup');
}

async function* linesOf(path: string): AsyncGenerator<string> {
  yield* backupLines(createReadStream(path, { highWaterMark: 1024 * 1024 }));
}

/** Lines of a backup. @throws Failure BACKUP_INVALID where one has no end */
export async function* backupLines(stream: Readable): AsyncGenerator<string> {
  const tooLong = (line: number) => failure('BACKUP_INVALID', { line, detail: 'it is too long' });
  for await (const line of linesIn(stream, LARGEST_LINE, tooLong)) yield line.toString();
}
