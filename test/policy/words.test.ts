import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { splitWords } from '../../src/policy/words.ts';
import { anyCharacter } from '../support/any-character.ts';

const table: [line: string, words: string[] | undefined][] = [
  ['', []],
  [' \t\n ', []],
  ['a b', ['a', 'b']],
  ['  a\t\n b  ', ['a', 'b']],
  [`'a b' "c d"`, ['a b', 'c d']],
  [`'' ""`, ['', '']],
  [`a'b c'd"e f"`, ['ab cde f']],
  [`"it's" '"'`, ["it's", '"']],
  ['a\\ b "c\\" \\n', ['a\\', 'b', 'c\\', '\\n']],
  ['$x `y` $(z) * ; | & # >', ['$x', '`y`', '$(z)', '*', ';', '|', '&', '#', '>']],
  ["'a", undefined],
  ['a "b', undefined],
  [`"a'`, undefined],
];
for (const [line, words] of table)
  test(`${JSON.stringify(line)} is ${words ? `${words.length} words` : 'not closed'}`, () => {
    assert.deepEqual(splitWords(line), words);
  });

/** Quotes a word so that splitWords gives it back. */
const quote = (word: string) => `'${word.replaceAll("'", `'"'"'`)}'`;

test('quoted words come back as they were', () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: anyCharacter })),
      fc.constantFrom(' ', '\t', '\n  '),
      (words, space) => {
        assert.deepEqual(splitWords(words.map(quote).join(space)), words);
      },
    ),
    { numRuns: 300 },
  );
});

test('any line is split or not closed, and no character is lost or made up', () => {
  const unit = fc.constantFrom(...` \t'"\\ab$`);
  fc.assert(
    fc.property(fc.string({ unit }), (line) => {
      const bare = (text: string) => text.replace(/[\s'"]/g, '');
      const words = splitWords(line);
      if (words) assert.equal(bare(words.join('')), bare(line));
    }),
    { numRuns: 300 },
  );
});
