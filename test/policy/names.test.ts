import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import fc from 'fast-check';
import { causes, Failure } from '../../src/errors.ts';
import { formatConfigId, namePattern, parseConfigId, sessionNamePattern } from '../../src/policy/names.ts';

test('names and the levels of session names have 1 to 512 of some characters', () => {
  for (const name of ['a', 'A.b_c~d-9', '...', '.a', 'x'.repeat(512)]) {
    assert.match(name, namePattern);
    assert.match(name, sessionNamePattern);
  }
  for (const name of ['', 'a b', 'é', 'a\n', 'a@b', 'x'.repeat(513)]) {
    assert.doesNotMatch(name, namePattern);
    assert.doesNotMatch(name, sessionNamePattern);
  }
  assert.match(`a/${'b'.repeat(510)}`, sessionNamePattern);
  assert.match('/', sessionNamePattern);
  for (const name of ['//', '/a', 'a/', 'a//b', '.', '..', 'a/..', './a', 'a/../b', `a/${'b'.repeat(511)}`])
    assert.doesNotMatch(name, sessionNamePattern);
});

const accepted: [id: string, session: string, service: string, code?: string][] = [
  ['s/web', 's', 'web'],
  ['a/b/c/web', 'a/b/c', 'web'],
  ['s/web@123456', 's', 'web', '123456'],
  ['a/b/web@000000', 'a/b', 'web', '000000'],
  ['~/.', '~', '.'],
];
for (const [id, session, service, code] of accepted)
  test(`${id} is a service of a session`, () => {
    const read = parseConfigId(id);
    assert.deepEqual(read, {
      session,
      service,
      ...(code === undefined ? {} : { oneTimePassword: code }),
    });
    assert.equal(formatConfigId(read), `${session}/${service}`);
  });

const refused: [id: string, detail: RegExp][] = [
  ['', /no \/ between/],
  ['web', /no \/ between/],
  ['web@a/b', /no \/ between/],
  ['/web', /before the last \//],
  ['a//web', /before the last \//],
  ['a b/web', /before the last \//],
  ['s/', /after the last \//],
  ['s/é', /after the last \//],
  ['s/web\n', /after the last \//],
  ['s/web@1@2', /more than one @/],
  ['s/web@', /six digits/],
  ['s/web@12345', /six digits/],
  ['s/web@123456\n', /six digits/],
  ['s/web@a/b', /six digits/],
];
for (const [id, detail] of refused)
  test(`${JSON.stringify(id)} is malformed`, () => {
    assert.throws(() => parseConfigId(id), { code: 'CONFIG_ID_MALFORMED', message: detail });
  });

test('any text is read or fails with a declared error that never holds the code', () => {
  const code = fc.stringMatching(/^[0-9]{6}$/);
  const before = fc.oneof(fc.string(), fc.constantFrom('s/web', 'web', '/', 's/', ' s/web', 's/web@'));
  fc.assert(
    fc.property(before, code, fc.constantFrom('', '@', '\n', '/x'), (start, code, end) => {
      try {
        parseConfigId(`${start}@${code}${end}`);
      } catch (error) {
        assert.ok(error instanceof Failure);
        const shown = [...causes(error), error.hint, inspect(error).replace(/\(?file:.*/g, '')].join(' ');
        assert.equal(shown.includes(code), false);
      }
    }),
    { numRuns: 400 },
  );
});

test('a config id that was formatted reads as the same one', () => {
  const level = fc.stringMatching(/^[A-Za-z0-9_.~-]{1,20}$/).filter((text) => !/^\.\.?$/.test(text));
  fc.assert(
    fc.property(fc.array(level, { minLength: 1, maxLength: 4 }), level, (levels, service) => {
      const id = { session: levels.join('/'), service };
      assert.deepEqual(parseConfigId(formatConfigId(id)), id);
    }),
    { numRuns: 200 },
  );
});
