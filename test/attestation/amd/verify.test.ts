import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Product, TcbVersion } from '../../../src/attestation/amd/report.ts';
import { verifySnpReport } from '../../../src/attestation/amd/verify.ts';
import { parseRevocationList } from '../../../src/attestation/x509/revocation.ts';
import { certificate, der, integer, newKey, pss, revocationList } from '../../support/pki.ts';
import {
  AMD,
  askSerial,
  asvkSerial,
  at,
  bag,
  chipIdOf,
  impostor,
  maker,
  type ReportOptions,
  report,
  tcbOf,
  VLEK_FLAG,
  vcek,
  vlek,
} from './synthetic.ts';

/** Everything that no recorded report shows, with a maker of processors of our own. */

const makers = { Milan: maker('Milan'), Genoa: maker('Genoa'), Turin: maker('Turin') };
const products = ['Milan', 'Genoa', 'Turin'] as const;
const milan = makers.Milan;
const { ark, ask, asvk, roots } = milan;
const key = vcek(milan);
const chain = [ark, ask, key];
const good = report('Milan', key.key);
const day = 24 * 3600 * 1000;

const verify = (bytes: Buffer, collateral = bag(chain), time = at) =>
  verifySnpReport(bytes, collateral, time, roots);
const refuses = (bytes: Buffer, expected: object, collateral = bag(chain), time = at) =>
  assert.throws(() => verify(bytes, collateral, time), { name: 'Failure', ...expected });
const invalid = (message: RegExp) => ({ code: 'EVIDENCE_INVALID', message });
const missing = { code: 'COLLATERAL_MISSING' };

/** A report by the Milan maker's chip. */
const milanReport = (options: ReportOptions) => report('Milan', key.key, options);

for (const product of products)
  test(`a report of ${product} verifies with a chip's key, and with a provider's`, () => {
    const { ark, ask, asvk, roots } = makers[product];
    const own = vcek(makers[product]);
    const verdict = verifySnpReport(report(product, own.key), bag([own, ark, ask]), at, roots);
    const tcb = tcbOf(product);
    assert.deepEqual(verdict, {
      root: 'sev-snp',
      version: 5,
      guestSvn: 7,
      guestPolicy: '0000000000030137',
      policy: {
        abi: '1.55',
        smtAllowed: true,
        migrationAgentAllowed: false,
        debug: false,
        singleSocket: false,
        cxlAllowed: false,
        aes256XtsRequired: false,
        raplDisabled: false,
        ciphertextHidingRequired: false,
        pageSwapDisabled: false,
      },
      familyId: '11'.repeat(16),
      imageId: '12'.repeat(16),
      vmpl: 1,
      platformInfo: {
        smtEnabled: false,
        tsmeEnabled: false,
        eccEnabled: true,
        raplDisabled: false,
        ciphertextHiding: false,
        aliasCheckComplete: true,
        tioEnabled: false,
      },
      signingKey: 'VCEK',
      isAuthorKeyEnabled: false,
      reportData: '13'.repeat(64),
      measurement: '14'.repeat(48),
      hostData: '15'.repeat(32),
      idKeyDigest: '16'.repeat(48),
      authorKeyDigest: '17'.repeat(48),
      reportId: '18'.repeat(32),
      cpu: verdict.cpu,
      product,
      chipId: chipIdOf(product).toString('hex'),
      currentTcb: tcb,
      reportedTcb: tcb,
      committedTcb: tcb,
      launchTcb: tcb,
      currentVersion: '1.55.40',
      committedVersion: '1.55.29',
      launchMitigations: '0000000000000003',
      currentMitigations: '0000000000000007',
      debug: false,
      weaknesses: [],
      isRevocationChecked: false,
      validUntil: Date.parse('2050-01-01T00:00:00Z'),
    });
    assert.deepEqual(JSON.parse(JSON.stringify(verdict)), verdict, 'it is plain data');

    const loaded = vlek(makers[product]);
    const masked = report(product, loaded.key, { flags: VLEK_FLAG, chipId: Buffer.alloc(64) });
    const { signingKey, chipId, cspId } = verifySnpReport(masked, bag([loaded, ark, asvk]), at, roots);
    assert.deepEqual([signingKey, chipId, cspId], ['VLEK', undefined, 'CN=cc-example.test']);
  });

