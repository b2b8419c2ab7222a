import type { Operation } from '../audit/entry.ts';
import { causes } from '../errors.ts';
import type { AuditLog } from './audit-log.ts';
import type { Cas } from './cas.ts';

/** Milliseconds. */
const LOOK_EVERY = 1000;

/** What is done here when something has happened elsewhere, beside what the parts of a CAS do by themselves. */
export interface Reactions {
  newKeys(): Promise<void>;
  newConfiguration(): Promise<void>;
  sealed(): void;
}

/**
 * Does what follows here from what other processes of this CAS have done, which the audit log tells. No notification of the
 * database is used, as not every engine has them.
 */
export function followNews(cas: Cas, audit: Pick<AuditLog, 'news'>, reactions: Reactions): { stop(): void } {
  let timer: NodeJS.Timeout;
  let isStopped = false;
  /** What is to be done yet: what fails is done when it can be. */
  const due = new Set<() => Promise<void>>();
  const newCollateral = () => cas.collateral.reload();
  const tell = (error: unknown) =>
    cas.log.warn({ error: causes(error).join(': ') }, 'what other processes have done is not known now');
  const look = async () => {
    try {
      const { entries, replaced } = await audit.news();
      if (replaced) cas.log.error({}, 'the audit log was replaced under this CAS');
      const isRestored = replaced || entries.some(({ operation }) => operation === 'store_restored');
      const happened = (...operations: Operation[]) =>
        isRestored || entries.some(({ operation }) => operations.includes(operation));
      if (happened('keys_rotated')) due.add(reactions.newKeys);
      if (happened('provisioned', 'owner_configuration_updated')) due.add(reactions.newConfiguration);
      if (happened('collateral_added')) due.add(newCollateral);
      if (entries.some(({ operation }) => operation === 'cas_sealed')) reactions.sealed();
      if (isRestored) cas.watches.allChanged();
      for (const { operation, session } of entries)
        if (operation === 'session_created' || operation === 'session_updated')
          cas.watches.changed(String(session));
    } catch (error) {
      tell(error);
    }
    for (const reaction of due)
      await reaction().then(
        () => due.delete(reaction),
        (error: unknown) => tell(error),
      );
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
