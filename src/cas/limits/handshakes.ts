import { createAllowances } from '../../platform/allowances.ts';
import { takeTurns } from '../../platform/in-turn.ts';

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

const inTurn = takeTurns<string>(A_ROUND);

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
