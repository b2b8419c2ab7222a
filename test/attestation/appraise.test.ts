import assert from 'node:assert/strict';
import { test } from 'node:test';
import { appraise } from '../../src/attestation/appraise.ts';
import type { ErrorCode } from '../../src/errors.ts';

const good = 'aa'.repeat(32);
const bad = 'bb'.repeat(32);
const here = '11'.repeat(32);
const there = '22'.repeat(32);

/** What the platform is to the policy and the operator. */
const places = {
  'trusted, anywhere': { trustedPlatforms: [there, here], platforms: [], codes: [] },
  'trusted, listed': { trustedPlatforms: [here], platforms: [there, here], codes: [] },
  'listed only': { trustedPlatforms: [], platforms: [here], codes: [] },
  'trusted, another listed': {
    trustedPlatforms: [here],
    platforms: [there],
    codes: ['PLATFORM_NOT_ALLOWED'],
  },
  unknown: { trustedPlatforms: [there], platforms: [], codes: ['PLATFORM_UNTRUSTED'] },
  'unknown, nobody trusted': { trustedPlatforms: [], platforms: [], codes: ['PLATFORM_UNTRUSTED'] },
  'unknown, another listed': { trustedPlatforms: [], platforms: [there], codes: ['PLATFORM_UNTRUSTED'] },
} satisfies Record<string, { trustedPlatforms: string[]; platforms: string[]; codes: ErrorCode[] }>;

const measurements = {
  'the measurement': { measurements: [good], codes: [] },
  'one of the measurements': { measurements: [bad, good], codes: [] },
  'another measurement': { measurements: [bad], codes: ['MEASUREMENT_UNEXPECTED'] },
  'no measurement admitted': { measurements: [], codes: ['MEASUREMENT_UNEXPECTED'] },
} satisfies Record<string, { measurements: string[]; codes: ErrorCode[] }>;

const debugging = {
  'no debug': { debug: false, tolerate: [], codes: [] },
  'debug tolerated': { debug: true, tolerate: ['hyperthreading', 'debug-mode'], codes: [] },
  debug: { debug: true, tolerate: [], codes: ['DEBUG_NOT_TOLERATED'] },
  'debug, other things tolerated': {
    debug: true,
    tolerate: ['hyperthreading', 'outdated-tcb'],
    codes: ['DEBUG_NOT_TOLERATED'],
  },
} satisfies Record<string, { debug: boolean; tolerate: string[]; codes: ErrorCode[] }>;

for (const [what, { measurements: admitted, codes: measured }] of Object.entries(measurements))
  for (const [how, { debug, tolerate, codes: debugged }] of Object.entries(debugging))
    for (const [where, { trustedPlatforms, platforms, codes: placed }] of Object.entries(places)) {
      // Who is vouched for by nobody that counts learns nothing of what would be expected.
      const unknown = placed.some((code) => code === 'PLATFORM_UNTRUSTED');
      const codes: ErrorCode[] = unknown ? placed : [...measured, ...debugged, ...placed];
      test(`${what}, ${how}, platform ${where}: ${codes.join(', ') || 'admitted'}`, () => {
        const claims = {
          root: 'software',
          measurement: good,
          platform: here,
          debug,
          reportData: Buffer.alloc(64),
        } as const;
        const expected = { tolerate, measurements: admitted, platforms, trustedPlatforms };
        const found = (mode: 'hardware' | 'none') =>
          appraise({ mode, ...expected }, claims).map(({ code }) => code);
        assert.deepEqual(found('hardware'), codes);
        assert.deepEqual(found('none'), []);
      });
    }

test('without Evidence only mode none admits', () => {
  const expected = {
    tolerate: ['debug-mode'],
    measurements: [good],
    platforms: [],
    trustedPlatforms: [here],
  };
  assert.deepEqual(appraise({ mode: 'none', ...expected }, undefined), []);
  assert.deepEqual(
    appraise({ mode: 'hardware', ...expected }, undefined).map(({ code }) => code),
    ['EVIDENCE_MISSING'],
  );
});

test('a refusal names the measurement that was found and those expected', () => {
  const expected = {
    mode: 'hardware',
    tolerate: [],
    measurements: [bad, there],
    platforms: [],
    trustedPlatforms: [here],
  } as const;
  const [refusal] = appraise(expected, {
    root: 'software',
    measurement: good,
    platform: here,
    debug: false,
    reportData: Buffer.alloc(64),
  });
  assert.equal(
    refusal?.message,
    `Unexpected enclave measurement (MRENCLAVE, ${good}) - Expected ${bad} or ${there}`,
  );
});
