import { metrics } from './metrics.ts';

/** Milliseconds between two looks. */
const PERIOD = 500;
let expected = 0;
let late = 0;

/** Looks from now on how late timers are. @returns what ends it */
export function watchEventLoop(): () => void {
  expected = performance.now() + PERIOD;
  const timer = setInterval(() => {
    const now = performance.now();
    late = Math.max(0, now - expected);
    metrics.loopSeconds({}, late / 1000);
    expected = now + PERIOD;
  }, PERIOD).unref();
  return () => {
    clearInterval(timer);
    late = 0;
  };
}

/** How late the last timer was, in milliseconds. */
export const lateness = (): number => late;
