import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { withKey } from '../../src/cli/session/edit.ts';
import { readYaml, type Value } from '../../src/policy/yaml.ts';

const edited = (text: string, key: string, value: Value) => withKey('file', text, key, value);

test('a value is put in the place of another, and nothing else changes', () => {
  const cases: [before: string, after: string][] = [
    ['# c\nname: old # c\nversion: "0.3"\n', '# c\nname: "new" # c\nversion: "0.3"\n'],
    ["{version: '0.3', name: 'old', x: y}", '{version: \'0.3\', name: "new", x: y}'],
    ['{"name":"old","version":"0.3"}', '{"name": "new","version":"0.3"}'],
    ['name:\nversion: 1\n', 'name: "new"\nversion: 1\n'],
    ['name: ~\nversion: 1', 'name: "new"\nversion: 1'],
    ['name: null # c\nversion: 1\n', 'name: "new" # c\nversion: 1\n'],
    ['name: |\n  old\nversion: 1\n', 'name: "new"\nversion: 1\n'],
    ['name: >-\n  old\n  one\n\n# c\nversion: 1\n', 'name: "new"\n\n# c\nversion: 1\n'],
    ['name: old\n  one\nversion: 1\n', 'name: "new"\nversion: 1\n'],
    ['? name\n: old\n? version\n: 1\n', '? name\n: "new"\n? version\n: 1\n'],
    ['a: &a x\nname: *a\n', 'a: &a x\nname: "new"\n'],
    ['name: !!str old\n', 'name: !!str "new"\n'],
    ['---\n"name": old\r\nb: 1\r\n...\n', '---\n"name": "new"\r\nb: 1\r\n...\n'],
    ['services: [{name: old}]\nname: old', 'services: [{name: old}]\nname: "new"'],
  ];
  for (const [before, after] of cases) assert.equal(edited(before, 'name', 'new'), after);
});

test('a key that is not there comes before the others', () => {
  const cases: [before: string, after: string][] = [
    ['version: 1\nb: 2\n', 'name: "new"\nversion: 1\nb: 2\n'],
    ['# c\n\n  version: 1\n  b: 2\n', '# c\n\n  name: "new"\n  version: 1\n  b: 2\n'],
    ['---\nversion: 1', '---\nname: "new"\nversion: 1'],
    ['%YAML 1.2\n--- # c\n# d\nversion: 1', '%YAML 1.2\n--- # c\n# d\nname: "new"\nversion: 1'],
    ['? version\n: 1\n', 'name: "new"\n? version\n: 1\n'],
    ['!!map\nversion: 1\n', '!!map\nname: "new"\nversion: 1\n'],
    ['{version: 1}\n', '{"name": "new", version: 1}\n'],
    ['--- {\n  "version": 1\n}\n', '--- {"name": "new", \n  "version": 1\n}\n'],
    ['\ufeffversion: 1\n', '\ufeffname: "new"\nversion: 1\n'],
    ['services: [{name: a}]\n', 'name: "new"\nservices: [{name: a}]\n'],
  ];
  for (const [before, after] of cases) assert.equal(edited(before, 'name', 'new'), after);
});

test('what cannot be filled in is told, and never filled in wrongly', () => {
  const strange = ['[a, b]', 'text', '', 'name: [a]\n', 'name: {a: b}\n', 'name: &n old\nb: *n\n'];
  for (const text of strange)
    assert.throws(() => edited(text, 'name', 'new'), { code: 'FILE_INVALID' }, JSON.stringify(text));
  assert.throws(() => edited('name: [', 'name', 'new'), { name: 'InvalidText' });
});

test('whatever the text is like, one key has the new value and the others keep theirs', () => {
  const key = fc.constantFrom('name', 'version', 'predecessor', 'services', 'é');
  const scalar = fc.constantFrom(
    'old',
    '"q"',
    "'s'",
    '~',
    '',
    '|\n  block',
    '>-\n  folded',
    '&x y',
    '[1, 2]',
    '{a: b}',
  );
  const comment = fc.constantFrom('', '# comment\n');
  const line = fc.tuple(key, scalar, comment).map(([name, value, after]) => `${name}: ${value}\n${after}`);
  const value = fc.oneof(fc.string({ unit: 'grapheme' }), fc.record({ signer: fc.string() }));
  let filledIn = 0;
  fc.assert(
    fc.property(
      fc.uniqueArray(line, { minLength: 1, selector: (it) => it.split(':')[0] }),
      key,
      value,
      (lines, name, to) => {
        const text = lines.join('');
        const before = readYaml(text).value as Record<string, Value>;
        let after: string;
        try {
          after = edited(text, name, to);
        } catch (error) {
          return assert.equal((error as { code?: string }).code, 'FILE_INVALID');
        }
        filledIn++;
        assert.deepEqual({ ...(readYaml(after).value as object) }, { ...before, [name]: to });
        assert.equal(after.split('# comment').length, text.split('# comment').length);
      },
    ),
  );
  assert.ok(filledIn > 50);
});
