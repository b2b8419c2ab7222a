import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { type Collateral, mergeCollateral } from '../../../src/attestation/collateral.ts';
import type { LevelStatus } from '../../../src/attestation/intel/tcb.ts';
import { type IntelVerdict, intelRoots, verifyIntelQuote } from '../../../src/attestation/intel/verify.ts';
import { parseRevocationList } from '../../../src/attestation/x509/revocation.ts';
import type { ErrorCode } from '../../../src/errors.ts';
import {
  certificate,
  integer,
  type Minted,
  newKey,
  objectIdentifier,
  octetString,
  revocationList,
  sequence,
} from '../../support/pki.ts';
import {
  at,
  type CollateralOptions,
  collateral,
  components,
  type DomainOptions,
  domainReport,
  enclaveReport,
  fmspc,
  identity,
  issuing,
  type LevelOptions,
  type Maker,
  maker,
  moduleIdentity,
  type PckOptions,
  pck,
  type QuoteOptions,
  quote,
  signing,
  tcbInfo,
} from './synthetic.ts';

const intel = maker();
const platformKey = pck(intel);
const DAY = 24 * 3600 * 1000;

const sgxBody = enclaveReport({ reportData: Buffer.alloc(64, 1) });
const sgxQuote = (options: Partial<QuoteOptions> = {}) =>
  quote({ tee: 'sgx', body: sgxBody, pck: platformKey, chain: [intel.platformCa, intel.root], ...options });
const tdxQuote = (domain: DomainOptions = {}, options: Partial<QuoteOptions> = {}) =>
  quote({
    tee: 'tdx',
    body: domainReport(domain),
    pck: platformKey,
    chain: [intel.platformCa, intel.root],
    ...(domain.kind === '1.5' && { version: 5 }),
    ...options,
  });
const sgx = (options: Partial<CollateralOptions> = {}) => collateral({ by: intel, tee: 'SGX', ...options });
const tdx = (options: Partial<CollateralOptions> = {}) => collateral({ by: intel, tee: 'TDX', ...options });

const goodSgx = sgxQuote();
const goodTdx = tdxQuote();
const sgxCollateral = sgx();
const tdxCollateral = tdx();

const verify = (bytes: Buffer, bag: Collateral, time = at): IntelVerdict =>
  verifyIntelQuote(bytes, bag, time, intel.roots);

function refuses(code: ErrorCode, work: () => unknown, message?: RegExp): void {
  assert.throws(work, (error: Error & { code?: string }) => {
    assert.equal(error.code, code, error.message);
    if (message) assert.match(error.message, message);
    return true;
  });
}

test('quotes of every version and kind of body are read alike', () => {
  const bodies = [
    [goodSgx, sgxCollateral, 'sgx'],
    [sgxQuote({ version: 4 }), sgxCollateral, 'sgx'],
    [sgxQuote({ version: 5 }), sgxCollateral, 'sgx'],
    [goodTdx, tdxCollateral, 'td-1.0'],
    [tdxQuote({}, { version: 5 }), tdxCollateral, 'td-1.0'],
    [tdxQuote({ kind: '1.5' }), tdxCollateral, 'td-1.5'],
  ] as const;
  for (const [bytes, bag, type] of bodies) {
    const verdict = verify(bytes, bag);
    assert.equal(verdict.body.type, type);
    assert.equal(verdict.root, type === 'sgx' ? 'sgx' : 'tdx');
    assert.equal(verdict.status, 'UpToDate');
    assert.equal(verdict.qeId, 'cd'.repeat(16));
    assert.equal(verdict.debug, false);
    assert.deepEqual(verdict.advisories, []);
    assert.equal(verdict.pck.fmspc, fmspc);
  }
});

test('fields are where they belong', () => {
  const { body } = verify(goodSgx, sgxCollateral);
  assert.deepEqual(body, {
    type: 'sgx',
    cpuSvn: '0'.repeat(32),
    miscselect: '00000000',
    attributes: `05${'0'.repeat(14)}e7${'0'.repeat(14)}`,
    mrenclave: 'a1'.repeat(32),
    mrsigner: 'a2'.repeat(32),
    isvprodid: 3,
    isvsvn: 7,
    reportData: '01'.repeat(64),
  });
  const domain = verify(goodTdx, tdxCollateral).body;
  assert.equal('mrtd' in domain && domain.mrtd, '11'.repeat(48));
  assert.equal('rtmr3' in domain && domain.rtmr3, '23'.repeat(48));
});

test('the makers own root does not vouch for others', () => {
  refuses(
    'EVIDENCE_INVALID',
    () => verifyIntelQuote(goodSgx, sgxCollateral, at),
    /no chain to a trusted root/,
  );
  assert.equal(intelRoots.size, 1);
});

