import { Conflict, type Database } from '../store/database.ts';
import { metrics, type StoreOperation, since } from './metrics.ts';

/** A database of which is counted how long it takes, and how often it fails. */
export function observeDatabase(database: Database): Database {
  const observed = async <Result>(
    operation: StoreOperation,
    work: () => Promise<Result>,
  ): Promise<Result> => {
    const start = performance.now();
    try {
      return await work();
    } catch (error) {
      // A constraint that decides is not a failure, nor is what a transaction is given up for on purpose.
      if (!(error instanceof Conflict) && isOfStore(error)) metrics.storeFailed({ operation });
      throw error;
    } finally {
      metrics.storeSeconds({ operation }, since(start));
    }
  };
  return {
    engine: database.engine,
    name: database.name,
    all: (sql, ...values) => observed('all', () => database.all(sql, ...values)),
    run: (sql, ...values) => observed('run', () => database.run(sql, ...values)),
    transaction: (work) => observed('transaction', () => database.transaction(work)),
    snapshot: (work) => observed('snapshot', () => database.snapshot(work)),
    close: () => database.close(),
  };
}

const isOfStore = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && String(error.code).startsWith('STORE_');
