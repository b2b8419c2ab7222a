import { setTimeout as sleep } from 'node:timers/promises';
import { Failure, reason } from '../errors.ts';
import { unlockMemory } from '../platform/libc.ts';
import type { Configuration } from '../protocol/launch.ts';
import { type CasSession, type Launch, openSession } from './obtain.ts';
import { decisiveCode } from './report.ts';
import type { Settings } from './settings.ts';

/** Milliseconds of the first pause, and of the longest. Each is a random part of twice the one before. */
const FIRST_PAUSE = 200;
const LONGEST_PAUSE = 30_000;

/**
 * A pause before an attempt: random, so that launchers that were cut off at once do not come back at once.
 * @param attempt counted from 0
 */
export function pauseBefore(attempt: number, longest = LONGEST_PAUSE): number {
  return Math.random() * Math.min(longest, FIRST_PAUSE * 2 ** attempt);
}

const TEMPORARY = new Set([
  'CAS_UNREACHABLE',
  'CAS_BUSY',
  'CAS_SEALED',
  'STORE_UNAVAILABLE',
  'LAS_UNREACHABLE',
]);

/** Who is away, may come back; who has refused, would refuse again. */
export function isTemporary(error: unknown): boolean {
  const code = decisiveCode(error);
  // Without a LAS it may be that nobody names the key.
  if (code === 'CAS_KEY_UNKNOWN') return error instanceof Failure && error.cause !== undefined;
  return TEMPORARY.has(code ?? '');
}

/**
 * Connects and asks, and again while CAS or LAS cannot be reached, as long as SCONE_START_TIMEOUT says.
 * @throws the Failure of the last attempt
 */
export async function obtain(
  settings: Settings,
): Promise<{ session: CasSession; configuration: Configuration }> {
  // Whatever the clock is set to meanwhile.
  const deadline = performance.now() + settings.startTimeout;
  const launch: Launch = {};
  for (let attempt = 0; ; attempt++) {
    let session: CasSession | undefined;
    try {
      session = await openSession(settings, launch);
      return { session, configuration: await session.ask() };
    } catch (error) {
      session?.close();
      unlockMemory();
      const pause = pauseBefore(attempt, 5_000);
      if (!isTemporary(error) || performance.now() + pause >= deadline) throw error;
      settings.log('INFO', `trying again in ${Math.round(pause)} ms: ${reason(error)}`);
      await sleep(pause);
    }
  }
}