/** What each status of one part makes of the whole (Intel's quote verification library). */
const statuses = {
  UpToDate: [],
  SWHardeningNeeded: ['software-hardening-needed'],
  ConfigurationNeeded: ['insecure-configuration'],
  ConfigurationAndSWHardeningNeeded: ['insecure-configuration', 'software-hardening-needed'],
  OutOfDate: ['outdated-tcb'],
  OutOfDateConfigurationNeeded: ['outdated-tcb', 'insecure-configuration'],
} as const satisfies Partial<Record<LevelStatus, string[]>>;
type Tolerable = keyof typeof statuses;

for (const [status, weaknesses] of Object.entries(statuses) as [Tolerable, readonly string[]][])
  test(`a platform that is ${status} is told to be, and what that asks for`, () => {
    const advisories = ['INTEL-SA-00615', 'INTEL-SA-00334'];
    const levels = [{ status, advisories }];
    for (const verdict of [
      verify(goodSgx, sgx({ tcb: tcbInfo('SGX', levels) })),
      verify(goodTdx, tdx({ tcb: tcbInfo('TDX', levels) })),
    ]) {
      assert.equal(verdict.status, status);
      assert.equal(verdict.platform.status, status);
      assert.deepEqual(verdict.weaknesses, weaknesses);
      assert.deepEqual(verdict.advisories, ['INTEL-SA-00334', 'INTEL-SA-00615']);
    }
  });

const outOfDate = (status: Tolerable): Tolerable =>
  status.includes('Configuration') ? 'OutOfDateConfigurationNeeded' : 'OutOfDate';
for (const status of Object.keys(statuses) as Tolerable[]) {
  test(`${status} with a quoting enclave that is out of date`, () => {
    const old = identity('SGX', [{ isvsvn: 8, status: 'OutOfDate', advisories: ['INTEL-SA-00477'] }]);
    const verdict = verify(goodSgx, sgx({ tcb: tcbInfo('SGX', [{ status }]), identity: old }));
    assert.equal(verdict.status, outOfDate(status));
    assert.equal(verdict.platform.status, status);
    assert.equal(verdict.qe.status, 'OutOfDate');
    assert.deepEqual(verdict.advisories, ['INTEL-SA-00477']);
  });
  test(`${status} with a TDX module that is out of date`, () => {
    const module = moduleIdentity('TDX_01', [
      { isvsvn: 6 },
      { isvsvn: 4, status: 'OutOfDate', advisories: ['INTEL-SA-01036'] },
    ]);
    const tcb = tcbInfo('TDX', [{ status, advisories: ['INTEL-SA-00615'] }], {
      tdxModuleIdentities: [module],
    });
    const verdict = verify(goodTdx, tdx({ tcb }));
    assert.equal(verdict.status, outOfDate(status));
    assert.equal(verdict.module?.status, 'OutOfDate');
    assert.equal(verdict.module?.id, 'TDX_01');
    assert.deepEqual(verdict.advisories, ['INTEL-SA-00615', 'INTEL-SA-01036']);
  });
}

/** What parts make together: nothing that is wrong with one of them is lost. */
function together(...parts: Tolerable[]): Tolerable {
  const some = (word: string) => parts.some((part) => part.includes(word));
  if (some('OutOfDate')) return some('Configuration') ? 'OutOfDateConfigurationNeeded' : 'OutOfDate';
  if (some('SWHardening'))
    return some('Configuration') ? 'ConfigurationAndSWHardeningNeeded' : 'SWHardeningNeeded';
  return some('Configuration') ? 'ConfigurationNeeded' : 'UpToDate';
}

test('every status of a platform beside every one of quoting enclave and module', () => {
  const all = Object.keys(statuses) as Tolerable[];
  for (const status of all)
    for (const qe of all) {
      const levels = [{ status }];
      const enclave = [{ isvsvn: 8, status: qe }];
      const bag = sgx({ tcb: tcbInfo('SGX', levels), identity: identity('SGX', enclave) });
      assert.equal(verify(goodSgx, bag).status, together(status, qe), `${status} and ${qe}`);
      for (const module of all) {
        const tdxModuleIdentities = [moduleIdentity('TDX_01', [{ isvsvn: 4, status: module }])];
        const tcb = tcbInfo('TDX', levels, { tdxModuleIdentities });
        const domain = verify(goodTdx, tdx({ tcb, identity: identity('TDX', enclave) }));
        assert.equal(domain.status, together(status, qe, module), `${status}, ${qe} and ${module}`);
        assert.deepEqual(
          [domain.platform.status, domain.qe.status, domain.module?.status],
          [status, qe, module],
        );
      }
    }
});

