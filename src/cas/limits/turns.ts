import { failure } from '../../errors.ts';
import { asker } from '../observe/correlation.ts';

/** Who waits: by source, then by identity, since one source can have any number of those. */
type Waiting = Map<string, Map<string, (() => void)[]>>;

/** Pieces of work of one source that may wait, where nobody says otherwise. */
const MOST_WAITING = 256;

/** Does a piece of work when its turn has come, unless whoever asked has gone by then. @throws Failure CAS_BUSY */
export type Turns = <Result>(work: () => Promise<Result>) => Promise<Result>;

/**
 * Has sources take turns, and identities of one source, so that nobody waits for more than one piece of each other's work.
 * @param atOnce pieces of work that are done at a time
 * @param most pieces of work of one source that may wait
 */
export function createTurns(atOnce: number, most = MOST_WAITING): Turns {
  const waiting: Waiting = new Map();
  let running = 0;
  const next = () => {
    const begin = takeFirst(waiting);
    if (begin) begin();
    else running--;
  };
  return async (work) => {
    if (running < atOnce) running++;
    else await new Promise<void>((begin) => wait(waiting, begin, most));
    try {
      if (asker().gone?.aborted) throw failure('CAS_BUSY', new Error('whoever asked has gone'));
      return await work();
    } finally {
      next();
    }
  };
}

function wait(waiting: Waiting, begin: () => void, most: number): void {
  const { source, identity } = asker();
  const identities = waiting.get(source) ?? new Map<string, (() => void)[]>();
  let count = 0;
  for (const { length } of identities.values()) count += length;
  if (count >= most) throw failure('CAS_BUSY');
  waiting.set(source, identities.set(identity, [...(identities.get(identity) ?? []), begin]));
}

/** Whose turn it is; after it he comes last, and so does that identity among those of its source. */
function takeFirst(waiting: Waiting): (() => void) | undefined {
  const [first] = waiting;
  if (!first) return undefined;
  const [source, identities] = first;
  const [identity, [begin, ...others]] = identities.entries().next().value as [string, (() => void)[]];
  waiting.delete(source);
  identities.delete(identity);
  if (others.length > 0) identities.set(identity, others);
  if (identities.size > 0) waiting.set(source, identities);
  return begin;
}