test('every version that is known verifies, with the fields that it has', () => {
  for (const version of [2, 3, 4, 5]) {
    const verdict = verify(milanReport({ version }));
    assert.equal(verdict.version, version);
    assert.equal(verdict.product, 'Milan', 'from the certificate, where the report does not say');
    assert.equal(verdict.cpu !== undefined, version >= 3);
    assert.equal(verdict.launchMitigations !== undefined, version >= 4);
  }
  for (const version of [0, 1, 6, 0xffff_ffff])
    refuses(milanReport({ version }), invalid(/has version \d+; 2 to 5 are known/));
});

test('before version 3, a Turin is known by the length of its chip id', () => {
  const { ark, ask, roots } = makers.Turin;
  const own = vcek(makers.Turin);
  const old = report('Turin', own.key, { version: 2 });
  const verdict = verifySnpReport(old, bag([ark, ask, own]), at, roots);
  assert.deepEqual([verdict.product, verdict.reportedTcb], ['Turin', tcbOf('Turin')]);
});

test('what the platform and the guest are set up to be is said', () => {
  const set = (bits: readonly number[]) => bits.reduce((value, bit) => value | (1n << BigInt(bit)), 0n);
  const platform = (...bits: number[]) => verify(milanReport({ platformInfo: set(bits) }));
  assert.deepEqual(platform(5).weaknesses, []);
  assert.deepEqual(platform(0, 5).weaknesses, ['hyperthreading']);
  assert.deepEqual(platform().weaknesses, ['insecure-configuration']);
  assert.deepEqual(platform(0).weaknesses, ['hyperthreading', 'insecure-configuration']);
  const on = Object.entries(platform(0, 1, 2, 3, 4, 5, 7).platformInfo);
  assert.deepEqual([on.length, on.every(([, value]) => value)], [7, true]);
  const newer = platform(5, 40);
  assert.deepEqual(
    [newer.weaknesses, newer.unknownPlatformInfo],
    [['insecure-configuration'], '0000010000000000'],
  );

  const flags = [
    ...(['smtAllowed', 'reserved', 'migrationAgentAllowed', 'debug', 'singleSocket', 'cxlAllowed'] as const),
    ...(['aes256XtsRequired', 'raplDisabled', 'ciphertextHidingRequired', 'pageSwapDisabled'] as const),
  ];
  for (const [index, flag] of flags.entries()) {
    if (flag === 'reserved') continue;
    const verdict = verify(milanReport({ policy: set([17, 16 + index]) }));
    const set_ = Object.entries(verdict.policy).flatMap(([name, value]) => (value === true ? [name] : []));
    assert.deepEqual(set_, [flag]);
    assert.equal(verdict.debug, flag === 'debug');
    const weaknesses = flag === 'migrationAgentAllowed' ? ['insecure-configuration'] : [];
    assert.deepEqual(verdict.weaknesses, weaknesses, flag);
  }
  refuses(milanReport({ policy: set([16]) }), invalid(/guest policy/));
  refuses(milanReport({ policy: set([17, 26]) }), invalid(/guest policy/));
  refuses(milanReport({ policy: set([17, 63]) }), invalid(/guest policy/));
  const agent = Buffer.alloc(32, 0x19);
  assert.equal(verify(milanReport({ patches: { 352: agent } })).migrationAgent, agent.toString('hex'));
});

