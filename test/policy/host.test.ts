import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hostVariable, parseHostArguments } from '../../src/policy/host.ts';

test('a word is taken apart at @@ and a number', () => {
  for (const [word, parts] of [
    ['', ['']],
    ['a', ['a']],
    ['@@1', [{ argument: 1 }]],
    ['x@@2y@@10', ['x', { argument: 2 }, 'y', { argument: 10 }]],
    ['@@123456', [{ argument: 123456 }]],
    ['@@@1', ['@', { argument: 1 }]],
    ['@@0 @@01 @@ @@-1 @1', ['@@0 @@01 @@ @@-1 @1']],
    [`@@${'9'.repeat(400)}`, [`@@${'9'.repeat(400)}`]],
  ] as const)
    assert.deepEqual(parseHostArguments(word), parts, word);
});

test('the parts of any word make it up again', () => {
  const unit = fc.constantFrom('@', '@@', '0', '1', '12', 'x', '\n', '$$SCONE::a$$');
  fc.assert(
    fc.property(fc.string({ unit }), (word) => {
      const parts = parseHostArguments(word);
      assert.equal(
        parts.map((part) => (typeof part === 'string' ? part : `@@${part.argument}`)).join(''),
        word,
      );
    }),
    { numRuns: 500 },
  );
});

test('a key that begins with @@ names a variable of the host, whatever the rest is', () => {
  for (const [key, name] of [
    ['\\@\\@HOME', 'HOME'],
    ['@@HOME', 'HOME'],
    ['@@@', '@'],
    ['@@A\nB', 'A\nB'],
    ['@@', undefined],
    ['HOME', undefined],
    [' @@HOME', undefined],
    ['\\@@HOME', undefined],
  ] as const)
    assert.equal(hostVariable(key), name, key);
});
