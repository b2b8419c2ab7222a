import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseDuration } from '../../src/secrets/duration.ts';

const DAY = 86_400_000;

const durations: [text: string, milliseconds: number][] = [
  ['90 days', 90 * DAY],
  ['59d', 59 * DAY],
  ['1 year', 31_557_600_000],
  ['3560d', 3560 * DAY],
  ['24h', DAY],
  ['30 minutes', 1_800_000],
  ['5m', 300_000],
  ['90 secs', 90_000],
  ['250ms', 250],
  ['1s 500 millis', 1500],
  ['2 weeks', 14 * DAY],
  ['12 months', 31_557_600_000],
  ['12M', 31_557_600_000],
  ['1 year 6 months', 47_336_400_000],
  ['1d12h30min5s', DAY + 45_005_000],
  ['  1   day\t2 hrs\n', DAY + 7_200_000],
  ['0 years 1 day', DAY],
  ['10000 years', 10_000 * 31_557_600_000],
];
for (const [text, milliseconds] of durations)
  test(`${JSON.stringify(text)} is a duration`, () => assert.equal(parseDuration(text), milliseconds));

const others = [
  '',
  ' ',
  '90',
  'days',
  'a day',
  '0 days',
  '0',
  '-1 day',
  '1.5 years',
  '1 fortnight',
  '1 day ago',
  '1 day and 2 hours',
  '1 Day',
  'd1',
  '1d2',
  '10000 years 1s',
  '999999999999999 years',
  `${'9'.repeat(400)} days`,
  '١ day',
  '1 constructor',
];
for (const text of others)
  test(`${JSON.stringify(text.slice(0, 30))} is no duration`, () =>
    assert.equal(parseDuration(text), undefined));

test('parts add up, in any order and spacing', () => {
  const part = fc.record({
    number: fc.integer({ min: 0, max: 10_000 }),
    unit: fc.constantFrom('s', 'min', 'hours', 'd', 'week', 'months'),
    space: fc.constantFrom('', ' ', '  '),
  });
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 6 }), (parts) => {
      const texts = parts.map(({ number, space, unit }) => `${number}${space}${unit}`);
      const sum = texts.reduce((total, text) => total + (parseDuration(text) ?? 0), 0);
      assert.equal(parseDuration(texts.join('')), sum || undefined);
      assert.equal(parseDuration(texts.reverse().join(' ')), sum || undefined);
    }),
  );
});

test('a long text that is no duration is told at once', () => {
  for (const text of ['1 '.repeat(100_000), `${'1d'.repeat(100_000)}!`, `1${' '.repeat(200_000)}!`])
    assert.equal(parseDuration(text), undefined);
});
