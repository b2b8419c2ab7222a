import { createAllowances } from './allowances.ts';

/** Milliseconds of a handshake that cost nothing: more than one takes whose certificate has no long chain. */
const FREE = 5;
/** Milliseconds that the handshakes of one source may take beside that, at once, and then each second. */
const AT_ONCE = 250;
const A_SECOND = 25;

const allowances = createAllowances(AT_ONCE, A_SECOND);

/** Whether a source may begin another handshake. */
export const mayShakeHands = (source: string): boolean => allowances.left(source) > 0;

/** Counts what reading one message of a handshake took, in milliseconds: for OpenSSL it is one call, which nothing ends. */
export function countHandshake(source: string, milliseconds: number): void {
  if (milliseconds > FREE) allowances.take(source, milliseconds - FREE);
}
