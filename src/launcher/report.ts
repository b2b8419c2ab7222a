import { writeSync } from 'node:fs';
import { causes, exitOf, Failure } from '../errors.ts';
import type { Address } from '../policy/address.ts';
import { type ConfigId, formatConfigId } from '../policy/names.ts';
import { printable, Refused } from '../protocol/refusal.ts';

/** What the user sees of a launch that failed: what, why, where, and what to do. Never a one-time password. */
export function formatFailure(error: unknown, where?: { cas: Address; configId: ConfigId }): string {
  const [first, ...rest] = causes(error);
  const lines = [
    `[SCONE|FATAL] envcas: Could not start the program: ${first}`,
    ...rest.map((message) => `  Caused by: ${message}`),
  ];
  if (where)
    lines.push(
      `Note: Connecting to CAS at ${where.cas.host} (port ${where.cas.port}) using service ID ${formatConfigId(where.configId)}`,
    );
  const { code, hint } = decisive(error);
  if (hint) lines.push(`Hint: ${hint}`);
  lines.push(`Code: ${code}, exit status ${exitStatus(error)}`);
  return lines.map((line) => `${printable(line)}\n`).join('');
}

/** The declared exit status of the error that decided. */
export function exitStatus(error: unknown): number {
  return exitOf(decisive(error).code);
}

/** The innermost error that has a code: the one a user can do something about. */
function decisive(error: unknown): { code: string; hint: string | undefined } {
  let found: { code: string; hint: string | undefined } = { code: 'INTERNAL', hint: undefined };
  for (let at = error; at instanceof Error; at = at.cause)
    if (at instanceof Failure || at instanceof Refused) found = { code: at.code, hint: at.hint };
  return found;
}

/** The code of the error that decided. */
export const decisiveCode = (error: unknown): string => decisive(error).code;

/** Writes at once, since process.stderr may not have written everything when the process ends. */
export function writeError(text: string): void {
  try {
    writeSync(2, text);
  } catch {
    // Standard error is closed: nobody is there to tell.
  }
}
