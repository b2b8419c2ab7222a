import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  matchOneTimePassword,
  oneTimePassword,
  parseSharedSecret,
} from '../../src/secrets/one-time-password.ts';
import { Secret } from '../../src/secrets/secret.ts';
import { anyCharacter } from '../support/any-character.ts';

const key = new Secret(Buffer.from('12345678901234567890'));

/** RFC 6238 Appendix B for SHA-1, the last 6 of its 8 digits. */
const vectors: [seconds: number, code: string][] = [
  [59, '287082'],
  [1111111109, '081804'],
  [1111111111, '050471'],
  [1234567890, '005924'],
  [2000000000, '279037'],
  [20000000000, '353130'],
];
for (const [seconds, code] of vectors)
  test(`the code at ${seconds} s is that of RFC 6238`, () => {
    assert.equal(oneTimePassword(key, seconds * 1000), code);
    assert.equal(matchOneTimePassword(key, code, seconds * 1000), Math.floor(seconds / 30));
  });

test('a code is accepted in its own step and in those beside it, to the millisecond, and gives its own step', () => {
  const step = 41152263;
  const start = step * 30_000;
  const code = oneTimePassword(key, start);
  assert.equal(matchOneTimePassword(key, code, start - 30_001), undefined);
  for (const now of [start - 30_000, start - 1, start, start + 29_999, start + 30_000, start + 59_999])
    assert.equal(matchOneTimePassword(key, code, now), step, `${now - start}`);
  assert.equal(matchOneTimePassword(key, code, start + 60_000), undefined);
});

test('the first steps of all time work', () => {
  assert.equal(oneTimePassword(key, 0), '755224');
  assert.equal(matchOneTimePassword(key, '755224', 0), 0);
});

test('what is not six digits is wrong', () => {
  for (const code of [
    ...['', '28708', '2870822', '94287082', ' 287082', '287082\n', '28708a', '+28708', '2.7082', '0x2870'],
    ...['٢٨٧٠٨٢', '287082\0', '999999'],
  ])
    assert.equal(matchOneTimePassword(key, code, 59_000), undefined, JSON.stringify(code));
});

test('any other code and any text is wrong, never an exception', () => {
  const now = 1234567890_000;
  const right = [-1, 0, 1].map((step) => oneTimePassword(key, now + step * 30_000));
  const wrong = fc.oneof(fc.string({ unit: anyCharacter }), fc.stringMatching(/^[0-9]{6}$/));
  fc.assert(
    fc.property(
      wrong.filter((code) => !right.includes(code)),
      (code) => {
        assert.equal(matchOneTimePassword(key, code, now), undefined);
      },
    ),
    { numRuns: 300 },
  );
});

const shared: [text: string, found: string | RegExp][] = [
  ['GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ', '12345678901234567890'],
  ['gezdgnbvgy3tqojqgezdgnbvgy3tqojq', '12345678901234567890'],
  ['GEZDGNBVGY3TQOJQGEZDGNBVGY======', '1234567890123456'],
  ['GEZDGNBVGY3TQOJQGEZDGNBVGY', '1234567890123456'],
  ['GEZDGNBVGY3TQOJQGEZDGNBVG', /at least 128 bits/],
  ['', /at least 128 bits/],
  ['GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJ1', /is base32/],
  ['GEZDGNBV=Y3TQOJQGEZDGNBVGY3TQOJQ', /is base32/],
  ['gézdgnbvgy3tqojqgezdgnbvgy3tqojq', /is base32/],
];
for (const [text, found] of shared)
  test(`${JSON.stringify(text)} is ${typeof found === 'string' ? 'a shared secret' : 'refused, not quoted'}`, () => {
    const parsed = parseSharedSecret(text);
    if (typeof found === 'string') assert.equal(parsed instanceof Secret && `${parsed.reveal()}`, found);
    else assert.match(typeof parsed === 'string' ? parsed : '', found);
  });

test('any text is a shared secret of 16 bytes or more, or a message', () => {
  const base32 = fc.string({ unit: fc.constantFrom(...'ABab27= 1-'), maxLength: 40 });
  fc.assert(
    fc.property(fc.oneof(base32, fc.string({ unit: anyCharacter })), (text) => {
      const parsed = parseSharedSecret(text);
      assert.ok(typeof parsed === 'string' || parsed.reveal().length >= 16);
    }),
    { numRuns: 300 },
  );
});
