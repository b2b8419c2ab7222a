import { Failure, reason } from '../../errors.ts';
import type { Log } from '../cas.ts';
import type { Database } from '../store/database.ts';

const MINUTE = 60_000;

/**
 * Says in the log that somebody has put something in the place of tables under a running CAS, for as long as it is there.
 * @param every milliseconds between two looks
 */
export function watchTables(database: Database, log: Log, every = MINUTE): { stop(): void } {
  const look = async () => {
    try {
      // It begins with a look at the tables.
      await database.snapshot(async () => {});
    } catch (error) {
      // A store that is away is told of by all who need it.
      if (error instanceof Failure && error.code === 'STORE_DAMAGED')
        log.error({ error: reason(error) }, 'the tables of the store are not those that it was made with');
    }
  };
  const timer = setInterval(look, every).unref();
  return { stop: () => clearInterval(timer) };
}
