import { createCounts } from './counts.ts';

/** Bytes of requests, and of answers that clients have not taken yet: in all, and those of one source. */
const HELD = 256 * 1024 * 1024;
const HELD_FOR_SOURCE = 64 * 1024 * 1024;

const forSource = createCounts();
let total = 0;

/** How many bytes more may be held for a source. */
export const roomFor = (source: string): number =>
  Math.min(HELD - total, HELD_FOR_SOURCE - forSource.of(source));

/** Counts a request or an answer. @returns what to call once it is no longer held */
export function hold(source: string, bytes: number): () => void {
  const count = (more: number) => {
    total += more;
    forSource.add(source, more);
  };
  count(bytes);
  return () => count(-bytes);
}
