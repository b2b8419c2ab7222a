import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readYaml } from '../../src/policy/yaml.ts';
import { anyText } from './sessions.ts';
import { problemsOf, variablesFrom } from './support.ts';

/** A piece of a value: how it is written, between double quotation marks too, and what it means. */
interface Piece {
  plain: string;
  double: string;
  /** What is before the variable in it, and after; only the first where there is none. */
  means: [before: string, after?: string];
  variable?: string;
}
const same = (text: string): Piece => ({ plain: text, double: text, means: [text] });
const using = (before: string, written: string, after: string, variable: string): Piece => {
  const text = before + written + after;
  return { plain: text, double: text, means: [before, after], variable };
};
const name = fc.constantFrom('A', 'B2', '_', 'Missing', 'MISSING_2');
const piece: fc.Arbitrary<Piece> = fc.oneof(
  fc
    .constantFrom('a', ' b ', 'é', '😀', '0', '-', '5$ ', '$$ ', '$1', '$(x)', '${}', '$$SCONE::n:hex$$')
    .map(same),
  name.map((variable) => using('', `\${${variable}}`, '', variable)),
  // What follows must not be taken for a part of the name.
  name.map((variable) => using('', `$${variable}`, '.', variable)),
  name.map((variable) => using('$$SCONE::n', `\${${variable}}`, '$$', variable)),
  name.map(
    (variable): Piece => ({
      plain: `\\$${variable} `,
      double: `\\\\$${variable} `,
      means: [`$${variable} `],
    }),
  ),
  fc.constantFrom<Piece>(
    { plain: 'é', double: '\\u00e9', means: ['é'] },
    { plain: '"', double: '\\"', means: ['"'] },
    same("'"),
  ),
);
const pieces = fc.array(piece, { maxLength: 6 });

/** Styles of a value: what stands, and what it means, before its pieces and after. */
const styles = {
  plain: { open: 'x', close: '.', means: ['x', '.'], write: (it: Piece) => it.plain },
  single: { open: "'", close: "'", means: ['', ''], write: (it: Piece) => it.plain.replaceAll("'", "''") },
  double: { open: '"', close: '"', means: ['', ''], write: (it: Piece) => it.double },
  literal: { open: '| # $Missing\n    x', close: '.', means: ['x', '.\n'], write: (it: Piece) => it.plain },
  folded: { open: '>-\n\n    x', close: '.', means: ['\nx', '.'], write: (it: Piece) => it.plain },
} as const;
const style = fc.constantFrom(...(Object.keys(styles) as (keyof typeof styles)[]));
const values = fc.array(fc.record({ style, pieces }), { minLength: 1, maxLength: 5 });

/** A text of lists of one value each, and where each variable is in it. */
function template(all: { style: keyof typeof styles; pieces: Piece[] }[]) {
  let text = '';
  const used: { name: string; place: string }[] = [];
  all.forEach(({ style, pieces }, index) => {
    const { open, close, write } = styles[style];
    text += `${index === 0 ? '' : '\n'}k${index}:\n  - ${open}`;
    for (const it of pieces) {
      const lines = text.split('\n');
      const column = (lines.at(-1)?.length ?? 0) + it.means[0].length + 1;
      if (it.variable) used.push({ name: it.variable, place: `${lines.length}:${column} k${index}[0]` });
      text += write(it);
    }
    text += close;
  });
  return { text, used };
}

test('every variable without a value is told at the line and column where it stands', () => {
  const known = variablesFrom({ A: 'x', B2: '~', _: '' });
  fc.assert(
    fc.property(values, (all) => {
      const { text, used } = template(all);
      const missing = used.filter(({ name }) => known(name) === undefined);
      if (missing.length === 0) return void readYaml(text, known);
      assert.deepEqual(
        problemsOf(() => readYaml(text, known)),
        missing.map(({ name, place }) => `${place}: Value for variable $${name} is missing`),
      );
    }),
    { numRuns: 1500 },
  );
});

test('every variable becomes its value, and nothing else changes', () => {
  fc.assert(
    fc.property(values, fc.func(anyText.map((text) => text.toWellFormed())), (all, filling) => {
      const expected = all.map(({ style, pieces }): [string] => {
        const [open, close] = styles[style].means;
        const middle = pieces.map(({ means: [before, after = ''], variable }) =>
          variable === undefined ? before : before + filling(variable) + after,
        );
        return [open + middle.join('') + close];
      });
      const { value, text } = readYaml(template(all).text, filling);
      assert.deepEqual(value, Object.fromEntries(expected.map((item, index) => [`k${index}`, item])));
      assert.deepEqual(readYaml(text).value, value);
    }),
    { numRuns: 1000 },
  );
});

test('an unquoted ~ is null, and no text that comes to be one by chance', () => {
  const tilde = variablesFrom({ T: '~', E: '' });
  for (const written of ['$T', '${T}', '$T # c', '&a $T'])
    assert.deepEqual(readYaml(`- ${written}`, tilde).value, [null]);
  for (const written of ['"$T"', "'$T'", '~$E', '$E~', '$T$E', '!!str $T', '|-\n  $T'])
    assert.deepEqual(readYaml(`- ${written}`, tilde).value, ['~'], written);
  for (const written of ['$T', '"$T"', '~$E']) {
    const { text, value } = readYaml(`- ${written}`, tilde);
    assert.deepEqual(readYaml(text).value, value);
  }
});
