import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseLauncherConfiguration } from '../../src/policy/launcher-configuration.ts';
import { parseSession, sessionHash } from '../../src/policy/session.ts';
import { anyCharacter } from '../support/any-character.ts';
import { anyText, sessionTree, type Tree } from './sessions.ts';
import { onlyInvalidText, variablesFrom } from './support.ts';
import { written } from './written.ts';

const sessionsIn = (folder: string) =>
  globSync('**/*.{yaml,yml,tpl}', { cwd: resolve(import.meta.dirname, folder) }).map((file) =>
    readFileSync(resolve(import.meta.dirname, folder, file), 'utf8'),
  );
const examples = sessionsIn('../../examples');
const launcher = `program: /usr/sbin/nginx
sha256: ${'ab'.repeat(32)}
user: www-data
umask: 0027
directories: [{path: /run/tls, mode: 0750, generation: true}, {path: /run/web, owner: root}]
injection_files:
  - {from: /key, to: /run/tls/key.pem, mode: 400, group: ssl-cert}
  - {from: /token, to: {fd: 5}}
injected_file: [{from: /page, to: /run/web/page}]
supervise: {on_change: {command: [/bin/kill, -HUP, "1"]}, kill_timeout: 5s, splay: 1 min, redact: true}
`;
/** Those of other people, read where they are; none where they are not there. */
const others = sessionsIn('../../../shared/policies');

/** What breaks a YAML text, or changes what it says. */
const pieces = fc.oneof(
  anyText,
  fc.constantFrom(
    ...[
      '- ',
      ': ',
      '"',
      "'",
      '[',
      ']',
      '{',
      '}',
      ', ',
      '|\n',
      '>-\n',
      '# ',
      '&a ',
      '*a ',
      '!!str ',
      '!!set ',
      '!cas ',
    ],
    ...[
      '? ',
      '<<: *a\n',
      '%YAML 1.1\n---\n',
      '---\n',
      '...\n',
      '\t',
      '\r\n',
      '\r',
      '\ufeff',
      '\0',
      '\ud800',
      '"\\x"',
    ],
    ...['$X', '${Y}', '\\$', '$$SCONE::', '$$', '@@1 @@1', '__proto__: 1\n', '\n', '\n  ', '9'.repeat(400)],
  ),
);
type Edit = { at: number; length: number; piece: string };
const edits = fc.array(fc.record({ at: fc.nat(), length: fc.nat(30), piece: pieces }), {
  minLength: 1,
  maxLength: 4,
});
const edited = (text: string, changes: Edit[]) =>
  changes.reduce((before, { at, length, piece }) => {
    const place = at % (before.length + 1);
    return before.slice(0, place) + piece + before.slice(place + length);
  }, text);

const editedOneOf = (sessions: string[]) =>
  fc.tuple(fc.constantFrom(...sessions, ''), edits).map(([text, changes]) => edited(text, changes));

const bytes = fc.uint8Array({ maxLength: 200 });
const texts: [what: string, texts: fc.Arbitrary<string>, runs: number][] = [
  ['any text', fc.oneof(anyText, fc.string({ unit: anyCharacter, maxLength: 200 })), 1000],
  ['any bytes, decoded', bytes.map((found) => Buffer.from(found).toString()), 1000],
  ['any 16-bit units', bytes.map((found) => Buffer.from(found).toString('utf16le')), 500],
  ['pieces of YAML', fc.array(pieces, { maxLength: 30 }).map((found) => found.join('')), 1500],
  ['an example with edits', editedOneOf(examples), 800],
  ["a launcher's configuration with edits", editedOneOf([launcher]), 800],
  ['a session of other people with edits', editedOneOf(others), 800],
];
for (const [what, text, numRuns] of texts)
  test(`${what} ends as a session, or in problems with places inside it`, {
    skip: /other people/.test(what) && others.length === 0 ? 'there are none' : false,
  }, () => {
    fc.assert(
      fc.property(text, anyText, (found, x) => {
        onlyInvalidText(found, () => parseSession(found));
        onlyInvalidText(found, () => parseSession(found, () => x));
        onlyInvalidText(found, () => parseSession(found, variablesFrom({ X: x })));
        onlyInvalidText(found, () => parseLauncherConfiguration(found));
      }),
      { numRuns },
    );
  });

const choices = fc.infiniteStream(fc.nat()).map((stream) => (among: number) => stream.next().value % among);

