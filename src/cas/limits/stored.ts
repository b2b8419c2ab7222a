import { failure } from '../../errors.ts';
import { asker } from '../observe/correlation.ts';
import { createAllowances } from './allowances.ts';

/** How many sessions one client may create, where nobody says otherwise. */
export const SESSIONS_PER_CLIENT = 10_000;
/** Mebibytes that all versions of sessions may have that one client has uploaded, where nobody says otherwise. */
export const MEBIBYTES_PER_CLIENT = 1024;
export const MEBIBYTE = 1024 * 1024;

/** Bytes that an entry of the audit log has, about. */
const ENTRY = 1024;
/** Bytes that one source may have stored at once, and then each second: some hundred releases. */
const AT_ONCE = 256 * MEBIBYTE;
const A_SECOND = MEBIBYTE / 4;
const allowances = createAllowances(AT_ONCE, A_SECOND);

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
  if (allowances.left(source) < bytes + ENTRY)
    throw failure('CAS_BUSY', new Error('as much was stored for one address as may be at a time'));
  allowances.take(source, bytes + ENTRY);
}
