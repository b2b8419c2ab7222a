import { setTimeout as sleep } from 'node:timers/promises';

/** Milliseconds that a busy machine has for one thing; less than a test has, so that what was missing is named. */
export const PATIENCE = 300_000;

/** Waits for what becomes true. */
export async function until(condition: () => unknown, what: string): Promise<void> {
  for (const end = performance.now() + PATIENCE; !(await condition()); await sleep(20))
    if (performance.now() > end) throw new Error(`after ${PATIENCE / 1000} s still not: ${what}`);
}
