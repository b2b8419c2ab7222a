import { destination, pino } from 'pino';
import type { Log } from '../cas/cas.ts';
import { correlation } from '../cas/observe/correlation.ts';
import { escapeUnseen } from '../unseen.ts';

/** One JSON object a line on standard error, written at once; what belongs to one request or launch has the same `correlation`. */
export function openLog(level: string, name: string): Log {
  const mixin = () => {
    const id = correlation()?.id;
    return id === undefined ? {} : { correlation: id };
  };
  const output = destination({ fd: 2, sync: true });
  // Names in it come from anybody, and a terminal may show it.
  return pino(
    { level, name, base: { name }, mixin },
    { write: (line: string) => output.write(escapeUnseen(line)) },
  );
}
