import { moveStore } from '../cas/store/move.ts';
import { openDatabase } from '../cas/store/open.ts';
import type { Output } from './output.ts';

/** `scone cas migrate --from ADDRESS --to ADDRESS`: moves a store to another database. */
export async function migrateStore({ from, to }: { from: string; to: string }): Promise<Output> {
  const source = await openDatabase(from);
  try {
    const target = await openDatabase(to);
    try {
      const rows = await moveStore(source, target);
      return {
        text: `${rows} rows were copied from ${source.name} to ${target.name}; start the CAS with --store ${to}\n`,
        json: { rows, from: source.name, to: target.name },
      };
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}
