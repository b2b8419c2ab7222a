import { createAllowances } from './allowances.ts';

/** Milliseconds of a handshake that cost nothing: more than one takes whose certificate has no long chain. */
const FREE = 5;
/** Milliseconds that the handshakes of one source may take beside that, at once, and then each second. */
const AT_ONCE = 250;
const A_SECOND = 25;
/** Milliseconds for which handshakes are read each time the event loop comes round. */
const A_ROUND = 1;

const allowances = createAllowances(AT_ONCE, A_SECOND);

/** Whether a source may begin another handshake. */
export const mayShakeHands = (source: string): boolean => allowances.left(source) > 0;

/** Counts what reading one message of a handshake took, in milliseconds: for OpenSSL it is one call, which nothing ends. */
export function countHandshake(source: string, milliseconds: number): void {
  if (milliseconds > FREE) allowances.take(source, milliseconds - FREE);
}

/** Reads of records that wait, by source; whose turn it is comes first. */
const waiting = new Map<string, (() => void)[]>();

/**
 * Reads records of handshakes so that sources take turns, and others are served meanwhile.
 * @returns what reads one; rejects once the source may not go on
 */
export function handshakesOf(source: string): (read: () => void) => Promise<void> {
  return (read) =>
    inTurn(source, () => {
      if (!mayShakeHands(source)) throw new Error('its handshakes took long');
      const { user, system } = process.threadCpuUsage();
      read();
      const after = process.threadCpuUsage();
      countHandshake(source, (after.user + after.system - user - system) / 1000);
    });
}

/** Whether something was read since the event loop came round: the first is read at once, so that nobody waits while few come. */
let isRoundBegun = false;

async function inTurn(source: string, work: () => void): Promise<void> {
  if (isRoundBegun) {
    const others = waiting.get(source) ?? [];
    waiting.set(source, others);
    await new Promise<void>((begin) => others.push(begin));
  } else {
    isRoundBegun = true;
    setImmediate(goOn);
  }
  work();
}

async function goOn(): Promise<void> {
  const until = performance.now() + A_ROUND;
  while (waiting.size > 0 && performance.now() < until) {
    const [source, works] = waiting.entries().next().value as [string, (() => void)[]];
    const begin = works.shift();
    waiting.delete(source);
    if (works.length > 0) waiting.set(source, works);
    begin?.();
    // Whoever has waited reads now.
    await undefined;
  }
  if (waiting.size > 0) setImmediate(goOn);
  else isRoundBegun = false;
}