test('what is revoked, or known to nobody, is refused whatever the rest is', () => {
  const revoked: LevelOptions = { status: 'Revoked' };
  const sgxIdentity = (levels: Parameters<typeof identity>[1]) => sgx({ identity: identity('SGX', levels) });
  const withModule = (levels: Parameters<typeof moduleIdentity>[1], id = 'TDX_01') =>
    tdx({ tcb: tcbInfo('TDX', [{}], { tdxModuleIdentities: [moduleIdentity(id, levels)] }) });
  const cases: [string, Buffer, Collateral][] = [
    ['platform', goodSgx, sgx({ tcb: tcbInfo('SGX', [revoked]) })],
    ['platform', goodTdx, tdx({ tcb: tcbInfo('TDX', [revoked]) })],
    ['platform', goodSgx, sgx({ tcb: tcbInfo('SGX', [{ pcesvn: 14 }]) })],
    ['quoting enclave', goodSgx, sgxIdentity([{ isvsvn: 8, ...revoked }])],
    ['quoting enclave', goodSgx, sgxIdentity([{ isvsvn: 9 }])],
    ['TDX module', goodTdx, withModule([{ isvsvn: 4, ...revoked }])],
    ['TDX module', goodTdx, withModule([{ isvsvn: 5 }])],
    ['TDX module', goodTdx, withModule([{ isvsvn: 4 }], 'TDX_03')],
  ];
  for (const [part, bytes, bag] of cases)
    refuses('TCB_UNACCEPTABLE', () => verify(bytes, bag), new RegExp(part));
});

test('versions are compared one by one, never as a whole', () => {
  const at = (index: number, svn: number) => components.map((each, place) => (place === index ? svn : each));
  for (let index = 0; index < 16; index++) {
    // Everything before is newer, and this one is older: as numbers in a row, the whole is newer.
    const newer = components.map((svn, place) => (place < index ? svn - 1 : svn));
    newer[index] = 6;
    const levels = [{ sgx: newer }, { status: 'OutOfDate' as const }];
    assert.equal(
      verify(goodSgx, sgx({ tcb: tcbInfo('SGX', levels) })).status,
      'OutOfDate',
      `component ${index}`,
    );
    assert.equal(verify(goodSgx, sgx({ tcb: tcbInfo('SGX', [{ sgx: at(index, 4) }]) })).status, 'UpToDate');
    refuses('TCB_UNACCEPTABLE', () => verify(goodSgx, sgx({ tcb: tcbInfo('SGX', [{ sgx: at(index, 6) }]) })));
  }
});

test('components of TDX count too; the first two are the version of a module that has an identity', () => {
  const teeTcbSvn = (version: number) => Buffer.from([4, version, 9, ...Array(13).fill(3)]).toString('hex');
  const withTdx = (tdxSvns: number[]) => tdx({ tcb: tcbInfo('TDX', [{ tdx: tdxSvns }]) });
  const first = tdxQuote({ teeTcbSvn: teeTcbSvn(0) });
  const second = tdxQuote({ teeTcbSvn: teeTcbSvn(1) });
  assert.equal(verify(second, withTdx([9, 9, 9, ...Array(13).fill(3)])).status, 'UpToDate');
  refuses('TCB_UNACCEPTABLE', () => verify(second, withTdx([4, 1, 10, ...Array(13).fill(3)])));
  assert.equal(verify(first, withTdx([4, 0, 9, ...Array(13).fill(3)])).status, 'UpToDate');
  assert.equal(verify(first, withTdx([4, 0, 9, ...Array(13).fill(3)])).module, undefined);
  refuses('TCB_UNACCEPTABLE', () => verify(first, withTdx([5, 0, 9, ...Array(13).fill(3)])));
  refuses('TCB_UNACCEPTABLE', () => verify(first, withTdx([4, 1, 9, ...Array(13).fill(3)])));
});

