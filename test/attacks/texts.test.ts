import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { limits } from '../../src/policy/document.ts';
import { parseSession } from '../../src/policy/session.ts';
import { readYaml } from '../../src/policy/yaml.ts';
import { problemsOf, sessionText } from '../policy/support.ts';

/** A piece again and again, as often as fits. */
const filledWith = (piece: string, characters: number = limits.characters) =>
  piece.repeat(Math.floor(characters / piece.length));
const numbered = (count: number, line: (index: number) => string) =>
  Array.from({ length: count }, (_, i) => line(i));

const refused: [what: string, text: string, problem: RegExp][] = [
  ['a bracket without end', filledWith('['), /^1:\d+ nested deeper than 64 levels$/],
  ['braces without end', filledWith('{a: '), /^1:\d+ nested deeper than 64 levels$/],
  ['lists in lists', filledWith('- '), /^1:\d+ nested deeper than 64 levels$/],
  ['keys that are keys', filledWith('? '), /^1:\d+ nested deeper than 64 levels$/],
  [
    'ever deeper lines',
    numbered(2000, (i) => `${' '.repeat(i)}a:`).join('\n'),
    /^\d+:\d+ nested deeper than 64 levels$/,
  ],
  ['closing braces', filledWith('}'), /^1:1 Unexpected flow-map-end token/],
  ['closing brackets', filledWith('[]'), /^1:4 Unexpected flow-seq-end token/],
  ['commas', `[${filledWith(',', limits.characters - 2)}]`, /^1:\d+ more than 300000 tokens$/],
  ['quotation marks', filledWith('"'), /^1:\d+ more than 300000 tokens$/],
  ['line ends', filledWith('\n'), /^300001:1 more than 300000 tokens$/],
  ['comments', filledWith('#\n'), /^150001:1 more than 300000 tokens$/],
  ['directives', filledWith('%\n'), /^150001:1 more than 300000 tokens$/],
  ['anchors', filledWith('&a '), /^1:\d+ more than 300000 tokens$/],
  ['tags', filledWith('!a '), /^1:\d+ more than 300000 tokens$/],
  ['empty keys', filledWith(':\n'), /^150000:2 more than 300000 tokens$/],
  ['list items', filledWith('- a\n'), /^60000:4 more than 300000 tokens$/],
  [
    'aliases',
    `a: &a 1\nb: [${filledWith('*a,', limits.characters - 20)}]`,
    /^2:\d+ more than 300000 tokens$/,
  ],
  ['escapes that are none', `"${filledWith('\\q', limits.characters - 2)}"`, /^1:2 Invalid escape sequence$/],
  [
    'a quotation mark left open',
    `"${filledWith('x\n', limits.characters - 1)}`,
    /^\d+:1 Missing closing "quote$/,
  ],
  ['documents', filledWith('--- a\n'), /^2:1 there are multiple documents, expected one$/],
  ['NUL', filledWith('\0'), /^1:1 expected a mapping/],
  ['halves of characters', filledWith('\ud800'), /^1:1 half of a character \(a lone surrogate\) is no text$/],
  ['a text', filledWith('x'), /^1:1 expected a mapping/],
  ['white space', filledWith(' '), /^1:\d+ the session is empty$/],
  [
    'more than is read',
    'x'.repeat(limits.characters + 1),
    /^1:1 the text is longer than 4194304 characters$/,
  ],
];
/** The first problem of each text, without and with variables, as a thread of little memory finds them. */
const firstProblems = new Promise<string[][]>((resolve, reject) => {
  new Worker(new URL('../fixtures/policy/refuse.ts', import.meta.url), {
    workerData: refused.map(([, text]) => text),
    resourceLimits: { maxOldGenerationSizeMb: 384 },
  })
    .on('message', resolve)
    .on('error', reject);
});

describe('a text of any size is refused with the place where it goes wrong', () => {
  for (const [index, [what, , problem]] of refused.entries())
    test(what, async () => {
      const found = (await firstProblems)[index] ?? [];
      assert.equal(found.length, 2);
      for (const first of found) assert.match(first, problem);
    });
});

test('a text of any size is refused in little memory', async () => {
  assert.equal((await firstProblems).length, refused.length);
});

const laughs = 'abcdefghi'
  .split('')
  .map((name, index, all) => `${name}: &${name} [${Array(9).fill(index ? `*${all[index - 1]}` : 'lol')}]`);
