import { causes, type ErrorCode, errors, Failure } from '../errors.ts';
import { formatProblem, InvalidText } from '../policy/problem.ts';
import { printable, Refused } from '../protocol/refusal.ts';

/** A text of the user's that is wrong, and the file it came from. */
export class InvalidFile extends Error {
  override name = 'InvalidFile';
  readonly file: string;
  override readonly cause: InvalidText;

  constructor(file: string, cause: InvalidText) {
    super(cause.message);
    this.file = file;
    this.cause = cause;
  }
}

/** What `scone` prints of an error on standard error. */
export function formatError(error: unknown): string {
  if (error instanceof InvalidFile)
    return error.cause.problems
      .map((problem) => `${printable(formatProblem(problem, error.file))}\n`)
      .join('');
  const [first, ...rest] = causes(error);
  const lines = [`Error: ${first}`, ...rest.map((message) => `  Caused by: ${message}`)];
  const { code, hint } = codeOf(error);
  if (hint) lines.push(`Hint: ${hint}`);
  lines.push(`Code: ${code}, exit status ${exitStatus(error)}`);
  return lines.map((line) => `${printable(line)}\n`).join('');
}

export function exitStatus(error: unknown): number {
  const { code } = codeOf(error);
  return errors[code].exit;
}

function codeOf(error: unknown): { code: ErrorCode; hint: string | undefined } {
  if (error instanceof InvalidFile || error instanceof InvalidText)
    return { code: 'POLICY_INVALID', hint: errors.POLICY_INVALID.hint };
  if (error instanceof Failure || error instanceof Refused) return { code: error.code, hint: error.hint };
  return { code: 'INTERNAL', hint: errors.INTERNAL.hint };
}
