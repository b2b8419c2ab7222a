import { causes } from '../errors.ts';
import type { AuditLog } from './audit-log.ts';
import type { Cas } from './cas.ts';

/** Milliseconds. */
const LOOK_EVERY = 1000;

/**
 * Does what follows here from what other processes of this CAS have done, which the audit log tells. No notification of the
 * database is used, as not every engine has them.
 */
export function followNews(
  cas: Cas,
  audit: Pick<AuditLog, 'news'>,
  reactions: { newKeys(): Promise<void> },
): { stop(): void } {
  let timer: NodeJS.Timeout;
  let isStopped = false;
  const look = async () => {
    try {
      const { entries, replaced } = await audit.news();
      for (const { operation, session } of entries)
        if (operation.startsWith('session_')) cas.watches.changed(String(session));
      const isRestored = replaced || entries.some(({ operation }) => operation === 'store_restored');
      if (replaced) cas.log.error({}, 'the audit log was replaced under this CAS');
      if (isRestored || entries.some(({ operation }) => operation === 'keys_rotated'))
        await reactions.newKeys();
      if (isRestored) cas.watches.allChanged();
      if (isRestored || entries.some(({ operation }) => operation === 'collateral_added'))
        await cas.collateral.reload();
    } catch (error) {
      cas.log.warn(
        { error: causes(error).join(': ') },
        'what other processes have done is not known at present',
      );
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
