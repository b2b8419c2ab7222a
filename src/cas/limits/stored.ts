import { failure } from '../../errors.ts';
import { asker } from '../observe/correlation.ts';

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
/** Sources that are remembered; whoever has stored little is forgotten first. */
const MOST_SOURCES = 16_384;

/** Bytes that a source may still have stored, as they were at a time (milliseconds). */
const allowances = new Map<string, { left: number; at: number }>();

/**
 * Counts what is stored on behalf of whoever asks, since a client may have any number of keys. What the CAS does by itself
 * is not counted.
 * @param bytes beside an entry of the audit log
 * @throws Failure CAS_BUSY
 */
export function countStored(bytes = 0): void {
  const { source } = asker();
  if (source === '') return;
  const now = performance.now();
  const before = allowances.get(source) ?? { left: AT_ONCE, at: now };
  const left = Math.min(AT_ONCE, before.left + ((now - before.at) / 1000) * A_SECOND) - bytes - ENTRY;
  if (left < 0)
    throw failure('CAS_BUSY', new Error('as much was stored for one address as may be at a time'));
  allowances.delete(source);
  allowances.set(source, { left, at: now });
  if (allowances.size > MOST_SOURCES) forgetOne();
}

/** Of a few that were not here for longest, the one that has stored least. */
function forgetOne(): void {
  const oldest = [...allowances.entries().take(16)];
  const [source] = oldest.reduce((a, b) => (b[1].left > a[1].left ? b : a));
  allowances.delete(source);
}
