import { nextRound } from '../../platform/in-turn.ts';
import { createTurns } from './turns.ts';

/** Steps that one request does at once; each takes some microseconds. */
const PIECE = 500;
/** Bytes that are handled in a step. */
export const BYTES_OF_STEP = 4096;
/** Requests of one source that may wait to go on. */
const MOST_WAITING = 4096;

/** One request goes on each time the event loop comes round. */
const turns = createTurns(1, MOST_WAITING);

/**
 * Counts the steps of one request; after so many, what it gives has the request wait until others were served.
 * @throws Failure CAS_BUSY where too many of the same source wait
 */
export type Pace = (steps?: number) => Promise<void> | undefined;

export function createPace(): Pace {
  let done = 0;
  return (steps = 1) => {
    done += steps;
    if (done < PIECE) return undefined;
    done = 0;
    return turns(nextRound);
  };
}

/** Does work that yields how many steps it has done. */
export async function inPieces<Result>(pace: Pace, work: Generator<number, Result>): Promise<Result> {
  for (;;) {
    const { done, value } = work.next();
    if (done) return value;
    const turn = pace(value);
    if (turn) await turn;
  }
}
