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
  assert.deepEqual(codesFor({}, claims), [...all, 'ADVISORIES_NOT_IGNORED']);
  assert.deepEqual(codesFor({ tolerate: ['outdated-tcb'], ignoreAdvisories: ['INTEL-SA-00615'] }, claims), [
    'WEAKNESS_NOT_TOLERATED',
    'ADVISORIES_NOT_IGNORED',
  ]);
  const tolerate = ['hyperthreading', 'outdated-tcb'];
  assert.deepEqual(codesFor({ tolerate, ignoreAdvisories: ['*'] }, claims), ['ADVISORIES_NOT_IGNORED']);
  const debugging = { tolerate: [...tolerate, 'debug-mode'], ignoreAdvisories: ['*'] };
  assert.deepEqual(codesFor(debugging, claims), []);
});

const digest = (character: string) => character.repeat(96);
const enclave = { ...signed, root: 'sgx', platform: `INTEL_QE_ID:${'ab'.repeat(16)}` } as const;
const domain = {
  ...enclave,
  root: 'tdx',
  machine: { kind: 'tdx', values: { mrtd: digest('a'), rtmr0: digest('b'), rtmr1: digest('c') } },
} as const;
const guest = {
  ...signed,
  root: 'sev-snp',
  platform: `AMD_CHIP_ID:${'cd'.repeat(64)}`,
  machine: {
    kind: 'sev_snp',
    values: { measurement: digest('d'), vmpl: '0', product: 'Genoa' },
    tcb: { bootloader: 7, tee: 0, snp: 14, microcode: 72 },
  },
} as const;
const host = {
  ...signed,
  root: 'tpm',
  platform: `TPM_EK:${good}`,
  machine: { kind: 'tpm', values: { pcr0: good, pcr7: there } },
} as const;