test('a session is the same however it is written', () => {
  fc.assert(
    fc.property(sessionTree, choices, (tree, choose) => {
      const expected = parseSession(JSON.stringify(tree)).session;
      const { session } = parseSession(written(tree, choose));
      assert.deepEqual(session, expected);
      assert.equal(sessionHash(session, null), sessionHash(expected, null));
    }),
    { numRuns: 400 },
  );
});

/** Every place of a tree, as the keys and indices that lead there. */
function placesOf(tree: Tree, path: string[] = []): string[][] {
  if (typeof tree !== 'object' || tree === null) return [path];
  return [path, ...Object.entries(tree).flatMap(([key, item]) => placesOf(item, [...path, key]))];
}

/** The tree with what stands at a place put through a function. */
function changedAt(tree: Tree, [step, ...rest]: string[], change: (before: Tree) => Tree): Tree {
  if (step === undefined) return change(tree);
  if (typeof tree !== 'object' || tree === null) return tree;
  const entries = Object.entries(tree).map(([key, item]): [string, Tree] => [
    key,
    key === step ? changedAt(item, rest, change) : item,
  ]);
  return Array.isArray(tree) ? entries.map(([, item]) => item) : Object.fromEntries(entries);
}

const misplaced: fc.Arbitrary<Tree> = fc.oneof(
  anyText,
  fc.constantFrom<Tree>(
    null,
    '',
    '0',
    '-1',
    '1.5',
    '9'.repeat(30),
    'x'.repeat(600),
    [],
    {},
    [[]],
    [null],
    ['x', 'x'],
  ),
  fc.constantFrom<Tree>(
    '$$SCONE::the-key$$',
    '$$SCONE::nothing:hex$$',
    '$$SCONE::',
    '../..',
    '/',
    'ANY',
    'require-all',
  ),
  sessionTree,
);

test('a well-formed text that is no session ends in problems with places inside it', () => {
  let refused = 0;
  fc.assert(
    fc.property(
      sessionTree,
      fc.array(fc.tuple(fc.nat(), misplaced), { minLength: 1, maxLength: 3 }),
      choices,
      (session, changes, choose) => {
        const tree = changes.reduce((before: Tree, [at, value]) => {
          const places = placesOf(before);
          return changedAt(before, places[at % places.length] ?? [], () => value);
        }, session);
        const text = written(tree, choose);
        if (!onlyInvalidText(text, () => parseSession(text))) refused++;
      },
    ),
    { numRuns: 800 },
  );
  assert.ok(refused > 200, `only ${refused} were refused`);
});

test('a value filled in is the value written there, whatever it holds', () => {
  fc.assert(
    fc.property(sessionTree, choices, (tree, choose) => {
      const values: Record<string, string> = {};
      let template: Tree = tree;
      for (const place of placesOf(tree))
        template = changedAt(template, place, (value) => {
          // Unquoted, ~ would become null.
          if (typeof value !== 'string' || value === '~') return value;
          if (!/[$\\]/.test(value) && choose(2)) return value;
          const variable = `V${Object.keys(values).length}`;
          values[variable] = value;
          return `\${${variable}}`;
        });
      const expected = parseSession(JSON.stringify(tree)).session;
      const { session, text } = parseSession(written(template, choose), variablesFrom(values), true);
      assert.deepEqual(session, expected);
      assert.deepEqual(parseSession(text).session, expected);
      assert.equal(sessionHash(parseSession(text).session, null), sessionHash(expected, null));
    }),
    { numRuns: 400 },
  );
});

/** Values of the variables in our own files. */
const usual = variablesFrom({
  ...{ MRENCLAVE: 'ab'.repeat(32), DIR: '/tmp', APP: '/app', PORT: '1', OTP_SECRET: 'A'.repeat(32) },
  ...{ SESSION: 's', CLIENT_SESSION: 'c', SERVER_SESSION: 's' },
  ...{ RUN_AS: 'www-data', DBA: 'postgres', PGHOST: '/run', PGPORT: '5432' },
});

test('what is filled in reads as it was, also in a text that was edited', () => {
  let accepted = 0;
  fc.assert(
    fc.property(fc.constantFrom(...examples), edits, anyText, (file, changes, x) => {
      const text = edited(file, changes.slice(0, 1));
      const filled = onlyInvalidText(text, () => parseSession(text, (name) => usual(name) ?? x));
      if (!filled) return;
      accepted++;
      assert.deepEqual(parseSession(filled.text).session, filled.session);
    }),
    { numRuns: 800 },
  );
  assert.ok(accepted > 100, `only ${accepted} were accepted`);
});
