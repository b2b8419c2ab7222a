/** Does a piece of work when it is the turn of whom it is for. */
export type InTurn<Who> = <Result>(who: Who, work: () => Result) => Promise<Result>;

/**
 * Has several take turns at short work of the main thread, so that nobody waits for more than one piece of each other's,
 * and others are served each time the event loop comes round. The first piece of a round is done at once.
 * @param aRound milliseconds of such work in a round, beside the piece that is begun then
 */
export function takeTurns<Who>(aRound: number): InTurn<Who> {
  /** Whose turn it is comes first. */
  const waiting = new Map<Who, (() => void)[]>();
  let isRoundBegun = false;
  const goOn = async () => {
    const until = performance.now() + aRound;
    while (waiting.size > 0 && performance.now() < until) {
      const [who, begins] = waiting.entries().next().value as [Who, (() => void)[]];
      const begin = begins.shift();
      waiting.delete(who);
      if (begins.length > 0) waiting.set(who, begins);
      begin?.();
      // Whoever has waited works now.
      await undefined;
    }
    if (waiting.size > 0) setImmediate(goOn);
    else isRoundBegun = false;
  };
  return async (who, work) => {
    if (isRoundBegun) {
      const begins = waiting.get(who) ?? [];
      waiting.set(who, begins);
      await new Promise<void>((begin) => begins.push(begin));
    } else {
      isRoundBegun = true;
      setImmediate(goOn);
    }
    return work();
  };
}