test('a domain whose module was replaced while it ran need only be started anew', () => {
  const tcb = (status: Tolerable, identities = [module()]) =>
    tcbInfo('TDX', [{ status }], { tdxModuleIdentities: identities });
  const module = () => moduleIdentity('TDX_01', [{ isvsvn: 6 }, { isvsvn: 4, status: 'OutOfDate' }]);
  const domain = (svn: string) => tdxQuote({ kind: '1.5', teeTcbSvn2: svn.padEnd(32, '0') });
  const statusOf = (svn: string, status: Tolerable, identities?: ReturnType<typeof module>[]) =>
    verify(domain(svn), tdx({ tcb: tcb(status, identities) })).status;
  assert.equal(statusOf('0601', 'UpToDate'), 'TDRelaunchAdvised');
  assert.equal(statusOf('0701', 'SWHardeningNeeded'), 'TDRelaunchAdvised');
  assert.equal(statusOf('0601', 'ConfigurationNeeded'), 'TDRelaunchAdvisedConfigurationNeeded');
  assert.deepEqual(verify(domain('0601'), tdx({ tcb: tcb('ConfigurationNeeded') })).weaknesses, [
    'outdated-tcb',
    'insecure-configuration',
  ]);
  // The newest it is not, or the platform is not fine by itself, or it is a module that nobody knows.
  assert.equal(statusOf('0501', 'UpToDate'), 'OutOfDate');
  assert.equal(statusOf('0601', 'OutOfDate'), 'OutOfDate');
  refuses('TCB_UNACCEPTABLE', () => statusOf('0602', 'UpToDate'), /TDX_02/);
  assert.equal(
    statusOf('0903', 'UpToDate', [module(), moduleIdentity('TDX_03', [{ isvsvn: 9 }])]),
    'TDRelaunchAdvised',
  );
  const old = identity('TDX', [{ isvsvn: 8, status: 'OutOfDate' }]);
  assert.equal(verify(domain('0601'), tdx({ tcb: tcb('UpToDate'), identity: old })).status, 'OutOfDate');
  // One of the first kind has its version in the components of the platform.
  const levels = (status: Tolerable, newest: number[]) => [
    { tdx: [...newest, ...Array(13).fill(0)], status },
    { status: 'OutOfDate' as const },
  ];
  const under = (status: Tolerable, newest: number[], svn: string) => {
    const more = { tdxModuleIdentities: [module()] };
    return verify(domain(svn), tdx({ tcb: tcbInfo('TDX', levels(status, newest), more) })).status;
  };
  assert.equal(under('UpToDate', [9, 0, 0], '0900'), 'TDRelaunchAdvised');
  assert.equal(under('UpToDate', [9, 0, 0], '0800'), 'OutOfDate');
  // The third says under which microcode the module was loaded; the domain's own report was below.
  assert.equal(under('UpToDate', [0, 0, 3], '060103'), 'TDRelaunchAdvised');
  assert.equal(under('UpToDate', [0, 0, 3], '060102'), 'OutOfDate');
  assert.equal(under('UpToDate', [9, 0, 3], '090003'), 'TDRelaunchAdvised');
  assert.equal(under('UpToDate', [9, 0, 3], '090002'), 'OutOfDate');
  assert.equal(under('ConfigurationNeeded', [0, 0, 3], '060103'), 'TDRelaunchAdvisedConfigurationNeeded');
  const configured = [
    { tdx: [0, 0, 3, ...Array(13).fill(0)] },
    { status: 'OutOfDateConfigurationNeeded' as const },
  ];
  assert.equal(
    verify(domain('060103'), tdx({ tcb: tcbInfo('TDX', configured, { tdxModuleIdentities: [module()] }) }))
      .status,
    'TDRelaunchAdvisedConfigurationNeeded',
  );
  refuses('TCB_UNACCEPTABLE', () =>
    verify(
      domain('060103'),
      tdx({
        tcb: tcbInfo('TDX', [{ tdx: [0, 0, 3, ...Array(13).fill(0)], status: 'Revoked' }, {}], {
          tdxModuleIdentities: [module()],
        }),
      }),
    ),
  );
  // A report of 1.0 does not tell.
  assert.equal(verify(goodTdx, tdx({ tcb: tcb('UpToDate') })).status, 'OutOfDate');
});

test('debug is told of enclaves and domains', () => {
  const debugEnclave = enclaveReport({ attributes: `07${'0'.repeat(30)}`, reportData: Buffer.alloc(64) });
  assert.equal(verify(sgxQuote({ body: debugEnclave }), sgxCollateral).debug, true);
  assert.equal(verify(tdxQuote({ tdattributes: `01${'0'.repeat(14)}` }), tdxCollateral).debug, true);
  assert.equal(verify(tdxQuote({ tdattributes: `0000001000000000` }), tdxCollateral).debug, false);
  // All of the group that Intel calls "TD under debug".
  for (const bits of ['10', '20', '40', '80'])
    assert.equal(verify(tdxQuote({ tdattributes: `${bits}${'0'.repeat(14)}` }), tdxCollateral).debug, true);
});

test('that simultaneous multithreading is on is a weakness, where the certificate tells', () => {
  const weaknesses = (options: PckOptions) =>
    verify(sgxQuote({ pck: pck(intel, options) }), sgxCollateral).weaknesses;
  assert.deepEqual(weaknesses({ smtEnabled: true }), ['hyperthreading']);
  assert.deepEqual(weaknesses({ smtEnabled: false }), []);
  assert.deepEqual(weaknesses({}), []);
});

