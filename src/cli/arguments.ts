import { failure, reason } from '../errors.ts';
import { readFileAtMost } from './input.ts';

/** How deep files of arguments name each other, and how many bytes they have together. */
const DEEPEST = 10;
const LARGEST = 1024 * 1024;

/**
 * Puts in place of each `@FILE` the arguments that stand in it, one a line, which may be `@FILE` again. An argument
 * that begins with an @ of its own is written with two. Empty lines are passed over, and nothing else is special.
 * @throws Failure USAGE
 */
export function expandArguments(args: readonly string[]): string[] {
  let left = LARGEST;
  const expand = (argument: string, depth: number): string[] => {
    if (!argument.startsWith('@')) return [argument];
    if (argument.startsWith('@@')) return [argument.slice(1)];
    if (depth === DEEPEST)
      throw wrong(argument, `it is nested more than ${DEEPEST} deep, perhaps in a circle`);
    const content = read(argument, left);
    left -= content.length;
    const lines = content
      .toString()
      .replace(/^\ufeff/, '')
      .split(/\r?\n/);
    return lines.filter((line) => line !== '').flatMap((line) => expand(line, depth + 1));
  };
  return args.flatMap((argument) => expand(argument, 0));
}

function read(argument: string, left: number): Buffer {
  let content: Buffer;
  try {
    content = readFileAtMost(argument.slice(1), left);
  } catch (error) {
    throw wrong(argument, reason(error));
  }
  if (content.includes(0)) throw wrong(argument, 'it is no text');
  return content;
}

/** Says nothing of what is in the file: it may hold values for `-e`. */
function wrong(argument: string, detail: string) {
  return failure('USAGE', {
    detail: `cannot take arguments from ${argument}: ${detail} (an argument that begins with @ itself is written @@)`,
  });
}
