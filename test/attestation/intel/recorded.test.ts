import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Collateral, parseCollateral } from '../../../src/attestation/collateral.ts';
import { pckCertificates } from '../../../src/attestation/intel/pck.ts';
import { parseQuote } from '../../../src/attestation/intel/quote.ts';
import { TCB_SIGNING, verifyIntelQuote } from '../../../src/attestation/intel/verify.ts';
import { parseRevocationList } from '../../../src/attestation/x509/revocation.ts';
import { newKey, revocationList } from '../../support/pki.ts';
import { folder, recorded, skip } from '../../support/quotes.ts';

/** Quotes of real platforms with Intel's own collateral, as of the time when that was good. */

function collateralOf(path: string): Collateral {
  const names = path.endsWith('.json')
    ? [path]
    : readdirSync(join(folder, path)).map((name) => join(path, name));
  return parseCollateral(names.map((name) => ({ name, bytes: recorded(name) })));
}

const samples = [
  {
    file: 'sgx/a-config-and-swhardening.quote',
    collateral: 'sgx/a-config-and-swhardening.collateral.json',
    at: '2025-07-01T00:00:00Z',
    status: 'ConfigurationAndSWHardeningNeeded',
    advisories: ['INTEL-SA-00289', 'INTEL-SA-00615'],
    debug: false,
  },
  {
    file: 'sgx/h-swhardening.quote',
    collateral: 'intel-2025-08',
    at: '2025-09-01T00:00:00Z',
    status: 'SWHardeningNeeded',
    advisories: ['INTEL-SA-00615'],
    debug: false,
    smtEnabled: false,
  },
  {
    file: 'tdx/b-uptodate-v4.quote',
    collateral: 'tdx/b-uptodate-v4.collateral.json',
    at: '2025-07-01T00:00:00Z',
    status: 'UpToDate',
    advisories: [],
    debug: false,
    module: 'TDX_01',
  },
  {
    file: 'tdx/d-uptodate-v5.quote',
    collateral: 'intel-2026-03',
    at: '2026-04-01T00:00:00Z',
    status: 'UpToDate',
    advisories: [],
    debug: false,
  },
  {
    file: 'tdx/f-debug-v4.quote',
    collateral: 'intel-2026-03',
    at: '2026-04-01T00:00:00Z',
    status: 'OutOfDate',
    advisories: 11,
    debug: true,
  },
] as const;

const DAY = 24 * 3600 * 1000;

