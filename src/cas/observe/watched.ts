import { X509Certificate } from 'node:crypto';
import type { Identity } from '../../protocol/certificate.ts';
import type { Cas } from '../cas.ts';
import type { Database } from '../store/database.ts';
import { watchEventLoop } from './event-loop.ts';
import { metrics, readings } from './metrics.ts';
import type { Answers, Question } from './monitoring.ts';
import { watchReadiness } from './readiness.ts';

export interface WatchedParts {
  cas: Cas;
  database: Database;
  identity: () => Identity;
  /** How many connections wait for changes. */
  held: () => number;
}

/** What this process answers to whoever watches its CAS. What is a level, not a count, is looked at then. */
export function watchSelf({ cas, database, identity, held }: WatchedParts) {
  const stopWatching = watchEventLoop();
  const readiness = watchReadiness(database, cas.audit);
  const look = async () => {
    metrics.sealed.set(0);
    metrics.held.set(held());
    metrics.certificateEnd.set(new X509Certificate(identity().certificate).validToDate.getTime() / 1000);
    const ends = cas.collateral.list().map(({ until }) => until / 1000);
    if (ends.length > 0) metrics.collateralEnd.set(ends.reduce((first, end) => Math.min(first, end)));
    else metrics.collateralEnd.forget();
    const reasons = await readiness();
    // Nobody waits for a store that has not answered just now.
    if (reasons.some(({ reason }) => reason === 'STORE_UNAVAILABLE')) return;
    const owner = await cas.store.readState('owner').catch(() => null);
    if (owner !== null) metrics.provisioned.set(owner ? 1 : 0);
  };
  const answers: { [Asked in Question]: () => Promise<Answers[Asked]> } = {
    alive: async () => true,
    readiness,
    async readings() {
      await look();
      return readings();
    },
  };
  return {
    answer: <Asked extends Question>(question: Asked): Promise<Answers[Asked]> => answers[question](),
    stop: stopWatching,
  };
}
