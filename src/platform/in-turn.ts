/** Does a short piece of work when it is the turn of whom it is for. */
export type InTurn<Who> = <Result>(who: Who, work: () => Result) => Promise<Result>;

/** What waits, by whom it is for, who take turns. */
interface Waiting<Who, Item> {
  add(who: Who, item: Item): void;
  /** What comes next; whom that is for comes last then. */
  next(): Item | undefined;
}

function inRotation<Who, Item>(): Waiting<Who, Item> {
  const waiting = new Map<Who, Item[]>();
  return {
    add(who, item) {
      const items = waiting.get(who);
      if (items) items.push(item);
      else waiting.set(who, [item]);
    },
    next() {
      for (const [who, items] of waiting) {
        const item = items.shift();
        waiting.delete(who);
        if (items.length > 0) waiting.set(who, items);
        return item;
      }
      return undefined;
    },
  };
}

/**
 * @returns a function that begins each work once the one before it has ended, well or not; of those that wait, they take
 *   turns whom it is for
 */
export function oneAtATime(): <Result>(work: () => Promise<Result>, who?: unknown) => Promise<Result> {
  const waiting = inRotation<unknown, () => void>();
  let isBusy = false;
  return async (work, who) => {
    if (isBusy) await new Promise<void>((begin) => waiting.add(who, begin));
    isBusy = true;
    try {
      return await work();
    } finally {
      const begin = waiting.next();
      if (begin) begin();
      else isBusy = false;
    }
  };
}

/** Rounds that work waits at most while connections come. */
const MOST_ROUNDS = 64;
let connections = 0;

/**
 * To be called with each connection that comes. The event loop accepts one each time it comes round (libuv's uv__server_io),
 * so that those of one client would have others wait while long work is done in each round.
 */
export const countConnection = (): void => void connections++;

/** Resolves when the event loop has come round, and no more connections come. */
export async function nextRound(): Promise<void> {
  for (let rounds = 0; rounds < MOST_ROUNDS; rounds++) {
    const before = connections;
    await new Promise((next) => setImmediate(next));
    if (connections === before) return;
  }
}

/**
 * Has several take turns at short work of the main thread, so that nobody waits for more than one piece of each other's,
 * and others are served each time the event loop comes round. The first piece is done at once.
 * @param aRound milliseconds of such work in a round, beside the piece that is begun then; 0: one piece
 */
export function takeTurns<Who>(aRound: number): InTurn<Who> {
  const waiting = inRotation<Who, () => void>();
  let isRoundBegun = false;
  const goOn = async () => {
    await nextRound();
    for (let begin = waiting.next(); begin; begin = waiting.next()) {
      const until = performance.now() + aRound;
      for (; begin; begin = performance.now() < until ? waiting.next() : undefined) {
        begin();
        // Whoever has waited works now.
        await undefined;
      }
      await nextRound();
    }
    isRoundBegun = false;
  };
  return async (who, work) => {
    if (isRoundBegun) await new Promise<void>((begin) => waiting.add(who, begin));
    else {
      isRoundBegun = true;
      void goOn();
    }
    return work();
  };
}