test('a report that a guest did not ask for, or that is not signed, is none', () => {
  refuses(milanReport({ vmpl: 0xffff_ffff }), invalid(/by the host/));
  refuses(milanReport({ vmpl: 4 }), invalid(/by the host/));
  refuses(milanReport({ algorithm: 2 }), invalid(/signature algorithm 2/));
  refuses(milanReport({ flags: 2 }), invalid(/not signed/));
  refuses(milanReport({ flags: 7 << 2 }), invalid(/not signed/));
  refuses(milanReport({ flags: 2 << 2 }), invalid(/not signed/));
  refuses(milanReport({ flags: 1 << 5 }), invalid(/flags/));
  assert.equal(verify(milanReport({ flags: 1 })).isAuthorKeyEnabled, true);
});

test('reserved bytes are zero', () => {
  const reserved: [offset: number, versions: number[]][] = [
    [0x4c, [2, 5]],
    [0x188, [2]],
    [0x18b, [3, 5]],
    [0x19f, [2, 5]],
    [0x1eb, [2, 5]],
    [0x1ef, [2, 5]],
    [0x1f8, [2, 3]],
    [0x208, [4, 5]],
    [0x29f, [2, 5]],
    // In the TCB versions of Milan.
    [0x3a, [5]],
    [0x185, [5]],
  ];
  for (const [offset, versions] of reserved)
    for (const version of versions)
      refuses(milanReport({ version, patches: { [offset]: Buffer.of(1) } }), invalid(/zeros/));
  for (const offset of [0x2a0 + 48, 0x2a0 + 72 + 48, 0x2a0 + 144, 1183]) {
    const changed = Buffer.from(good);
    changed.writeUInt8(1, offset);
    refuses(changed, invalid(/zeros/));
  }
});

test('a processor that is unknown is refused, and one of another product has another key', () => {
  const { Genoa } = makers;
  const unknown = [
    [0x17, 0x31, 0],
    [0x19, 0x20, 0],
    [0x19, 0xb0, 0],
    [0x1a, 0x50, 0],
    [0x1b, 0x00, 0],
  ] as const;
  for (const cpu of unknown) refuses(milanReport({ cpu }), invalid(/which is unknown|zeros/));
  for (const model of [0x10, 0x1f, 0xa0, 0xaf]) {
    const own = vcek(Genoa);
    const bytes = report('Genoa', own.key, { cpu: [0x19, model, 0] });
    assert.equal(verifySnpReport(bytes, bag([Genoa.ark, Genoa.ask, own]), at, Genoa.roots).product, 'Genoa');
  }
  refuses(milanReport({ cpu: [0x19, 0x11, 1] }), missing);
});

test('a key counts for its chip, its versions and its product alone', () => {
  const wrong: Parameters<typeof vcek>[1][] = [
    { hardwareId: Buffer.alloc(64, 0xc3) },
    { hardwareId: chipIdOf('Milan').subarray(0, 8) },
    { hardwareId: Buffer.alloc(0) },
    { name: 'Genoa-B1' },
    { name: 'Rome-B0' },
    { commonName: 'SEV-VLEK' },
    { commonName: 'SEV-OTHER' },
    ...['.2', '.3.1', '.3.2', '.3.3', '.3.8', '.4'].map((id) => ({ without: `${AMD}${id}` })),
    ...(['bootloader', 'tee', 'snp', 'microcode'] as const).flatMap((level) =>
      [1, -1].map((change) => ({ tcb: changed(tcbOf('Milan'), level, change) })),
    ),
  ];
  for (const options of wrong) {
    const other = vcek(milan, { key: key.key, ...options });
    refuses(good, missing, bag([ark, ask, other]));
    assert.equal(verify(good, bag([other, ark, ask, key])).root, 'sev-snp', 'it is passed over');
  }
  const small = vcek(milan, { key: newKey('P-256') });
  refuses(good, missing, bag([ark, ask, small]));
  for (const name of ['Milan', 'Milan-B0']) {
    const own = vcek(milan, { key: key.key, name });
    assert.equal(verify(good, bag([ark, ask, own])).product, 'Milan');
  }
});

function changed(tcb: TcbVersion, level: keyof TcbVersion, by: number): TcbVersion {
  return { ...tcb, [level]: (tcb[level] ?? 0) + by };
}

