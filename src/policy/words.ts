/**
 * Splits a command line into words: white space separates, single and double quotes keep together. Nothing
 * else is special, so a backslash is one.
 *
 * @returns undefined where a quotation mark is not closed
 */
export function splitWords(line: string): string[] | undefined {
  const words: string[] = [];
  const piece = /'([^']*)'|"([^"]*)"|([^\s'"]+)|(\s+)|(['"])/g;
  let word: string | undefined;
  for (const [, single, double, bare, space, open] of line.matchAll(piece)) {
    if (open) return undefined;
    if (space) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? '') + (single ?? double ?? bare ?? '');
  }
  if (word !== undefined) words.push(word);
  return words;
}
