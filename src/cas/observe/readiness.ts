import { randomBytes } from 'node:crypto';
import { causes, failure } from '../../errors.ts';
import type { Cas } from '../cas.ts';
import type { Database } from '../store/database.ts';
import { lateness } from './event-loop.ts';
import { metrics } from './metrics.ts';

/** Why a CAS should be sent no requests at present. */
export interface NotReady {
  reason:
    | 'STORE_UNAVAILABLE'
    | 'AUDIT_LOG_UNAVAILABLE'
    | 'OVERLOADED'
    | 'SEALED'
    | 'SHUTTING_DOWN'
    | 'NOT_RUNNING';
  detail: string;
}

/** Milliseconds that a look at the store may take; how long it is believed; and how late timers may be. */
const ANSWER = 1_000;
const GOOD = 1_000;
const LATE = 1_000;

/** Looks whether launches would be served; a look of just now is not repeated, however many ask. */
export function watchReadiness(
  database: Database,
  audit: Pick<Cas['audit'], 'head'>,
): () => Promise<NotReady[]> {
  let latest: Promise<NotReady[]> | undefined;
  let until = 0;
  const look = async (): Promise<NotReady[]> => {
    const found: NotReady[] = [];
    const attempt = async (reason: NotReady['reason'], work: () => Promise<unknown>): Promise<boolean> => {
      try {
        await within(work());
        return true;
      } catch (error) {
        found.push({ reason, detail: causes(error).join(': ') });
        return false;
      }
    };
    const [canWrite, isWhole] = await Promise.all([
      attempt('STORE_UNAVAILABLE', () => writeSomething(database)),
      attempt('AUDIT_LOG_UNAVAILABLE', async () => {
        const { head } = await audit.head();
        metrics.auditEntries.set(head.size);
      }),
    ]);
    metrics.storeUp.set(canWrite ? 1 : 0);
    metrics.auditUp.set(isWhole ? 1 : 0);
    const late = lateness();
    if (late > LATE) found.push({ reason: 'OVERLOADED', detail: `timers are ${Math.round(late)} ms late` });
    return found;
  };
  return () => {
    if (!latest || performance.now() > until) {
      latest = look();
      until = Number.POSITIVE_INFINITY;
      void latest.finally(() => {
        until = performance.now() + GOOD;
      });
    }
    return latest;
  };
}

/** A row that comes and goes, so that the database has something to write. */
async function writeSomething(database: Database): Promise<void> {
  const name = `readiness/${randomBytes(8).toString('hex')}`;
  await database.transaction(async (statements) => {
    await statements.run('INSERT INTO state (name, value) VALUES ($1, $2)', name, Buffer.of(1));
    await statements.run('DELETE FROM state WHERE name = $1', name);
  });
}

async function within<Result>(work: Promise<Result>): Promise<Result> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(failure('STORE_UNAVAILABLE', { store: 'the store', detail: 'no answer in time' })),
      ANSWER,
    );
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}