for (const { file, collateral: path, at: time, status, advisories, debug, ...more } of samples) {
  const at = Date.parse(time);

  test(`${file}: ${status}`, { skip }, () => {
    const verdict = verifyIntelQuote(recorded(file), collateralOf(path), at);
    assert.equal(verdict.status, status);
    assert.equal(verdict.debug, debug);
    if (typeof advisories === 'number') assert.equal(verdict.advisories.length, advisories);
    else assert.deepEqual(verdict.advisories, advisories);
    if ('module' in more)
      assert.deepEqual([verdict.module?.id, verdict.module?.status], [more.module, 'UpToDate']);
    if ('smtEnabled' in more) assert.equal(verdict.pck.smtEnabled, more.smtEnabled);
    assert.ok(verdict.validUntil > at);
  });

  test(`${file}: any byte of what is signed, or signs, that is another`, { skip }, () => {
    const bytes = recorded(file);
    const bag = collateralOf(path);
    // Header, body, signatures, quoting enclave; of the certificates that of the PCK, since others can be had elsewhere.
    const pem = bytes.indexOf('-----BEGIN');
    const end = bytes.indexOf('-----END');
    assert.ok(parseQuote(bytes).signed.length < pem && pem < end);
    for (let offset = 0; offset < end; offset += offset < pem ? 1 : 37) {
      // Line ends in PEM mean nothing.
      if (offset > pem && bytes[offset] === 0x0a) continue;
      const flipped = Buffer.from(bytes);
      flipped[offset] = (flipped[offset] ?? 0) ^ 0x10;
      assert.throws(() => verifyIntelQuote(flipped, bag, at), { name: 'Failure' }, `byte ${offset}`);
    }
  });

  test(`${file}: collateral that is missing, out of date, or not Intel's`, { skip }, () => {
    const bytes = recorded(file);
    const bag = collateralOf(path);
    const verify = (changed: Partial<Collateral>, when = at) =>
      verifyIntelQuote(bytes, { ...bag, ...changed }, when);
    for (const list of bag.revocationLists) {
      const others = bag.revocationLists.filter((each) => each !== list);
      assert.throws(
        () => verify({ revocationLists: others }),
        { code: 'COLLATERAL_MISSING' },
        list.issuerName,
      );
      const issuer = { commonName: list.issuerName, key: newKey('P-256') };
      const impostor = parseRevocationList(
        revocationList({ issuer, thisUpdate: at - DAY, nextUpdate: at + DAY }),
      );
      assert.throws(
        () => verify({ revocationLists: [...others, impostor] }),
        { code: 'COLLATERAL_INVALID' },
        list.issuerName,
      );
      const stale = { ...list, nextUpdate: at - 1 };
      assert.throws(() => verify({ revocationLists: [...others, stale] }), { code: 'COLLATERAL_INVALID' });
      for (let offset = 0; offset < list.signed.length; offset += 11) {
        const signed = Buffer.from(list.signed);
        signed[offset] = (signed[offset] ?? 0) ^ 1;
        const changed = { ...list, signed };
        assert.throws(() => verify({ revocationLists: [...others, changed] }), {
          code: 'COLLATERAL_INVALID',
        });
        const der = Buffer.from(list.der.subarray(0, offset));
        assert.throws(() => parseRevocationList(der), { name: 'Malformed' });
      }
    }
    assert.throws(() => verify({ tcbInfos: [] }), { code: 'COLLATERAL_MISSING' });
    assert.throws(() => verify({ enclaveIdentities: [] }), { code: 'COLLATERAL_MISSING' });
    for (const kind of ['tcbInfos', 'enclaveIdentities'] as const) {
      const changed = bag[kind].map((each) => ({
        ...each,
        text: each.text.replace('"version":', '"version": '),
      }));
      assert.throws(() => verify({ [kind]: changed }), { code: 'COLLATERAL_INVALID' }, kind);
    }
  });

  test(`${file}: a time outside of what any document is good for`, { skip }, () => {
    const bytes = recorded(file);
    const bag = collateralOf(path);
    const { root, pck, validUntil } = verifyIntelQuote(bytes, bag, at);
    const tee = root === 'sgx' ? ['SGX', 'QE'] : ['TDX', 'TD_QE'];
    const own = pckCertificates(parseQuote(bytes).authentication).certificates;
    const signing = bag.certificates.find(({ commonName }) => commonName === TCB_SIGNING);
    const windows = [
      ...[...own, ...(signing ? [signing] : [])].map(({ notBefore, notAfter }) => [notBefore, notAfter]),
      ...bag.revocationLists
        .filter(({ issuerName }) => [pck.issuer, 'Intel SGX Root CA'].includes(issuerName))
        .map(({ thisUpdate, nextUpdate }) => [thisUpdate, nextUpdate]),
      ...[...bag.tcbInfos.filter(({ content }) => content.fmspc === pck.fmspc), ...bag.enclaveIdentities]
        .filter(({ content }) => tee.includes(content.id))
        .map(({ issued, nextUpdate }) => [issued, nextUpdate]),
    ] as [number, number][];
    assert.equal(windows.length, 8);
    assert.equal(validUntil, Math.min(...windows.map(([, until]) => until)));
    for (const when of [Math.max(...windows.map(([from]) => from)), validUntil])
      assert.equal(verifyIntelQuote(bytes, bag, when).status, status);
    for (const when of windows.flatMap(([from, until]) => [from - 1, until + 1]))
      assert.throws(
        () => verifyIntelQuote(bytes, bag, when),
        { code: /^(EVIDENCE|COLLATERAL)_INVALID$/ },
        new Date(when).toISOString(),
      );
  });
}

test('what another root has issued is refused', { skip }, () => {
  const bag = collateralOf('foreign-root');
  const year = Date.parse('2026-01-01');
  for (const file of ['foreign-root/sgx.quote', 'foreign-root/tdx.quote'])
    for (const bytes of [recorded(file), withChain(recorded(file))])
      for (const certificates of [bag.certificates, []])
        assert.throws(() => verifyIntelQuote(bytes, { ...bag, certificates }, year), {
          code: 'EVIDENCE_INVALID',
        });
  // Nothing but the root keeps its certificates from counting.
  const bytes = withChain(recorded('foreign-root/sgx.quote'));
  assert.throws(() => verifyIntelQuote(bytes, bag, year), /no chain to a trusted root/);
  const roots = new Set(
    bag.certificates
      .filter(({ commonName }) => commonName === 'Intel SGX Root CA')
      .map((each) => each.fingerprint),
  );
  assert.throws(() => verifyIntelQuote(bytes, bag, year, roots), { code: 'COLLATERAL_MISSING' });
});

/** The quote with the certificates beside it; by itself it has only an encrypted name of the platform. */
function withChain(bytes: Buffer): Buffer {
  const version = bytes.readUInt16LE(0);
  const start = 48 + (version === 3 ? 384 : 584);
  const outer = start + 4 + 128;
  const report = version === 3 ? outer : outer + 6;
  const inner = report + 384 + 64 + 2 + bytes.readUInt16LE(report + 384 + 64);
  const chain = Buffer.concat(
    ['pckCert.pem', 'pckSignChain.pem'].map((name) => recorded(`foreign-root/${name}`)),
  );
  const changed = Buffer.concat([bytes.subarray(0, inner + 6), chain]);
  changed.writeUInt16LE(5, inner);
  changed.writeUInt32LE(chain.length, inner + 2);
  if (version > 3) changed.writeUInt32LE(changed.length - report, outer + 2);
  changed.writeUInt32LE(changed.length - start - 4, start);
  return changed;
}