const structures: [what: string, text: string, problem: RegExp][] = [
  ['aliases that explode', laughs.join('\n'), /^\d+:\d+ .*more than 100000 values, aliases included$/],
  ['anchors in a circle', 'a: &a {b: &b [*a, *b]}', /^1:\d+ .*nested deeper than 64 levels$/],
  ['a merge of itself', 'a: &a\n  <<: *a', /^2:\d+ .*nested deeper than 64 levels$/],
  ['an alias before its anchor', 'a: *b\nb: &b 1', /^1:4 a: there is no such anchor before this$/],
  [
    'a long key in a mapping that aliases repeat',
    `a: &e {${'k'.repeat(1000)}: v}\nb: [${'*e,'.repeat(5000)}]`,
    /^1:\d+ b\[\d+\]: more than 4194304 characters, aliases included$/,
  ],
  [
    'a key longer than YAML allows',
    `${'k'.repeat(1025)}: v`,
    /^1:1 The : indicator must be at most 1024 chars/,
  ],
  ['two documents', 'a: 1\n---\nb: 2', /^2:1 there are multiple documents, expected one$/],
  [
    'two documents with an end between',
    'a: 1\n...\nb: 2',
    /^\d:1 there are multiple documents, expected one$/,
  ],
  ['a directive without a document', '%YAML 1.2\na: 1', /^\d:\d Missing directives-end/],
  [
    'a merge of a text',
    'a: {<<: x, b: 1}\n__proto__: 1',
    /^2:1 __proto__: the key __proto__ is not allowed$/,
  ],
];
for (const [what, text, problem] of structures)
  test(`${what} is refused with its place`, () => {
    assert.match(problemsOf(() => readYaml(text))[0] ?? '', problem);
  });

test('every key that is not allowed is told', () => {
  const text = 'a: 1\na: 2\n__proto__: 3\n? [b]\n: 4\nc: {d: 1, d: 2, constructor: 3}';
  assert.deepEqual(
    problemsOf(() => readYaml(text)),
    [
      '2:1 a: the key is there twice',
      '3:1 __proto__: the key __proto__ is not allowed',
      '4:3 a key must be a text',
      '6:11 c.d: the key is there twice',
      '6:17 c.constructor: the key constructor is not allowed',
    ],
  );
});

test('a problem is one line that a terminal shows as it is, and not a long one', () => {
  const key = `a\n\u001b[31m\u202e${'k'.repeat(5000)}`;
  const [problem = ''] = problemsOf(() => parseSession(sessionText(`? ${JSON.stringify(key)}\n: 1`)));
  assert.match(problem, /^5:\d+ a\\u\{a\}\\u\{1b\}\[31m\\u\{202e\}kkk/);
  assert.ok(problem.length < 3000);
});

test('a syntax error quotes no value, whichever way it was meant', () => {
  for (const value of [
    ...[
      '|hunter2',
      '>hunter2',
      '"\\hunter2"',
      '"\\Uhunter22"',
      '"hunter2" x',
      "'hunter2' hunter2",
      '@hunter2',
    ],
    ...[
      '`hunter2',
      '%hunter2: x: y',
      'hunter2: x: y',
      '[hunter2',
      '{hunter2',
      '*hunter2 hunter2',
      '&hunter2 &x',
      ']hunter2',
    ],
    ...[
      '"hunter2',
      "'hunter2",
      '!<hunter2',
      '!hunter2!x hunter2',
      '!!float hunter2',
      '? hunter2\nx',
      'x\n  hunter2: y',
    ],
  ])
    for (const text of [`value: ${value}`, `a: [${value}]`, `- ${value}`, value])
      try {
        readYaml(text);
      } catch (error) {
        assert.doesNotMatch(`${error}`, /unter/, text);
      }
});

const slow: [what: string, line: string, problem: RegExp][] = [
  [
    'a path of a session',
    `secrets: [{name: a, import: {secret: a, session: "${filledWith('../', 3_900_000)}!"}}]`,
    /secrets\[0\]\.import\.session: expected the name of a session/,
  ],
  [
    'a duration',
    `secrets: [{name: a, kind: x509, private_key: a, valid_for: "${filledWith('1a', 3_900_000)}!"}]`,
    /secrets\[0\]\.valid_for: expected a duration/,
  ],
  [
    'a variable',
    `access_policy: $$SCONE::${filledWith('$x', 3_900_000)}$$`,
    /access_policy: a \$\$SCONE:: reference is not closed/,
  ],
  [
    'references to nothing',
    [
      `services: [{name: a, command: "${numbered(50_000, (i) => `$$SCONE::n${'m'.repeat(40)}${i}$$`).join('')}"}]`,
      'secrets:',
      ...numbered(2000, (i) => `  - {name: ${'s'.repeat(100)}${i}, kind: ascii}`),
    ].join('\n'),
    /services\[0\]\.command: there is no secret/,
  ],
];
for (const [what, line, problem] of slow)
  test(`${what} of any length is refused`, () => {
    assert.match(problemsOf(() => parseSession(sessionText(line)))[0] ?? '', problem);
  });

test('a text that its variables would make too long is refused', () => {
  const text = `a: [${'$X, '.repeat(1000)}]`;
  assert.match(
    problemsOf(() => readYaml(text, () => 'x'.repeat(100_000)))[0] ?? '',
    /^1:\d+ a\[\d+\]: with its variables, the text is longer than 4194304 characters$/,
  );
});