const tdx = (values: Record<string, string[]>) => [{ machines: { tdx: { values } } }];
const snp = (values: Record<string, string[]>, minimumTcb?: object) => [
  { machines: { sev_snp: { values, ...(minimumTcb && { minimumTcb }) } } },
];
const tpm = (values: Record<string, string[]>) => [{ machines: { tpm: { values } } }];
const old = ['WEAKNESS_NOT_TOLERATED', 'TOLERANCE_MISSING'];
for (const [what, claims, expected, codes] of [
  ['an enclave that is named', enclave, { variants: [{ measurements: [good] }] }, []],
  ['an enclave that is not', enclave, { variants: [{ measurements: [bad] }] }, ['MEASUREMENT_UNEXPECTED']],
  [
    'an enclave where a machine is asked for',
    enclave,
    { variants: tdx({ mrtd: [digest('a')] }) },
    ['MACHINE_MISSING'],
  ],
  [
    'software where a machine is asked for',
    signed,
    { variants: tdx({ mrtd: [digest('a')] }) },
    ['MACHINE_MISSING'],
  ],
  ['a machine that nobody names', domain, { variants: [{ measurements: [good] }] }, ['MACHINE_UNNAMED']],
  ['a machine of another kind', domain, { variants: tpm({ pcr0: [good] }) }, ['MACHINE_UNNAMED']],
  ['a machine that is named', domain, { variants: tdx({ mrtd: [digest('f'), digest('a')] }) }, []],
  [
    'a machine with another kernel and configuration',
    domain,
    { variants: tdx({ mrtd: [digest('a')], rtmr0: [digest('f')], rtmr1: [digest('f')] }) },
    ['MACHINE_UNEXPECTED', 'MACHINE_UNEXPECTED'],
  ],
  [
    'a machine without a measurement that is asked for',
    domain,
    { variants: tdx({ mrtd: [digest('a')], rtmr3: [digest('0')] }) },
    ['MACHINE_UNEXPECTED'],
  ],
  [
    'either machine',
    domain,
    { variants: [...tdx({ mrtd: [digest('f')] }), ...tdx({ mrtd: [digest('a')] })] },
    [],
  ],
  [
    'the launcher of one variant on the machine of another',
    domain,
    {
      variants: [
        { measurements: [bad], machines: { tdx: { values: { mrtd: [digest('a')] } } } },
        { measurements: [good], machines: { tdx: { values: { mrtd: [digest('f')] } } } },
      ],
    },
    ['MACHINE_UNEXPECTED'],
  ],
  ['a platform that is listed', enclave, { platforms: [enclave.platform] }, []],
  ['a platform that is not', enclave, { platforms: [here] }, ['PLATFORM_NOT_ALLOWED']],
  ['an AMD guest without a minimum', guest, { variants: snp({ measurement: [digest('d')] }) }, old],
  [
    'the same, tolerated',
    guest,
    { variants: snp({ measurement: [digest('d')] }), tolerate: ['outdated-tcb'] },
    [],
  ],
  [
    'an AMD guest that is new enough',
    guest,
    { variants: snp({ vmpl: ['0'] }, { snp: 14, microcode: 72 }) },
    [],
  ],
  ['one that is too old in one part', guest, { variants: snp({}, { snp: 15, microcode: 71 }) }, old],
  ['one that has no such part', guest, { variants: snp({}, { fmc: 1 }) }, old],
  [
    'a guest below the wanted level',
    guest,
    { variants: snp({ vmpl: ['2'] }, { snp: 1 }) },
    ['MACHINE_UNEXPECTED'],
  ],
  ['a host with its registers', host, { variants: tpm({ pcr0: [good], pcr7: [there] }) }, []],
  [
    'a host with another register',
    host,
    { variants: tpm({ pcr0: [good], pcr7: [good] }) },
    ['MACHINE_UNEXPECTED'],
  ],
  ['an enclave in debug mode', { ...enclave, debug: true }, {}, ['DEBUG_NOT_TOLERATED', 'TOLERANCE_MISSING']],
  ['the same, tolerated', { ...enclave, debug: true }, { tolerate: ['debug-mode'] }, []],
  [
    'revocation that nobody looked at',
    { ...guest, unchecked: 'a list' },
    { tolerate: ['outdated-tcb'] },
    ['COLLATERAL_MISSING'],
  ],
  [
    'INTEL-SA-00657 by its name',
    { ...enclave, advisories: ['INTEL-SA-00657'] },
    { tolerate: ['aepic-leak'] },
    [],
  ],
] as const)
  test(`hardware, ${what}: ${codes.join(', ') || 'admitted'}`, () => {
    // No LAS key is trusted: the hardware speaks for itself, or nobody does.
    const trustedPlatforms = claims.root === 'software' ? [here] : [];
    assert.deepEqual(codesFor({ trustedPlatforms, ...expected }, claims), codes);
  });

test('a refusal names just the entries that a policy would have to have', () => {
  const refusals = appraise(
    {
      mode: 'hardware',
      tolerate: ['software-hardening-needed'],
      require: [],
      ignoreAdvisories: ['INTEL-SA-00615'],
      variants: [{}],
      platforms: [],
      trustedPlatforms: [],
    },
    {
      ...enclave,
      debug: true,
      weaknesses: ['software-hardening-needed', 'insecure-configuration'],
      advisories: ['INTEL-SA-00289', 'INTEL-SA-00615'],
    },
  ).map(({ message }) => message);
  assert.equal(
    refusals.at(-1),
    'to admit it all the same, the session would need under `security.attestation`: ' +
      'tolerate: [debug-mode, insecure-configuration], ignore_advisories: [INTEL-SA-00289]',
  );
  assert.match(
    refusals.join('\n'),
    /insecure-configuration: the firmware, machine or enclave is not set up as is advised/,
  );
});

test('the machine that nobody names is described as a policy would name it', () => {
  const expected = {
    mode: 'hardware',
    tolerate: ['outdated-tcb'],
    require: [],
    ignoreAdvisories: [],
    variants: [{}],
    platforms: [],
    trustedPlatforms: [],
  } as const;
  const [refusal] = appraise(expected, guest);
  const described =
    `sev_snp: {measurement: "${digest('d')}", vmpl: 0, products: [Genoa], ` +
    'minimum_tcb: {bootloader: 7, tee: 0, snp: 14, microcode: 72}}';
  assert.equal(refusal?.hint.endsWith(described), true);
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
