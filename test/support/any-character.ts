import fc from 'fast-check';

const SURROGATES = { first: 0xd800, count: 0x800 };

/**
 * Any character of Unicode, as the unit of a string: fast-check's own `binary`, without the table of all of them that takes
 * it over a second to make.
 */
export const anyCharacter = fc
  .nat({ max: 0x10ffff - SURROGATES.count })
  .map(
    (number) => String.fromCodePoint(number < SURROGATES.first ? number : number + SURROGATES.count),
    numberOf,
  );

/** The way back, by which fast-check takes strings of its own that are known to do harm, such as `__proto__`. */
function numberOf(character: unknown): number {
  const code = typeof character === 'string' ? character.codePointAt(0) : undefined;
  if (code === undefined || character !== String.fromCodePoint(code)) throw new Error('not one character');
  return code < SURROGATES.first ? code : code - SURROGATES.count;
}
