import { failure } from '../../errors.ts';
import { createAllowances } from '../../platform/allowances.ts';
import { asker } from '../observe/correlation.ts';

/** How many sessions one client may create, where nobody says otherwise. */
export const SESSIONS_PER_CLIENT = 10_000;
/** Mebibytes that all versions of sessions may have that one client has uploaded, where nobody says otherwise. */
export const MEBIBYTES_PER_CLIENT = 1024;
export const MEBIBYTE = 1024 * 1024;

/** Entries of the audit log that one source may have written at once, and then each second. */
const entries = createAllowances(262_144, 256);
/** Bytes of versions that one source may have stored at once, and then each second: SQLite writes some fifty a microsecond. */
const versions = createAllowances(64 * MEBIBYTE, MEBIBYTE);
/** Bytes of versions that one source may have stored at once, and then each day. */
const A_DAY = 4096 * MEBIBYTE;
const versionsOfDay = createAllowances(A_DAY, A_DAY / (24 * 3600));

/**
 * Counts what is stored on behalf of whoever asks, since a client may have any number of keys. What the CAS does by itself
 * is not counted.
 * @param bytes beside an entry of the audit log
 * @throws Failure CAS_BUSY
 */
export function countStored(bytes = 0): void {
  const { source } = asker();
  if (source === '') return;
  // What is refused does not count.
  if (entries.left(source) < 1 || Math.min(versions.left(source), versionsOfDay.left(source)) < bytes)
    throw failure('CAS_BUSY', new Error('as much was stored for one address as may be at a time'));
  entries.take(source, 1);
  if (bytes === 0) return;
  versions.take(source, bytes);
  versionsOfDay.take(source, bytes);
}
