import { destination, pino } from 'pino';
import type { Log } from '../cas/cas.ts';

/** One JSON object a line on standard error, written at once. */
export function openLog(level: string, name: string): Log {
  return pino({ level, name, base: { name } }, destination({ fd: 2, sync: true }));
}
