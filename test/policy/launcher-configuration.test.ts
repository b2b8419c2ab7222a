import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseLauncherConfiguration } from '../../src/policy/launcher-configuration.ts';
import { problemsOf } from './support.ts';

test('it names a program, and which file is written where, under either spelling', () => {
  assert.deepEqual(parseLauncherConfiguration('program: /bin/true'), {
    program: '/bin/true',
    injection_files: [],
  });
  for (const key of ['injection_files', 'injected_file'])
    assert.deepEqual(
      parseLauncherConfiguration(`program: /bin/a b\n${key}:\n  - from: /x\n    to: /run/x\n`),
      { program: '/bin/a b', injection_files: [{ from: '/x', to: '/run/x' }] },
    );
  assert.deepEqual(
    parseLauncherConfiguration(
      'program: /p\ninjected_file: [{from: b, to: /b}]\ninjection_files: [{from: b, to: /a}]',
    ).injection_files,
    [
      { from: 'b', to: '/a' },
      { from: 'b', to: '/b' },
    ],
  );
});

test('a path that holds a secret is refused', () => {
  for (const written of [
    'program: /bin/$$SCONE::p$$',
    'program: /p\ninjection_files: [{from: /x, to: /$$SCONE::d$$/x}]',
  ])
    assert.match(problemsOf(() => parseLauncherConfiguration(written)).join(), /a path holds no secret/);
});

const refused: [what: string, text: string, problem: RegExp][] = [
  ['nothing', '', /^1:1 /],
  ['a text', 'hello', /^1:1 expected a mapping/],
  ['no program', 'injection_files: []', /^1:1 program: the key "program" is missing/],
  [
    'an unknown key',
    'program: /p\nprogramm: /q',
    /^2:\d+ programm: unknown key "programm", expected one of:/,
  ],
  ['an unknown key of a file', 'program: /p\ninjection_files: [{from: a, to: /a, mode: 1}]', /^2:\d+ .*mode/],
  ['a file without `to`', 'program: /p\ninjection_files:\n- from: a', /^3:\d+ .*"to" is missing/],
  ['files that are no list', 'program: /p\ninjection_files: {a: b}', /^2:\d+ .*expected a list/],
  ['an empty program', 'program:', /^1:1 program: expected a text/],
  ['a relative program', 'program: bin/p', /^1:10 program: expected the absolute path of a file/],
  ['a folder as program', 'program: /bin/', /^1:10 program: expected the absolute path of a file/],
  ['the root as program', 'program: /', /^1:10 program: expected the absolute path of a file/],
  ['a NUL in the program', 'program: "/bin/\\0x"', /^1:10 program: expected the absolute path of a file/],
  [
    'a relative target',
    'program: /p\ninjection_files: [{from: a, to: b}]',
    /^2:\d+ injection_files\[0\]\.to: expected the absolute path of a file/,
  ],
  [
    'two files to one target',
    'program: /p\ninjection_files: [{from: a, to: /b}]\ninjected_file: [{from: c, to: /b}]',
    /^2:\d+ injection_files: two files are written to \/b/,
  ],
  ['a duplicate key', 'program: /p\nprogram: /q', /^2:1 .*twice/],
  ['YAML that does not parse', 'program: [', /^1:\d+ /],
];
for (const [what, text, problem] of refused)
  test(`${what} is refused`, () => {
    assert.match(problemsOf(() => parseLauncherConfiguration(text))[0] ?? '', problem);
  });

test('a path that is not absolute is told with its own place', () => {
  const text = 'injection_files: []\nprogram: bin/p';
  assert.match(problemsOf(() => parseLauncherConfiguration(text))[0] ?? '', /^2:10 program: /);
});
