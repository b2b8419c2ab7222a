import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readYaml } from '../../src/policy/yaml.ts';
import { anyCharacter } from '../support/any-character.ts';
import { problemsOf, variablesFrom } from './support.ts';

const variables = variablesFrom({ A: 'va', B_2: 'b', T: '~', E: '', N: 'null', R: '$A$$SCONE::x$$', D: '$' });

const filled: [yaml: string, value: string | null][] = [
  ['$A', 'va'],
  ['${A}', 'va'],
  ["'$A'", 'va'],
  ['"x\\t$A"', 'x\tva'],
  ['|\n  $A\n  ${B_2}', 'va\nb'],
  ['>-\n  $A\n  ${B_2}', 'va b'],
  ['$A${B_2}/$A-$E.', 'vab/va-.'],
  ['$T', null],
  ['${T}', null],
  ['"$T"', '~'],
  ["'$T'", '~'],
  ['x$T', 'x~'],
  ['$N', 'null'],
  ['$R', '$A$$SCONE::x$$'],
  ['\\$A', '$A'],
  ["'\\$A'", '$A'],
  ['"\\\\$A"', '$A'],
  ['\\${A}', '${A}'],
  ['\\$\\$SCONE::x$A', '$$SCONE::xva'],
  ['$$SCONE::x$$', '$$SCONE::x$$'],
  ['$$SCONE::A$$', '$$SCONE::A$$'],
  ['$$SCONE::x:hex$$$A', '$$SCONE::x:hex$$va'],
  ['$A$$SCONE::x$$$A', 'va$$SCONE::x$$va'],
  ['$$SCONE::$A:hex$$', '$$SCONE::va:hex$$'],
  ['$$SCONE::x-${A}$$', '$$SCONE::x-va$$'],
  ['$$$$', '$$$$'],
  ['$1', '$1'],
  ['$(x)', '$(x)'],
  ['$', '$'],
  ['5$', '5$'],
  ['${}', '${}'],
  ['${A', '${A'],
  ['$D', '$'],
];
for (const [yaml, value] of filled)
  test(`${JSON.stringify(yaml)} becomes ${JSON.stringify(value)}`, () => {
    const { value: read, text } = readYaml(`a: ${yaml}`, variables, true);
    const trimmed = (found: unknown) => (typeof found === 'string' ? found.replace(/\n$/, '') : found);
    assert.equal(trimmed((read as { a: string }).a), value);
    assert.deepEqual(readYaml(text).value, read);
  });

test('keys are not filled in', () => {
  assert.deepEqual(readYaml('$A: 1\n"${A}": {$E: 2}', variables).value, { $A: '1', '${A}': { $E: '2' } });
});

test('without variables, and where there is nothing to fill in, the text stays as it is', () => {
  assert.deepEqual(readYaml('a: [$A, "\\\\$A"] # c').value, { a: ['$A', '\\$A'] });
  const text = '# c\na:   [ 0x1,  $$SCONE::x$$ ]   # $A\n';
  assert.equal(readYaml(text, variables).text, text);
});

const missing: [what: string, text: string, ...places: string[]][] = [
  ['plain', 'a: x $X', '1:6 a'],
  ['in braces', 'a: ${X}', '1:4 a'],
  ['in single quotes', "a:\n  b: 'it''s $X'", '2:13 a.b'],
  ['in double quotes after an escape', 'a: "\\u00e9\\t $X"', '1:14 a'],
  ['in a literal block', 'a:\n  - |\n    one\n    two $X\n', '4:9 a[0]'],
  ['in a folded block', 'a: >-\n\n  one ${X}\n', '3:7 a'],
  ['in a plain text of several lines', 'a: one\n  two $X', '2:7 a'],
  ['inside a reference', 'a: $$SCONE::x$X$$', '1:14 a'],
  ['after a reference', 'a: $$SCONE::x$$$X', '1:16 a'],
  ['twice', 'a: $X-$X', '1:4 a', '1:7 a'],
  ['after a variable that begins alike', 'a: ${A} $A $X', '1:12 a'],
  ['in two values', 'a: $X\nb: [1, $X]', '1:4 a', '2:8 b[1]'],
  ['with Windows line ends', 'a: 1\r\nb: $X\r\n', '2:4 b'],
];
for (const [what, text, ...places] of missing)
  test(`a variable without a value is told with its place: ${what}`, () => {
    assert.deepEqual(
      problemsOf(() => readYaml(text, variables)),
      places.map((place) => `${place}: Value for variable $X is missing`),
    );
  });

const misplaced: [what: string, text: string, place: string, name: string][] = [
  ['after the same name escaped', 'a: \\$X $X', '1:8 a', 'X'],
  ['SCONE after a reference', 'a: $$SCONE::x$$ $SCONE', '1:17 a', 'SCONE'],
  ['in a block whose header comment names it', 'a: | # $X\n  $X\n', '2:3 a', 'X'],
];
for (const [what, text, place, name] of misplaced)
  test(`a variable without a value is told with its place: ${what}`, () => {
    assert.deepEqual(
      problemsOf(() => readYaml(text, variables)),
      [`${place}: Value for variable $${name} is missing`],
    );
  });

test('scalars that hold no variable keep their text', () => {
  for (const scalar of [`${'1234567890'.repeat(6)}1234`, '007', '+5', '1e3', '5.', '.INF', '0x0F', '00e12']) {
    const { text, value } = readYaml(`a: $A\nb: ${scalar}`, variables);
    assert.deepEqual(readYaml(text).value, value, scalar);
  }
});

const rewritten: [what: string, template: string, value: string][] = [
  ['white space in a block', 'a: |\n  $X\n', ' '],
  ['white space and a line end', 'a: $X', ' \n'],
  ['a colon at the end of a line', 'a: $X', ':\n$'],
  ['a mapping in a list', 'a: [$X]', ':\n~'],
  ['a text that begins with a carriage return', 'a:\r$X', 'x'],
  ['a text right after a quoted key', '{"a":$X,"b":[$X,$X]}', 'x'],
];
for (const [what, template, x] of rewritten)
  test(`the filled-in text reads as the template did: ${what}`, () => {
    const { text, value } = readYaml(template, variablesFrom({ X: x }));
    assert.deepEqual(readYaml(text).value, value);
  });

/** Values of any kind, those among them that YAML would take for something. */
const nasty = fc.oneof(
  fc.string({ unit: anyCharacter, maxLength: 12 }),
  fc.string({ unit: fc.constantFrom(...'$~\n :#-|>\'"\\{}[],&*!%@`\tA0'), maxLength: 8 }),
);
const template = [
  'a: $X',
  'b: "q $X q"',
  "c: ['$X', $X, {d: $X}]",
  'e: |',
  '  one $X',
  '  two',
  'f: >-',
  '  $X',
  '$X: 1',
  'g: $$SCONE::n$$ $X',
].join('\n');

test('the value of a variable is text only, and the filled-in text reads as the template did', () => {
  fc.assert(
    fc.property(nasty, (x) => {
      const { text, value } = readYaml(template, variablesFrom({ X: x }));
      const plain = x === '~' ? null : x;
      assert.deepEqual(value, {
        a: plain,
        b: `q ${x} q`,
        c: [x, plain, { d: plain }],
        e: `one ${x}\ntwo\n`,
        f: x,
        $X: '1',
        g: `$$SCONE::n$$ ${x}`,
      });
      assert.deepEqual(readYaml(text).value, value);
    }),
    { numRuns: 400 },
  );
});
