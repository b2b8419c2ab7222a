import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { limits } from '../../src/policy/document.ts';
import { formatPath } from '../../src/policy/problem.ts';
import { readYaml } from '../../src/policy/yaml.ts';
import { anyCharacter } from '../support/any-character.ts';
import { onlyInvalidText, problemsOf, variablesFrom } from './support.ts';

test('every scalar but null is the text that was written', () => {
  for (const text of [
    ...['0.3', '0.3.10', '0.30', '1e3', '007', '0o700', '0xFF', '+5', '-0', '.INF', '.nan', 'True', 'no'],
    ...['1234567890123456789012345678901234567890', '2026-01-01', '1:30', '=', '<<'],
  ])
    assert.deepEqual(readYaml(`a: ${text}`).value, { a: text });
  for (const text of ['~', 'null', 'NULL', ''])
    assert.deepEqual(readYaml(`a: ${text}`).value, { a: null }, text);
  for (const text of ["'~'", '"~"', '!!str ~']) assert.deepEqual(readYaml(`a: ${text}`).value, { a: '~' });
  assert.deepEqual(readYaml('{1: a, 0.30: b, true: c}').value, { 1: 'a', '0.30': 'b', true: 'c' });
  assert.equal(readYaml('').value, null);
});

test('anchors, merge keys and tags do nothing but repeat a value', () => {
  assert.deepEqual(readYaml('a: &x {k: 1}\nb: *x').value, { a: { k: '1' }, b: { k: '1' } });
  assert.deepEqual(readYaml('a: &x {k: 1}\nb: {<<: *x}').value, { a: { k: '1' }, b: { '<<': { k: '1' } } });
  assert.deepEqual(readYaml('a: !!binary aGk=\nb: !thing x').value, { a: 'aGk=', b: 'x' });
});

const refused: [what: string, text: string, problem: RegExp][] = [
  ['an unclosed list', 'a: 1\nb: [1, 2', /^2:\d+ /],
  ['an unclosed quote', 'a: "x', /^1:\d+ /],
  ['a tab as indentation', 'a:\n\tb: 1', /^2:\d+ /],
  ['a second document', 'a: 1\n---\nb: 2', /^2:1 .*multiple documents/],
  ['a duplicate key', 'a:\n  b: 1\n  b: 2', /^3:3 a\.b: .*twice/],
  ['a key that is a list', 'a: 1\n? [b]\n: 2', /^2:3 a key must be a text$/],
  ['a value in its own anchor', 'a: &a [*a]', /^1:\d+ .*nested deeper than 64 levels$/],
];
for (const [what, text, problem] of refused)
  test(`${what} is refused with its place`, () => {
    assert.match(problemsOf(() => readYaml(text))[0] ?? '', problem);
  });

test('keys that mean something to JavaScript are refused', () => {
  for (const key of [...Object.getOwnPropertyNames(Object.prototype), 'prototype']) {
    assert.match(
      problemsOf(() => readYaml(`a:\n  ${key}: 1`))[0] ?? '',
      /^2:3 a\.\S+: the key \S+ is not allowed$/,
    );
    assert.throws(() => readYaml(`{"${key}": {x: 1}}`), { name: 'InvalidText' });
  }
  assert.equal(({} as Record<string, unknown>).x, undefined);
});

test('two keys of the same text are refused, whatever their types', () => {
  for (const text of ['1: a\n"1": b', 'true: a\n"true": b', '~: a\n"~": b'])
    assert.throws(() => readYaml(text), { name: 'InvalidText' }, text);
});

test('keys of the same number but different text are different', () => {
  assert.deepEqual(readYaml('1: a\n1.0: b').value, { 1: 'a', '1.0': 'b' });
});

test('an alias without its anchor is refused', () => {
  assert.match(problemsOf(() => readYaml('a: 1\nb: *nope'))[0] ?? '', /^2:4 /);
});

test('an alias stands for the last anchor of its name before it', () => {
  assert.deepEqual(readYaml('a: &x 1\nb: *x\nc: &x 2\nd: *x').value, { a: '1', b: '1', c: '2', d: '2' });
  assert.deepEqual(readYaml('&x a: 1\nb: *x').value, { a: '1', b: 'a' });
  const text = 'a: &x [&y 1]\nb: &y 2\nc: *x\nd: *y';
  assert.deepEqual(readYaml(text).value, { a: ['1'], b: '2', c: ['1'], d: '2' });
});

test('an alias without its anchor is refused where variables are filled in', () => {
  assert.match(problemsOf(() => readYaml('a: $V\nb: *nope', variablesFrom({ V: '1' })))[0] ?? '', /^2:4 /);
});

