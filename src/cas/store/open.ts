import { failure } from '../../errors.ts';
import type { Database } from './database.ts';
import { openSqlite } from './sqlite.ts';

/** Opens the database that an address names: `sqlite:PATH` or `postgres://USER@HOST/DATABASE`. @throws Failure USAGE, or as the engine */
export async function openDatabase(address: string): Promise<Database> {
  if (address.startsWith('sqlite:')) return openSqlite(address.slice('sqlite:'.length));
  if (/^postgres(ql)?:\/\//.test(address) && URL.canParse(address)) {
    // Only who uses it pays for loading it.
    const { openPostgres } = await import('./postgres.ts');
    return openPostgres(address);
  }
  throw failure('USAGE', {
    detail: 'a store is named sqlite:PATH or postgres://USER@HOST/DATABASE, and this is neither',
  });
}
