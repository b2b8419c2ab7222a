import { destination, pino } from 'pino';
import type { Log } from '../cas/cas.ts';
import { correlation } from '../cas/observe/correlation.ts';

/** One JSON object a line on standard error, written at once; what belongs to one request or launch has the same `correlation`. */
export function openLog(level: string, name: string): Log {
  const mixin = () => {
    const id = correlation()?.id;
    return id === undefined ? {} : { correlation: id };
  };
  return pino({ level, name, base: { name }, mixin }, destination({ fd: 2, sync: true }));
}