test('a Turin key names FMC, and eight bytes of the chip', () => {
  const { Turin } = makers;
  const own = vcek(Turin);
  const bytes = report('Turin', own.key);
  const others = [
    { tcb: changed(tcbOf('Turin'), 'fmc', 1) },
    { without: `${AMD}.3.9` },
    { hardwareId: chipIdOf('Turin') },
  ];
  for (const options of others) {
    const other = bag([Turin.ark, Turin.ask, vcek(Turin, { key: own.key, ...options })]);
    assert.throws(() => verifySnpReport(bytes, other, at, Turin.roots), missing);
  }
});

test('another key than the one that signed is refused, also among several', () => {
  const other = vcek(milan);
  refuses(good, invalid(/signature is not that of the key/), bag([ark, ask, other]));
  assert.equal(verify(good, bag([other, ark, ask, key])).root, 'sev-snp');
  const zero = Buffer.from(good).fill(0, 0x2a0);
  refuses(zero, invalid(/signature is not that of the key/));
});

test('of a certificate that was renewed, the one in date counts', () => {
  const old = vcek(milan, { key: key.key, notAfter: at - day });
  const verdict = verify(good, bag([old, ark, ask, key]));
  assert.equal(verdict.validUntil, Date.parse('2050-01-01T00:00:00Z'));
});

test('a chip that is hidden is accepted from a provider alone', () => {
  const chipId = Buffer.alloc(64);
  refuses(milanReport({ chipId }), invalid(/hides which chip/));
  const loaded = vlek(milan);
  const open = report('Milan', loaded.key, { flags: VLEK_FLAG });
  assert.equal(verify(open, bag([ark, asvk, loaded])).chipId, chipIdOf('Milan').toString('hex'));
});

test('each kind of key has its own issuer', () => {
  const swapped = vcek(milan, { issuer: asvk });
  const byProvider = report('Milan', swapped.key);
  const wrong = invalid(/the VCEK for Milan is issued by SEV-VLEK-Milan, ARK-Milan/);
  refuses(byProvider, wrong, bag([ark, ask, asvk, swapped]));
  const loaded = vlek(milan, { issuer: ask });
  const byChip = report('Milan', loaded.key, { flags: VLEK_FLAG });
  refuses(byChip, invalid(/the VLEK for Milan is issued by SEV-Milan/), bag([ark, ask, asvk, loaded]));
  const direct = vcek(milan, { issuer: ark });
  refuses(report('Milan', direct.key), invalid(/is issued by ARK-Milan$/), bag([ark, ask, direct]));
  const { Genoa } = makers;
  const foreign = vcek(milan, { issuer: Genoa.ask });
  const both = new Set([...roots, ...Genoa.roots]);
  assert.throws(
    () =>
      verifySnpReport(report('Milan', foreign.key), bag([ark, ask, Genoa.ark, Genoa.ask, foreign]), at, both),
    invalid(/the VCEK for Milan is issued by SEV-Genoa, ARK-Genoa/),
  );
});

test('a report says which kind of key has signed it, and no other will do', () => {
  const provider = vlek(milan);
  const all = bag([ark, ask, asvk, key, provider]);
  const missing = { code: 'COLLATERAL_MISSING' };
  assert.throws(() => verify(report('Milan', provider.key), bag([ark, asvk, provider])), missing);
  assert.throws(() => verify(report('Milan', key.key, { flags: VLEK_FLAG }), bag(chain)), missing);
  assert.throws(() => verify(report('Milan', provider.key), all), { code: 'EVIDENCE_INVALID' });
});

