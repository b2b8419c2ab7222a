import { replaceUnseen } from '../unseen.ts';

/** Path to a value of a document: keys of mappings and indices of sequences. */
export type Path = readonly (string | number)[];

/** Something wrong, or doubtful, in a text that a user wrote. Lines and columns count from 1. */
export interface Problem {
  severity: 'error' | 'warning';
  line: number;
  column: number;
  /** Where in the document, such as `services[0].command`; empty for the whole of it. */
  path: string;
  message: string;
  /** What the author probably meant instead, where there is a guess. */
  suggestion?: string;
}

/** The field `suggestion` of a Problem, where there is one. */
export function didYouMean(suggestion: string | undefined): Pick<Problem, 'suggestion'> {
  return suggestion === undefined ? {} : { suggestion };
}

/** `session.yaml:3:7: error: name: …`, the form that editors turn into links. */
export function formatProblem(problem: Problem, file: string): string {
  const path = problem.path ? `${problem.path}: ` : '';
  const guess = problem.suggestion === undefined ? '' : `; did you mean ${problem.suggestion}?`;
  return `${file}:${problem.line}:${problem.column}: ${problem.severity}: ${path}${problem.message}${guess}`;
}

/** More are of no use to a reader. */
export const MOST_PROBLEMS = 100;

/** A text that could not be accepted, with everything that is wrong in it. */
export class InvalidText extends Error {
  override name = 'InvalidText';
  readonly problems: Problem[];

  constructor(problems: Problem[]) {
    super(problems.map((problem) => formatProblem(problem, 'line').replace(/^line:/, 'line ')).join('\n'));
    this.problems = problems;
  }
}

/** Longest message or path that is told, in characters. */
const LONGEST = 1000;

/** A text of a user as it can be shown: without line ends and what else moves a terminal, and not too long. */
export function onOneLine(text: string): string {
  const cut = text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
  return replaceUnseen(cut, (found) => `\\u{${found.codePointAt(0)?.toString(16)}}`);
}

/** `services[0].environment.HOME` */
export function formatPath(path: Path): string {
  return path
    .map((step, index) => (typeof step === 'number' ? `[${step}]` : index === 0 ? step : `.${step}`))
    .join('');
}
