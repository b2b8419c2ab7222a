import { styleText } from 'node:util';
import { causes, errors, exitOf, Failure } from '../errors.ts';
import { formatProblem, InvalidText, type Problem } from '../policy/problem.ts';
import { printable, Refused } from '../protocol/refusal.ts';
import { escapeUnseen } from '../unseen.ts';

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

let inJson = false;

/** From now on, what goes to standard error is JSON, one object a line. */
export function reportInJson(): void {
  inJson = true;
}

/** Tells the user on standard error of something doubtful. */
export function warn(message: string): void {
  say({ warning: { message } }, `${style('yellow', 'Warning:')} ${printable(message)}\n`);
}

/** Tells the user of something doubtful in a file. */
export function warnOf(file: string, problem: Problem): void {
  say({ warning: { file, ...problem } }, showProblem(file, problem));
}

/**
 * Tells the user of an error.
 * @returns the exit status that goes with it
 */
export function report(error: unknown): number {
  if (error instanceof InvalidFile) {
    const { file, cause } = error;
    const problems = cause.problems.map((problem) => ({ file, ...problem }));
    say({ problems }, cause.problems.map((problem) => showProblem(file, problem)).join(''));
    return errors.POLICY_INVALID.exit;
  }
  const { code, hint } = codeOf(error);
  const exit = exitOf(code);
  const [first = '', ...rest] = causes(error);
  const lines = [
    `${style('red', 'Error:')} ${printable(first)}`,
    ...rest.map((message) => `  Caused by: ${printable(message)}`),
    ...(hint ? [`Hint: ${printable(hint)}`] : []),
    `Code: ${code}, exit status ${exit}`,
  ];
  say({ error: { code, messages: [first, ...rest], hint, exit } }, `${lines.join('\n')}\n`);
  return exit;
}

function codeOf(error: unknown): { code: string; hint: string | undefined } {
  if (error instanceof Failure || error instanceof Refused) return { code: error.code, hint: error.hint };
  const code = error instanceof InvalidText ? 'POLICY_INVALID' : 'INTERNAL';
  return { code, hint: errors[code].hint };
}

function showProblem(file: string, problem: Problem): string {
  const { severity } = problem;
  const label = style(severity === 'error' ? 'red' : 'yellow', `${severity}:`);
  return `${printable(formatProblem(problem, file)).replace(`: ${severity}: `, () => `: ${label} `)}\n`;
}

function say(json: object, text: string): void {
  process.stderr.write(inJson ? `${escapeUnseen(JSON.stringify(json))}\n` : text);
}

/** Colours only on a terminal, and there as NO_COLOR and its like have it. */
function style(colour: 'red' | 'yellow', text: string): string {
  return styleText(colour, text, { stream: process.stderr });
}