/** Certificates of the platform that do not count. */
const another = certificate({ commonName: 'Intel SGX Root CA', ...issuing });
const processorCa = certificate({ commonName: 'Intel SGX PCK Processor CA', issuer: intel.root, ...issuing });
for (const [what, key, code, chain] of [
  ['of another root', pck({ ...intel, platformCa: another }), 'EVIDENCE_INVALID', [another]],
  ['that has run out', pck(intel, { notAfter: at - 1000 }), 'EVIDENCE_INVALID', undefined],
  ['that is not good yet', pck(intel, { notBefore: at + 1000 }), 'EVIDENCE_INVALID', undefined],
  ['that may sign nothing', pck(intel, { usages: [5] }), 'EVIDENCE_INVALID', undefined],
  ['that may issue', pck(intel, { ca: true, usages: [0, 5] }), 'EVIDENCE_INVALID', undefined],
  ['with another name', pck(intel, { commonName: 'Intel SGX TCB Signing' }), 'EVIDENCE_INVALID', undefined],
  ['issued by the root', pck({ ...intel, platformCa: intel.root }), 'EVIDENCE_INVALID', undefined],
  [
    'issued by who signs TCB information',
    pck({ ...intel, platformCa: intel.tcbSigning }),
    'EVIDENCE_INVALID',
    [intel.tcbSigning],
  ],
  [
    'with a critical extension that nobody knows',
    pck(intel, { extensions: [{ id: '1.2.3.4', content: Buffer.of(5, 0), isCritical: true }] }),
    'EVIDENCE_INVALID',
    undefined,
  ],
  [
    'that says nothing of the platform',
    pck(intel, { without: '1.2.840.113741.1.13.1' }),
    'EVIDENCE_INVALID',
    undefined,
  ],
  ['without FMSPC', pck(intel, { without: '4' }), 'EVIDENCE_INVALID', undefined],
  ['with an FMSPC that is too short', pck(intel, { fmspc: '00906ed5' }), 'EVIDENCE_INVALID', undefined],
  [
    'with a CPUSVN that is too short',
    pck(intel, { cpuSvn: Buffer.alloc(15) }),
    'EVIDENCE_INVALID',
    undefined,
  ],
  [
    'that says something twice',
    pck(intel, {
      more: sequence(objectIdentifier('1.2.840.113741.1.13.1.4'), octetString(Buffer.alloc(6))),
    }),
    'EVIDENCE_INVALID',
    undefined,
  ],
  [
    'with something foreign among what it says of the platform',
    pck(intel, { more: sequence(objectIdentifier('1.2.840.113741.2.13.1.8'), integer(1)) }),
    'EVIDENCE_INVALID',
    undefined,
  ],
  ['without a component', pck(intel, { without: '2.7' }), 'EVIDENCE_INVALID', undefined],
  ['for another kind of platform', pck(intel, { fmspc: '00606a000000' }), 'COLLATERAL_MISSING', undefined],
  ['with another PCE', pck(intel, { pceId: '0100' }), 'COLLATERAL_MISSING', undefined],
  [
    'of an issuer without a list',
    pck({ ...intel, platformCa: processorCa }),
    'COLLATERAL_MISSING',
    [processorCa],
  ],
] as [string, Minted, ErrorCode, Minted[] | undefined][])
  test(`a PCK certificate ${what} is refused`, () => {
    const own = { pck: key, ...(chain && { chain: [...chain, intel.root] }) };
    refuses(code, () => verify(sgxQuote(own), sgxCollateral));
  });

test('an issuer that may not issue, or not to that depth, counts for nobody', () => {
  for (const options of [{ ca: false }, { usages: [6] }, { notAfter: at - 1000 }]) {
    const by = maker({ platformCa: options });
    const bytes = quote({ tee: 'sgx', body: sgxBody, pck: pck(by), chain: [by.platformCa, by.root] });
    refuses('EVIDENCE_INVALID', () => verifyIntelQuote(bytes, collateral({ by, tee: 'SGX' }), at, by.roots));
  }
  const shallow = maker({ root: { ca: 0 } });
  const bytes = quote({
    tee: 'sgx',
    body: sgxBody,
    pck: pck(shallow),
    chain: [shallow.platformCa, shallow.root],
  });
  refuses('EVIDENCE_INVALID', () =>
    verifyIntelQuote(bytes, collateral({ by: shallow, tee: 'SGX' }), at, shallow.roots),
  );
});

test('the PCK is certified by an issuer of PCKs, and that by the root', () => {
  const middle = certificate({ commonName: 'Intel SGX Middle CA', issuer: intel.root, ...issuing });
  const below = { ...maker({ platformCa: { issuer: middle } }), root: intel.root };
  const list = parseRevocationList(
    revocationList({ issuer: middle, thisUpdate: at - DAY, nextUpdate: at + DAY }),
  );
  const bag = mergeCollateral(
    collateral({ by: { ...below, tcbSigning: intel.tcbSigning }, tee: 'SGX', certificates: [middle] }),
    { revocationLists: [list] },
  );
  const bytes = sgxQuote({ pck: pck(below), chain: [below.platformCa, middle] });
  refuses('EVIDENCE_INVALID', () => verify(bytes, bag), /was issued by Intel SGX PCK Platform CA/);

  const by = maker({ platformCa: { commonName: 'Intel SGX PCK Another CA' } });
  const other = quote({ tee: 'sgx', body: sgxBody, pck: pck(by), chain: [by.platformCa, by.root] });
  refuses(
    'EVIDENCE_INVALID',
    () => verifyIntelQuote(other, collateral({ by, tee: 'SGX' }), at, by.roots),
    /was issued by Intel SGX PCK Another CA/,
  );
});

