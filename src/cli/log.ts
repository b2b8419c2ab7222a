import { destination, pino } from 'pino';
import type { Log } from '../cas/cas.ts';
import { correlation } from '../cas/observe/correlation.ts';

/** One JSON object a line on standard error, written at once; what belongs to one request or launch has the same `correlation`. */
export function openLog(level: string, name: string): Log {
  const mixin = () => {
    const id = correlation()?.id;
    return id === undefined ? {} : { correlation: id };
  };
  const output = destination({ fd: 2, sync: true });
  return pino(
    { level, name, base: { name }, mixin },
    { write: (line: string) => output.write(escaped(line)) },
  );
}

/** What JSON lets stand, and a terminal would not show as it is: names in it come from anybody. */
function escaped(line: string): string {
  return line.replace(/[\x7f-\x9f\p{Cf}\p{Zl}\p{Zp}]/gu, (character) =>
    Array.from(
      { length: character.length },
      (_, at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`,
    ).join(''),
  );
}
