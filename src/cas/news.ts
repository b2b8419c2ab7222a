import type { Operation } from '../audit/entry.ts';
import { causes } from '../errors.ts';
import type { AuditLog, News } from './audit-log.ts';
import type { Cas } from './cas.ts';

/** Milliseconds. */
const LOOK_EVERY = 1000;

/** What is done here when something has happened, beside what the parts of a CAS do by themselves. */
export interface Reactions {
  newKeys(): Promise<void>;
  newConfiguration(): Promise<void>;
  sealed(): void;
}

/**
 * Does what follows here from what processes of this CAS have done, this one too, which the audit log tells. No notification of the
 * database is used, as not every engine has them.
 */
export function followNews(cas: Cas, audit: Pick<AuditLog, 'news'>, reactions: Reactions): { stop(): void } {
  let timer: NodeJS.Timeout;
  let isStopped = false;
  const react = async ({ entries, replaced }: News) => {
    if (replaced) cas.log.error({}, 'the audit log was replaced under this CAS');
    const isRestored = replaced || entries.some(({ operation }) => operation === 'store_restored');
    const happened = (...operations: Operation[]) =>
      isRestored || entries.some(({ operation }) => operations.includes(operation));
    if (entries.some(({ operation }) => operation === 'cas_sealed')) reactions.sealed();
    if (happened('keys_rotated')) await reactions.newKeys();
    if (happened('provisioned', 'owner_configuration_updated')) await reactions.newConfiguration();
    if (happened('collateral_added')) await cas.collateral.reload();
    if (isRestored) cas.watches.allChanged();
    for (const { operation, session } of entries)
      if (operation === 'session_created' || operation === 'session_updated')
        cas.watches.changed(String(session));
  };
  const look = async () => {
    try {
      await audit.news(react);
    } catch (error) {
      const reason = causes(error).join(': ');
      cas.log.warn({ error: reason }, 'what has changed is not taken up yet, and tried again');
    }
    if (!isStopped) timer = setTimeout(look, LOOK_EVERY).unref();
  };
  timer = setTimeout(look, LOOK_EVERY).unref();
  return {
    stop() {
      isStopped = true;
      clearTimeout(timer);
    },
  };
}