test('what was revoked stays outside', () => {
  const key = pck(intel, { serial: 4711 });
  refuses('CERTIFICATE_REVOKED', () =>
    verify(sgxQuote({ pck: key }), sgx({ pckList: { revoked: [1, 4711] } })),
  );
  assert.equal(verify(sgxQuote({ pck: key }), sgx({ pckList: { revoked: [1, 4712] } })).status, 'UpToDate');
  const by = maker({ platformCa: { serial: 77 }, tcbSigning: { serial: 78 } });
  const bytes = quote({ tee: 'sgx', body: sgxBody, pck: pck(by), chain: [by.platformCa, by.root] });
  for (const serial of [77, 78])
    refuses('CERTIFICATE_REVOKED', () =>
      verifyIntelQuote(bytes, collateral({ by, tee: 'SGX', rootList: { revoked: [serial] } }), at, by.roots),
    );
});

test('revocation lists must be there, in date, whole, and of the right issuer', () => {
  const old = { thisUpdate: at - 60 * DAY, nextUpdate: at - 1000 };
  const delta = [{ id: '2.5.29.27', content: Buffer.of(2, 1, 1), isCritical: true }];
  for (const which of ['rootList', 'pckList'] as const) {
    refuses('COLLATERAL_MISSING', () => verify(goodSgx, sgx({ [which]: 'none' })));
    refuses('COLLATERAL_INVALID', () => verify(goodSgx, sgx({ [which]: old })));
    refuses('COLLATERAL_INVALID', () => verify(goodSgx, sgx({ [which]: { thisUpdate: at + 1000 } })));
    refuses('COLLATERAL_INVALID', () => sgx({ [which]: { extensions: delta } }));
    const { commonName } = which === 'rootList' ? intel.root : intel.platformCa;
    const impostor = { commonName, key: newKey('P-256') };
    refuses('COLLATERAL_INVALID', () => verify(goodSgx, sgx({ [which]: { issuer: impostor } })));
  }
  // Issuers swapped: each list is signed by the other's key.
  const swapped = sgx({ rootList: { issuer: intel.platformCa }, pckList: { issuer: intel.root } });
  assert.equal(verify(goodSgx, swapped).status, 'UpToDate', 'the lists are the same two');
  const renamed = sgx({
    rootList: { issuer: { commonName: intel.root.commonName, key: intel.platformCa.key } },
    pckList: { issuer: { commonName: intel.platformCa.commonName, key: intel.root.key } },
  });
  refuses('COLLATERAL_INVALID', () => verify(goodSgx, renamed));
});

test('a list that its issuer may not sign does not count', () => {
  const by = maker({ platformCa: { usages: [5] } });
  const bytes = quote({ tee: 'sgx', body: sgxBody, pck: pck(by), chain: [by.platformCa, by.root] });
  const bag = collateral({ by, tee: 'SGX' });
  refuses('COLLATERAL_INVALID', () => verifyIntelQuote(bytes, bag, at, by.roots), /signed by somebody else/);
});

test('TCB information and identities must be signed by whom the root has named for it', () => {
  const other = maker();
  const wrongUsage = certificate({
    commonName: 'Intel SGX TCB Signing',
    issuer: intel.root,
    ...signing,
    usages: [5],
  });
  const expired = certificate({
    commonName: 'Intel SGX TCB Signing',
    issuer: intel.root,
    ...signing,
    notAfter: at - 1,
  });
  const below = certificate({ commonName: 'Intel SGX TCB Signing', issuer: intel.platformCa, ...signing });
  const otherName = certificate({ commonName: 'Intel SGX Something', issuer: intel.root, ...signing });
  const otherCurve = certificate({
    commonName: 'Intel SGX TCB Signing',
    issuer: intel.root,
    ...signing,
    key: generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).privateKey,
  });
  const signers: [string, Minted, readonly Minted[]][] = [
    ['a PCK', platformKey, [platformKey]],
    ['an issuer', intel.platformCa, []],
    ['another maker', other.tcbSigning, [other.tcbSigning, other.root]],
    ['somebody without a certificate', other.tcbSigning, []],
    ['a key for another use', wrongUsage, [wrongUsage]],
    ['one whose certificate has run out', expired, [expired]],
    ['one that an issuer of PCKs has named', below, [below]],
    ['one that the root has named for something else', otherName, [otherName]],
    ['a key on another curve', otherCurve, [otherCurve]],
  ];
  for (const [who, signer, certificates] of signers)
    for (const which of ['tcbSigner', 'identitySigner'])
      assert.throws(
        () => verify(goodSgx, sgx({ [which]: signer, certificates })),
        { name: 'Failure' },
        `${which} ${who}`,
      );
});