test('what is too deep, too large or multiplies itself is refused', () => {
  const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);
  readYaml(nested(limits.depth));
  assert.match(
    problemsOf(() => readYaml(nested(limits.depth + 2)))[0] ?? '',
    /nested deeper than 64 levels$/,
  );
  assert.match(problemsOf(() => readYaml('x'.repeat(limits.characters + 1)))[0] ?? '', /longer than 4194304/);
  const bomb = 'abcdefgh'
    .split('')
    .map((name, index, all) => `${name}: &${name} [${Array(10).fill(index ? `*${all[index - 1]}` : 'x')}]`);
  for (const text of [
    bomb.join('\n'),
    ...[nested(5_000), '['.repeat(20_000), '{a: '.repeat(5_000), '- '.repeat(20_000)],
  ])
    assert.throws(() => readYaml(text), { name: 'InvalidText' }, text.slice(0, 20));
});

test('many aliases take no longer than they are many', () => {
  readYaml(`a: &a 1\nb: [${'*a, '.repeat(40_000)}]`);
});

test('what aliases stand for counts each time, in characters too', () => {
  const text = `a: &a ${'x'.repeat(1_000_000)}\nb: [*a, *a, *a, *a]`;
  assert.match(problemsOf(() => readYaml(text)).join(), /more than 4194304 characters, aliases included/);
});

test('a long text of one value is read', () => {
  assert.deepEqual(readYaml(`a: ${'x'.repeat(1_000_000)}`).value, { a: 'x'.repeat(1_000_000) });
});

test('of several syntax errors the first is told, whose place is sure', () => {
  const text = ' a: 1\nb: |\n  x\n  y\nc: }\n';
  onlyInvalidText(text, () => readYaml(text));
  assert.match(problemsOf(() => readYaml(text)).join(), /^2:1 [^,]*$/);
});

test('a syntax error quotes no value, which may be a secret', () => {
  const text = ' a: 1\nvalue: hunter2\n';
  assert.equal(
    problemsOf(() => readYaml(text))
      .join()
      .includes('hunter2'),
    false,
  );
});

test('a problem is placed at the value, at its key where it is empty, or at the nearest one above', () => {
  const yaml = readYaml('a: 1\nb:\n  - x: "1"\n    y:\n  - z\nc: [ p, q ]\n"d e": 5\n');
  const at = (...path: (string | number)[]) => {
    const { line, column } = yaml.problem(path, '');
    return `${line}:${column}`;
  };
  assert.equal(at('a'), '1:4');
  assert.equal(at('b', 0, 'x'), '3:8');
  assert.equal(at('b', 0, 'y'), '4:5');
  assert.equal(at('b', 1), '5:5');
  assert.equal(at('c', 1), '6:9');
  assert.equal(at('d e'), '7:8');
  assert.equal(at('b', 1, 'nope', 3), '5:5');
  assert.equal(at('nope'), '1:1');
  assert.equal(readYaml('').problem(['a', 0], '').line, 1);
  assert.equal(yaml.problem(['b', 0, 'x'], '').path, 'b[0].x');
});

test('a path reads like an expression', () => {
  assert.equal(formatPath([]), '');
  assert.equal(formatPath(['services', 0, 'environment', 'HOME']), 'services[0].environment.HOME');
});

test('any JSON text is read as what it says', () => {
  const leaf = fc.oneof(fc.string(), fc.constant(null));
  const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
    tree: fc.oneof(
      { depthSize: 'small' },
      leaf,
      fc.array(tie('tree')),
      fc.dictionary(
        fc.string().filter((key) => !(key in Object.prototype || key === 'prototype')),
        tie('tree'),
        { noNullPrototype: true },
      ),
    ),
  }));
  fc.assert(
    fc.property(tree, (value) => {
      assert.deepEqual(readYaml(JSON.stringify(value)).value, value);
    }),
    { numRuns: 200 },
  );
});

test('any string is read or refused with places inside it', () => {
  fc.assert(
    fc.property(fc.string({ unit: anyCharacter, maxLength: 60 }), (text) => {
      onlyInvalidText(text, () => readYaml(text));
    }),
    { numRuns: 500 },
  );
});

test('a byte order mark, Windows line ends, directives and document marks change nothing', () => {
  const { value } = readYaml('a: |\n  x\n  y\nb: [1, "z"]\n');
  for (const text of [
    '\ufeffa: |\n  x\n  y\nb: [1, "z"]\n',
    'a: |\r\n  x\r\n  y\r\nb: [1, "z"]\r\n',
    '%YAML 1.2\n---\na: |\n  x\n  y\nb: [1, "z"]\n...\n',
    '%YAML 1.1\n---\na: |\n  x\n  y\nb: [1, "z"]\n',
    '# c\n---   # d\na: |\n  x\n  y\nb: [1, "z"] # e\n',
  ])
    assert.deepEqual(readYaml(text).value, value, text);
});
