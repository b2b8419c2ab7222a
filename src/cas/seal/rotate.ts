import { randomBytes } from 'node:crypto';
import { failure } from '../../errors.ts';
import { KEY, type Keyring, type MasterKeys } from '../keyring.ts';
import type { Database, Statements } from '../store/database.ts';
import { eachRow } from '../store/dump.ts';
import { tables } from '../store/migrations.ts';
import { openState } from '../store/sql.ts';
import { nextNumber } from './facts.ts';
import { openSeal, readSeal, replaceKeys, type Seal } from './record.ts';
import { sealedColumns } from './sealed-rows.ts';

export interface RotateOptions {
  database: Database;
  rootKey: Buffer;
  /** How the store was sealed when it was opened. */
  opened: Seal;
  keyring: Keyring;
  /** Called once the new key is known to all who ask, and again when it is used; resolves when all have taken notice. */
  announce(): Promise<void>;
}

/**
 * Makes a new master key, and wraps all data keys under it. The old ones stay in the record, for backups from before. While
 * other processes go on: first they learn the key, then it is used.
 * @returns the number of the key, and of the values that were wrapped anew
 * @throws Failure SEAL_CHANGED, STORE_REKEYED, STATE_SEALED or of the store
 */
export async function rotate(options: RotateOptions): Promise<{ present: number; rewrapped: number }> {
  const { database, rootKey, opened, keyring, announce } = options;
  const state = openState(database);
  const read = async (): Promise<{ seal: Seal; keys: MasterKeys }> => {
    const seal = await readSeal(state);
    if (!seal) throw failure('SEAL_DAMAGED', { detail: 'it is missing' });
    return { seal, keys: openSeal(seal, rootKey, opened) };
  };
  const before = await read();
  const next = nextNumber(before.keys);
  const masters = new Map(before.keys.masters).set(next, randomBytes(KEY));
  await replaceKeys(state, before.seal, rootKey, { ...before.keys, masters });
  await announce();
  const known = await read();
  const keys: MasterKeys = { ...known.keys, present: next };
  await replaceKeys(state, known.seal, rootKey, keys);
  keyring.use(keys);
  await announce();
  return { present: next, rewrapped: await rewrapAll(database, keyring) };
}

/** Rows that others replace meanwhile are sealed under the new key by them. */
async function rewrapAll(database: Database, keyring: Keyring): Promise<number> {
  let rewrapped = 0;
  await eachRow(database, async (table, row) => {
    for (const { column, place } of sealedColumns(table, row)) {
      const sealed = row[column] as Buffer;
      const fresh = keyring.rewrap(sealed, place);
      if (fresh) rewrapped += await replace(database, table, row, column, fresh);
    }
  });
  return rewrapped;
}

async function replace(
  statements: Statements,
  table: keyof typeof tables,
  row: Record<string, unknown>,
  column: string,
  fresh: Buffer,
): Promise<number> {
  const { key } = tables[table];
  const where = [...key, column].map((each, at) => `${each} = $${at + 2}`).join(' AND ');
  return statements.run(
    `UPDATE ${table} SET ${column} = $1 WHERE ${where}`,
    fresh,
    ...[...key, column].map((each) => row[each] as Buffer),
  );
}