test('documents that are missing or out of date are refused', () => {
  const past = { issueDate: '2025-01-01T00:00:00Z', nextUpdate: '2025-12-31T00:00:00Z' };
  const future = { issueDate: '2026-01-02T00:00:00Z', nextUpdate: '2026-02-01T00:00:00Z' };
  for (const dates of [past, future]) {
    refuses('COLLATERAL_INVALID', () => verify(goodSgx, sgx({ tcb: tcbInfo('SGX', [{}], dates) })));
    refuses('COLLATERAL_INVALID', () =>
      verify(goodSgx, sgx({ identity: identity('SGX', [{ isvsvn: 8 }], dates) })),
    );
  }
  refuses('COLLATERAL_MISSING', () => verify(goodSgx, { ...sgxCollateral, tcbInfos: [] }));
  refuses('COLLATERAL_MISSING', () => verify(goodSgx, { ...sgxCollateral, enclaveIdentities: [] }));
  for (const [bytes, own, other] of [
    [goodSgx, sgxCollateral, tdxCollateral],
    [goodTdx, tdxCollateral, sgxCollateral],
  ] as const) {
    const { tcbInfos, enclaveIdentities } = other;
    refuses('COLLATERAL_MISSING', () => verify(bytes, { ...own, tcbInfos }), /TCB information/);
    refuses('COLLATERAL_MISSING', () => verify(bytes, { ...own, enclaveIdentities }), /identity/);
    assert.equal(verify(bytes, mergeCollateral(other, own)).status, 'UpToDate');
  }
});

test('of several documents the newest counts, and one that nobody has signed does no harm', () => {
  const newer = { issueDate: '2025-12-31T00:00:00Z' };
  const stricter = sgx({ tcb: tcbInfo('SGX', [{ status: 'OutOfDate' }], newer) });
  for (const bag of [mergeCollateral(sgxCollateral, stricter), mergeCollateral(stricter, sgxCollateral)])
    assert.equal(verify(goodSgx, bag).status, 'OutOfDate');
  const forged = sgx({
    tcb: tcbInfo('SGX', [{ status: 'ConfigurationNeeded' }], newer),
    tcbSigner: { key: newKey('P-256') },
  });
  assert.equal(verify(goodSgx, mergeCollateral(forged, sgxCollateral)).status, 'UpToDate');
});

test('a document that was changed after it was signed is refused', () => {
  const [info] = sgxCollateral.tcbInfos;
  assert.ok(info);
  const text = info.text.replace('"UpToDate"', '"OutOfDate"');
  refuses('COLLATERAL_INVALID', () => verify(goodSgx, { ...sgxCollateral, tcbInfos: [{ ...info, text }] }));
});

