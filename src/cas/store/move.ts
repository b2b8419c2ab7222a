import { failure } from '../../errors.ts';
import type { Database } from './database.ts';
import { eachRow, emptyTables, isEmpty, rowWriter } from './dump.ts';
import { openState } from './sql.ts';

/** A row of `state`: where a store was moved to. Whoever would go on with the old one would tell another story than the new. */
const MOVED = 'moved';

/**
 * Copies a store into an empty database, as it is at one moment, and marks the old one, so that no CAS starts on it again.
 * @returns how many rows were copied
 * @throws Failure STORE_NOT_EMPTY, STORE_MOVED or of a database, and then the new one is as empty as before
 */
export async function moveStore(from: Database, to: Database): Promise<number> {
  await checkNotMoved(from);
  if (!(await isEmpty(to))) throw failure('STORE_NOT_EMPTY', { store: to.name });
  let rows = 0;
  await from.snapshot((source) =>
    to.transaction(async (target) => {
      rows = 0;
      const writer = rowWriter(target);
      await eachRow(source, (table, row) => {
        rows++;
        return writer.add(table, row);
      });
      await writer.flush();
    }),
  );
  const mark = Buffer.from(to.name);
  const state = openState(from);
  try {
    if (!(await state.createState(MOVED, mark)).equals(mark)) await checkNotMoved(from);
  } catch (error) {
    // Where the answer was lost, it may be marked all the same.
    const marked = await state.readState(MOVED).catch(() => undefined);
    if (marked?.equals(mark)) return rows;
    // A CAS could start on each of them.
    await to.transaction(emptyTables);
    throw error;
  }
  return rows;
}

/** @throws Failure STORE_MOVED */
export async function checkNotMoved(database: Database): Promise<void> {
  const to = await openState(database).readState(MOVED);
  if (to) throw failure('STORE_MOVED', { store: database.name, to: to.toString() });
}
