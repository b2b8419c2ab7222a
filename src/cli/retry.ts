import { setTimeout as sleep } from 'node:timers/promises';
import { Failure } from '../errors.ts';

/** Milliseconds before the first further attempt, doubled before each one after it, and the longest of them. */
const FIRST_PAUSE = 200;
const LONGEST_PAUSE = 2_000;

/**
 * Connects, and where that fails because the CAS cannot be reached, does so up to `retries` more times. Nothing has
 * been asked by then, so nothing happens twice.
 */
export async function withRetries<Connection>(
  retries: number,
  connect: () => Promise<Connection>,
): Promise<Connection> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await connect();
    } catch (error) {
      if (attempt >= retries || !(error instanceof Failure) || error.code !== 'CAS_UNREACHABLE') throw error;
    }
    await sleep(Math.min(FIRST_PAUSE * 2 ** attempt, LONGEST_PAUSE));
  }
}