test('the chain is unbroken, and ends at a trusted root', () => {
  const noChain = invalid(/no chain to a trusted root/);
  refuses(good, noChain, bag([ask, key]));
  refuses(good, noChain, bag([ark, key]));
  const forged = vcek(milan, { issuer: impostor(ask) });
  refuses(report('Milan', forged.key), noChain, bag([ark, ask, forged]));
  const mallory = maker('Milan');
  const theirs = vcek(mallory);
  refuses(report('Milan', theirs.key), noChain, bag([ark, ask, mallory.ark, mallory.ask, theirs]));
  const self = certificate({ ...selfSigned(), key: newKey('P-384') });
  refuses(report('Milan', self.key), noChain, bag([ark, ask, self]));
});

/** All that a chip's key has, issued by itself. */
function selfSigned(): Parameters<typeof certificate>[0] {
  const { extensions } = bag([key]).certificates[0] ?? assert.fail();
  return {
    commonName: 'SEV-VCEK',
    extensions: [...extensions].map(([id, content]) => ({ id, content })),
  };
}

test('certificates count between their dates, and for what they may be used for', () => {
  const expired = vcek(milan, { notAfter: at - 1 });
  refuses(report('Milan', expired.key), invalid(/it was good until/), bag([ark, ask, expired]));
  const early = vcek(milan, { notBefore: at + 1000 });
  refuses(report('Milan', early.key), invalid(/it is good from/), bag([ark, ask, early]));
  const issuer = (options: object) =>
    certificate({ commonName: 'SEV-Milan', key: newKey('RSA'), issuer: ark, ca: 0, usages: [5], ...options });
  const byIssuer = (options: object) => {
    const own = issuer(options);
    const below = vcek(milan, { issuer: own });
    return [report('Milan', below.key), bag([ark, own, below])] as const;
  };
  const [fine, all] = byIssuer({});
  assert.equal(verify(fine, all).root, 'sev-snp');
  for (const [options, message] of [
    [{ notAfter: at - 1 }, /SEV-Milan: it was good until/],
    [{ ca: false }, /no chain/],
    [{ ca: undefined }, /no chain/],
    [{ usages: [0] }, /no chain/],
    [{ extensions: [{ id: '1.2.3', content: integer(1), isCritical: true }] }, /critical extension 1.2.3/],
  ] as const) {
    const [bytes, collateral] = byIssuer(options);
    refuses(bytes, invalid(message), collateral);
  }
  const encrypting = vcek(milan, { usages: [3] });
  refuses(report('Milan', encrypting.key), invalid(/may not sign/), bag([ark, ask, encrypting]));
  const signing = vcek(milan, { usages: [0] });
  assert.equal(verify(report('Milan', signing.key), bag([ark, ask, signing])).root, 'sev-snp');
});

test("a certificate's signature has the parameters that it says", () => {
  const spelledOut = vcek(milan, { algorithm: pss(48, der(0xa3, integer(1))) });
  assert.equal(verify(report('Milan', spelledOut.key), bag([ark, ask, spelledOut])).root, 'sev-snp');
  for (const algorithm of [pss(32), pss(49), pss(48, der(0xa3, integer(2)))]) {
    const odd = vcek(milan, { algorithm });
    refuses(report('Milan', odd.key), invalid(/no chain/), bag([ark, ask, odd]));
  }
});

/** The root's list, and what it makes of the good report. */
const withLists = (...lists: Buffer[]) => bag(chain, lists);
const rootList = (options: Partial<Parameters<typeof revocationList>[0]> = {}) =>
  revocationList({ issuer: ark, thisUpdate: at - day, nextUpdate: at + day, ...options });

test("the root's list is what says that nothing was revoked", () => {
  const verdict = verify(good, withLists(rootList()));
  assert.deepEqual([verdict.isRevocationChecked, verdict.validUntil], [true, at + day]);
  assert.equal(verify(good, withLists(rootList({ revoked: [1, 2, asvkSerial] }))).isRevocationChecked, true);
  const spelledOut = rootList({ algorithm: pss(48, der(0xa3, integer(1))) });
  assert.equal(verify(good, withLists(spelledOut)).isRevocationChecked, true);
  const elsewhere = revocationList({ issuer: makers.Genoa.ark });
  assert.equal(verify(good, withLists(elsewhere)).isRevocationChecked, false);
  const below = revocationList({ issuer: ask, nextUpdate: at + day / 2 });
  assert.equal(verify(good, withLists(below)).isRevocationChecked, false, 'it is not about the issuer');
  assert.equal(verify(good, withLists(below, rootList())).validUntil, at + day / 2);
});

