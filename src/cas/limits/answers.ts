import { createCounts } from './counts.ts';

/** Bytes of answers that clients have not taken yet: in all, and those of one source. */
const ON_THE_WAY = 256 * 1024 * 1024;
const ON_THE_WAY_TO_SOURCE = 64 * 1024 * 1024;

const toSource = createCounts();
let total = 0;

/** How many bytes more may be on the way to a source. */
export const roomFor = (source: string): number =>
  Math.min(ON_THE_WAY - total, ON_THE_WAY_TO_SOURCE - toSource.of(source));

/** Counts an answer. @returns what to call once it was taken, or never will be */
export function onTheWay(source: string, bytes: number): () => void {
  const count = (more: number) => {
    total += more;
    toSource.add(source, more);
  };
  count(bytes);
  return () => count(-bytes);
}
