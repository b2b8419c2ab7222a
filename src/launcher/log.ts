import { failure } from '../errors.ts';
import { printable } from '../protocol/refusal.ts';
import { writeError } from './report.ts';

const levels = ['FATAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG', 'TRACE'] as const;
export type Level = (typeof levels)[number];

/** Writes a line on standard error where SCONE_LOG asks for lines of this level. It never holds a released value. */
export type Log = (level: Level, message: string) => void;

/** @throws Failure SETTING_MALFORMED */
export function createLog(written = 'WARNING'): Log {
  const most = levels.indexOf(written.toUpperCase() as Level);
  if (most < 0)
    throw failure('SETTING_MALFORMED', { name: 'SCONE_LOG', detail: `expected one of ${levels.join(', ')}` });
  return (level, message) => {
    if (levels.indexOf(level) <= most) writeError(`[SCONE|${level}] envcas: ${printable(message)}\n`);
  };
}