test('a revoked issuer or key is refused', () => {
  const revoked = (serial: number) => ({
    code: 'CERTIFICATE_REVOKED',
    message: new RegExp(serial.toString(16)),
  });
  refuses(good, revoked(askSerial), withLists(rootList({ revoked: [3, askSerial] })));
  const loaded = vlek(milan);
  const provided = report('Milan', loaded.key, { flags: VLEK_FLAG });
  const lists = [rootList({ revoked: [asvkSerial] })];
  refuses(provided, revoked(asvkSerial), bag([ark, asvk, loaded], lists));
  const numbered = vcek(milan, { serial: 0xabcd });
  const list = revocationList({ issuer: ask, revoked: [0xabcd] });
  refuses(report('Milan', numbered.key), revoked(0xabcd), bag([ark, ask, numbered], [list]));
});

test("of the root's two lists, for chips and for providers, both count", () => {
  const older = rootList({ revoked: [askSerial], thisUpdate: at - 2 * day });
  const newer = rootList({ revoked: [asvkSerial] });
  for (const lists of [
    [older, newer],
    [newer, older],
  ])
    refuses(good, { code: 'CERTIFICATE_REVOKED' }, withLists(...lists));
  const over = rootList({ revoked: [askSerial], thisUpdate: at - 3 * day, nextUpdate: at - 2 * day });
  refuses(good, { code: 'CERTIFICATE_REVOKED' }, withLists(newer, over));
});

test('a list that is out of date, or signed by another key, is worse than none', () => {
  const bad = (message: RegExp) => ({ code: 'COLLATERAL_INVALID', message });
  refuses(good, bad(/was good until/), withLists(rootList({ nextUpdate: at - 1 })));
  refuses(good, bad(/is good from/), withLists(rootList({ thisUpdate: at + 1000 })));
  refuses(good, bad(/by somebody else/), withLists(rootList({ issuer: impostor(ark) })));
  refuses(
    good,
    bad(/by somebody else/),
    withLists(rootList({ issuer: { ...ask, commonName: 'ARK-Milan' } })),
  );
  const below = revocationList({ issuer: impostor(ask) });
  refuses(good, bad(/by somebody else/), withLists(rootList(), below));
  // One that counts beside one that does not is enough.
  const forged = rootList({ issuer: impostor(ark) });
  assert.equal(verify(good, withLists(forged, rootList())).isRevocationChecked, true);
});

test('a list that cannot be read is none', () => {
  const malformed = { name: 'Malformed' };
  for (const algorithm of [pss(32), pss(49), pss(48, der(0xa3, integer(2)))])
    assert.throws(() => parseRevocationList(rootList({ algorithm })), malformed);
  const partial = [{ id: '2.5.29.28', content: Buffer.from('3000', 'hex'), isCritical: true }];
  assert.throws(() => parseRevocationList(rootList({ extensions: partial })), malformed);
  const list = rootList();
  for (const bytes of [list.subarray(0, -1), Buffer.concat([list, Buffer.of(0)]), Buffer.alloc(0)])
    assert.throws(() => parseRevocationList(bytes), malformed);
});

test('what a product is called is that of its line', () => {
  const { Genoa } = makers;
  const names: [string, Product][] = [
    ['Bergamo-A1', 'Genoa'],
    ['Siena-B1', 'Genoa'],
    ['Genoa', 'Genoa'],
  ];
  for (const [name, product] of names) {
    const own = vcek(Genoa, { name });
    const collateral = bag([Genoa.ark, Genoa.ask, own]);
    assert.equal(verifySnpReport(report('Genoa', own.key), collateral, at, Genoa.roots).product, product);
  }
});