test('the quoting enclave must be the one that Intel describes, and vouch for just this key', () => {
  const other = newKey('P-256');
  const wrong: [RegExp, Partial<QuoteOptions>][] = [
    [/MISCSELECT/, { qe: { miscselect: '01000000' } }],
    [/ATTRIBUTES/, { qe: { attributes: `13${'0'.repeat(30)}` } }],
    [/MRSIGNER/, { qe: { mrsigner: '8d'.repeat(32) } }],
    [/ISVPRODID/, { qe: { isvprodid: 2 } }],
    [/vouch for the attestation key/, { qe: { reportData: Buffer.alloc(64) } }],
    [/enclave's report is wrong/, { reportKey: other }],
    [/signature of the quote is wrong/, { quoteKey: other }],
  ];
  for (const [message, options] of wrong)
    refuses('EVIDENCE_INVALID', () => verify(sgxQuote(options), sgxCollateral), message);
  // Byte for byte, as Intel's own sample has it.
  const miscselect = { miscselect: 'D182B18C', miscselectMask: 'FFFFFFFF' };
  const unusual = sgx({ identity: identity('SGX', [{ isvsvn: 8 }], miscselect) });
  assert.equal(verify(sgxQuote({ qe: { miscselect: 'd182b18c' } }), unusual).status, 'UpToDate');
  refuses(
    'EVIDENCE_INVALID',
    () => verify(sgxQuote({ qe: { miscselect: '8cb182d1' } }), unusual),
    /MISCSELECT/,
  );
  // What the mask leaves out may be anything.
  assert.equal(
    verify(sgxQuote({ qe: { attributes: `15${'0'.repeat(14)}e7${'0'.repeat(14)}` } }), sgxCollateral).status,
    'UpToDate',
  );
});

test('the quoting enclave puts nothing else into its report', () => {
  const bytes = sgxQuote({ qeRest: Buffer.alloc(32, 1) });
  refuses('EVIDENCE_INVALID', () => verify(bytes, sgxCollateral), /vouch for the attestation key/);
});

test('the TDX module must be the one that Intel describes', () => {
  refuses(
    'EVIDENCE_INVALID',
    () => verify(tdxQuote({ mrsignerseam: '1'.repeat(96) }), tdxCollateral),
    /TDX module/,
  );
  refuses(
    'EVIDENCE_INVALID',
    () => verify(tdxQuote({ seamattributes: '01'.padEnd(16, '0') }), tdxCollateral),
    /TDX module/,
  );
  for (const id of ['TDX_0A', 'TDX_0a']) {
    const tcb = tcbInfo('TDX', [{}], { tdxModuleIdentities: [moduleIdentity(id, [{ isvsvn: 4 }])] });
    assert.equal(verify(tdxQuote({ teeTcbSvn: '040a'.padEnd(32, '0') }), tdx({ tcb })).module?.id, 'TDX_0A');
  }
  const first = { teeTcbSvn: `0400${'0'.repeat(28)}`, mrsignerseam: '1'.repeat(96) };
  refuses('EVIDENCE_INVALID', () => verify(tdxQuote(first), tdxCollateral), /TDX module/);
});

test('a header that is not one of those known is refused', () => {
  const patched = (offset: number, ...bytes: number[]) =>
    sgxQuote({ patches: { [offset]: Buffer.from(bytes) } });
  for (const [what, bytes] of [
    ['version 2', patched(0, 2)],
    ['version 6', patched(0, 6)],
    ['key type', patched(2, 3)],
    ['TEE of version 3', patched(4, 0x81)],
    ['TEE that nobody knows', patched(4, 1)],
    ['vendor', patched(12, 0)],
  ] as const)
    assert.throws(() => verify(bytes, sgxCollateral), { code: 'EVIDENCE_INVALID' }, what);
  refuses('EVIDENCE_INVALID', () => verify(tdxQuote({}, { version: 3 }), tdxCollateral), /with version 3/);
  for (const [bytes, bag] of [
    [quote({ tee: 'tdx', version: 5, body: sgxBody, pck: platformKey, chain: [] }), sgxCollateral],
    [quote({ tee: 'sgx', version: 5, body: domainReport(), pck: platformKey, chain: [] }), tdxCollateral],
  ] as const)
    refuses('EVIDENCE_INVALID', () => verify(bytes, bag), /a body of type \d with \d+ bytes does not go/);
  const wrongBody = tdxQuote({}, { version: 5, patches: { 48: Buffer.of(3) } });
  refuses('EVIDENCE_INVALID', () => verify(wrongBody, tdxCollateral), /body of type 3/);
});

test('zeros may follow a quote, and nothing else', () => {
  assert.equal(verify(Buffer.concat([goodSgx, Buffer.alloc(307)]), sgxCollateral).status, 'UpToDate');
  refuses('EVIDENCE_INVALID', () => verify(Buffer.concat([goodSgx, Buffer.of(0, 1)]), sgxCollateral));
  refuses(
    'EVIDENCE_INVALID',
    () => verify(Buffer.concat([goodSgx, Buffer.alloc(65536)]), sgxCollateral),
    /65536/,
  );
});

test('a quote brings few certificates, all with keys that are quick to verify with', () => {
  const { root, platformCa } = intel;
  const more = sgxQuote({ chain: [platformCa, root, root] });
  refuses('EVIDENCE_INVALID', () => verify(more, sgxCollateral), /more than 3 certificates/);
  const slow = maker({ platformCa: { key: newKey('P-384') } });
  const bytes = quote({ tee: 'sgx', body: sgxBody, pck: pck(slow), chain: [slow.platformCa, slow.root] });
  const bag = collateral({ by: slow, tee: 'SGX' });
  refuses('EVIDENCE_INVALID', () => verifyIntelQuote(bytes, bag, at, slow.roots), /no key on P-256/);
});

const from = at - DAY;
const until = at + DAY;
const iso = (time: number) => new Date(time).toISOString().replace('.000Z', 'Z');
const certified = { notBefore: from, notAfter: until };
const listed = { thisUpdate: from, nextUpdate: until };
const dated = { issueDate: iso(from), nextUpdate: iso(until) };
/** What is good for two days only, where all else is for longer. */
const short: Record<string, () => [Maker, PckOptions, Partial<CollateralOptions>]> = {
  'the root': () => [maker({ root: certified }), {}, {}],
  'the issuer of the PCK': () => [maker({ platformCa: certified }), {}, {}],
  'the PCK': () => [intel, certified, {}],
  'the certificate of the TCB signing key': () => [maker({ tcbSigning: certified }), {}, {}],
  "the root's list": () => [intel, {}, { rootList: listed }],
  "the issuer's list": () => [intel, {}, { pckList: listed }],
  'the TCB information': () => [intel, {}, { tcb: tcbInfo('SGX', [{}], dated) }],
  'the identity': () => [intel, {}, { identity: identity('SGX', [{ isvsvn: 8 }], dated) }],
};

for (const [what, make] of Object.entries(short))
  test(`${what} counts from the moment when it is good until it no longer is, and that is told`, () => {
    const [by, options, more] = make();
    const chain = [by.platformCa, by.root];
    const bytes = quote({ tee: 'sgx', body: sgxBody, pck: pck(by, options), chain });
    const bag = collateral({ by, tee: 'SGX', ...more });
    for (const time of [from, at, until])
      assert.equal(verifyIntelQuote(bytes, bag, time, by.roots).validUntil, until);
    for (const time of [from - 1, until + 1])
      assert.throws(() => verifyIntelQuote(bytes, bag, time, by.roots), {
        code: /^(EVIDENCE|COLLATERAL)_INVALID$/,
      });
  });
