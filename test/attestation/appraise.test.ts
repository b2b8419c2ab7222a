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
        const expected = {
          tolerate,
          require: [],
          ignoreAdvisories: [],
          variants: [{ measurements: admitted }],
          platforms,
          trustedPlatforms,
        };
        const found = (mode: 'hardware' | 'none') =>
          appraise({ mode, ...expected }, claims).map(({ code }) => code);
        assert.deepEqual(found('hardware'), codes);
        assert.deepEqual(found('none'), []);
      });
    }

test('without Evidence only mode none admits', () => {
  const expected = {
    tolerate: ['debug-mode'],
    require: [],
    ignoreAdvisories: [],
    variants: [{ measurements: [good] }],
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
    require: [],
    ignoreAdvisories: [],
    variants: [{ measurements: [bad, there] }],
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

/** What a verifier of hardware would claim; the decision over it is the same whatever the root of trust. */
const signed = {
  root: 'software',
  measurement: good,
  platform: here,
  debug: false,
  signer: { mrsigner: there, isvprodid: 7, isvsvn: 3 },
  reportData: Buffer.alloc(64),
} as const;
const codesFor = (
  expected: Partial<Parameters<typeof appraise>[0]>,
  claims: Parameters<typeof appraise>[1] = signed,
): string[] =>
  appraise(
    {
      mode: 'hardware',
      tolerate: [],
      require: [],
      ignoreAdvisories: [],
      variants: [{}],
      platforms: [],
      trustedPlatforms: [here],
      ...expected,
    },
    claims,
  ).map(({ code }) => code);

const bySigner = (more: object) => [{ signer: { mrsigner: there, isvprodid: 7, ...more } }];
for (const [what, variants, codes] of [
  ['the signer', bySigner({}), []],
  ['the version', bySigner({ isvsvn: 3 }), []],
  ['a range of versions', bySigner({ isvsvn_min: 3, isvsvn_max: 3 }), []],
  ['another signer', bySigner({ mrsigner: bad }), ['SIGNER_UNEXPECTED']],
  ['another product', bySigner({ isvprodid: 8 }), ['SIGNER_UNEXPECTED']],
  ['another version', bySigner({ isvsvn: 2 }), ['SIGNER_UNEXPECTED']],
  ['a newer version only', bySigner({ isvsvn_min: 4 }), ['SIGNER_UNEXPECTED']],
  ['an older version only', bySigner({ isvsvn_max: 2 }), ['SIGNER_UNEXPECTED']],
  ['signer and measurement', [{ ...bySigner({})[0], measurements: [good] }], []],
  [
    'the signer with another measurement',
    [{ ...bySigner({})[0], measurements: [bad] }],
    ['MEASUREMENT_UNEXPECTED'],
  ],
  ['either variant', [{ measurements: [bad] }, ...bySigner({})], []],
] as const)
  test(`a policy that asks for ${what}: ${codes.join(', ') || 'admitted'}`, () => {
    assert.deepEqual(codesFor({ variants }), codes);
  });

test('who names no signer is not admitted where one is asked for', () => {
  const { signer: _, ...unsigned } = signed;
  assert.deepEqual(codesFor({ variants: bySigner({}) }, unsigned), ['SIGNER_UNEXPECTED']);
});

test('weaknesses and advisories of the platform are refused one by one, unless the policy says so', () => {
  const claims = {
    ...signed,
    weaknesses: ['outdated-tcb', 'hyperthreading'],
    advisories: ['INTEL-SA-00334', 'INTEL-SA-00615'],
  };
  const all = ['WEAKNESS_NOT_TOLERATED', 'WEAKNESS_NOT_TOLERATED'];
  const advised = ['ADVISORY_NOT_IGNORED', 'ADVISORY_NOT_IGNORED'];
  assert.deepEqual(codesFor({}, claims), [...all, ...advised]);
  assert.deepEqual(codesFor({ tolerate: ['outdated-tcb'], ignoreAdvisories: ['INTEL-SA-00615'] }, claims), [
    'WEAKNESS_NOT_TOLERATED',
    'ADVISORY_NOT_IGNORED',
  ]);
  const tolerate = ['hyperthreading', 'outdated-tcb'];
  assert.deepEqual(codesFor({ tolerate, ignoreAdvisories: ['*'] }, claims), []);
});

for (const [what, found, codes] of [
  ['both', ['secure-execution', 'root-owned-code'], []],
  ['one', ['root-owned-code'], ['PROPERTY_MISSING']],
  ['others', ['much-newer-property'], ['PROPERTY_MISSING', 'PROPERTY_MISSING']],
  ['none', [], ['PROPERTY_MISSING', 'PROPERTY_MISSING']],
  ['not said', undefined, ['PROPERTY_MISSING', 'PROPERTY_MISSING']],
] as const)
  test(`a policy that requires two properties, of which the LAS has found ${what}`, () => {
    const claims = { ...signed, ...(found && { properties: found }) };
    assert.deepEqual(codesFor({ require: ['secure-execution', 'root-owned-code'] }, claims), codes);
    assert.deepEqual(codesFor({}, claims), []);
  });
