import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keyServicePaths } from '../../../src/attestation/amd/key-service.ts';
import { parseSnpReport } from '../../../src/attestation/amd/report.ts';
import { verifySnpReport } from '../../../src/attestation/amd/verify.ts';
import type { Collateral } from '../../../src/attestation/collateral.ts';
import { parseCertificate, parseCertificates } from '../../../src/attestation/x509/certificate.ts';
import { recorded, skip } from '../../support/quotes.ts';
import { bag } from './synthetic.ts';

/** Reports of real machines. */
const samples = [
  {
    report: 'milan_attestation_report.bin',
    certificates: ['milan_vcek.pem', 'milan_ask.pem', 'milan_ark.pem'],
    at: Date.parse('2026-06-01T00:00:00Z'),
    expected: {
      product: 'Milan',
      signingKey: 'VCEK',
      vmpl: 0,
      currentVersion: '1.55.29',
      reportedTcb: { bootloader: 4, tee: 0, snp: 24, microcode: 219 },
    },
  },
  {
    report: 'genoa_attestation_report.bin',
    certificates: ['genoa_ark.pem', 'genoa_ask.pem', 'genoa_vcek.pem'],
    at: Date.parse('2026-06-01T00:00:00Z'),
    expected: {
      product: 'Genoa',
      signingKey: 'VCEK',
      vmpl: 0,
      currentVersion: '1.55.40',
      reportedTcb: { bootloader: 10, tee: 0, snp: 23, microcode: 84 },
    },
  },
  {
    report: 'vlek-milan-report.bin',
    certificates: ['vlek-milan.der', 'vlek-milan-chain.pem'],
    at: Date.parse('2025-06-01T00:00:00Z'),
    expected: {
      product: 'Milan',
      signingKey: 'VLEK',
      vmpl: 1,
      cspId: 'CN=cc-us-east-2.amazonaws.com',
      currentVersion: '1.55.29',
      reportedTcb: { bootloader: 4, tee: 0, snp: 24, microcode: 217 },
    },
  },
];

const read = (file: string) => recorded(`snp/${file}`);
function collateralOf(files: readonly string[]): Collateral {
  const certificates = files.flatMap((file) =>
    file.endsWith('.pem') ? parseCertificates(read(file).toString()) : [parseCertificate(read(file))],
  );
  return { ...bag([]), certificates };
}

for (const { report: file, certificates, at, expected } of samples) {
  const load = () => [read(file), collateralOf(certificates)] as const;

  test(`${file} verifies`, { skip }, () => {
    const [report, collateral] = load();
    const verdict = verifySnpReport(report, collateral, at);
    const { product, signingKey, vmpl, currentVersion, reportedTcb, cspId } = verdict;
    assert.deepEqual(
      { product, signingKey, vmpl, currentVersion, reportedTcb, ...(cspId !== undefined && { cspId }) },
      expected,
    );
    assert.equal(verdict.chipId !== undefined, signingKey === 'VCEK');
    assert.deepEqual([verdict.debug, verdict.weaknesses], [false, ['hyperthreading']]);
    assert.equal(verdict.isRevocationChecked, false, 'no list was at hand');
  });

  test(`${file} does not with any byte of what is signed changed`, { skip }, () => {
    const [report, collateral] = load();
    for (let offset = 0; offset < 0x2a0; offset++) {
      const changed = Buffer.from(report);
      changed.writeUInt8((changed[offset] ?? 0) ^ 1, offset);
      assert.throws(() => verifySnpReport(changed, collateral, at), { name: 'Failure' }, `${offset}`);
    }
  });

  test(`${file} does not with any byte of its signature changed`, { skip }, () => {
    const [report, collateral] = load();
    for (let offset = 0x2a0; offset < report.length; offset++) {
      const changed = Buffer.from(report);
      changed.writeUInt8((changed[offset] ?? 0) ^ 1, offset);
      assert.throws(() => verifySnpReport(changed, collateral, at), { code: 'EVIDENCE_INVALID' });
    }
  });

  test(`${file} does not with a key that does not match`, { skip }, () => {
    const [report, { certificates: all, ...others }] = load();
    const other = parseCertificate(read('vcek-that-does-not-match.der'));
    const issuers = all.filter(({ x509 }) => x509.ca);
    const missing = { code: 'COLLATERAL_MISSING', message: /the certificate of the V[CL]EK/ };
    const collateral = { ...others, certificates: [...issuers, other] };
    assert.throws(() => verifySnpReport(report, collateral, at), missing);
  });

  test(`${file} does not with each certificate missing, nor outside their dates`, { skip }, () => {
    const [report, { certificates: all, ...others }] = load();
    for (const missing of all) {
      const collateral = { ...others, certificates: all.filter((each) => each !== missing) };
      assert.throws(() => verifySnpReport(report, collateral, at), { name: 'Failure' }, missing.commonName);
    }
    const from = Math.max(...all.map(({ notBefore }) => notBefore));
    const until = Math.min(...all.map(({ notAfter }) => notAfter));
    const collateral = { ...others, certificates: all };
    const verify = (time: number) => verifySnpReport(report, collateral, time);
    assert.equal(verify(from).validUntil, until);
    assert.equal(verify(until).validUntil, until);
    for (const time of [from - 1, until + 1])
      assert.throws(() => verify(time), { code: 'EVIDENCE_INVALID', message: /the V[CL]EK/ });
  });

  test(`${file} does not under other roots`, { skip }, () => {
    const [report, collateral] = load();
    for (const roots of [new Set<string>(), new Set(['00'.repeat(32)])])
      assert.throws(() => verifySnpReport(report, collateral, at, roots), { code: 'EVIDENCE_INVALID' });
  });

  test(`${file}: AMD's key service is asked for what verifies it`, { skip }, () => {
    const [report] = load();
    const { fields } = parseSnpReport(report);
    const paths = keyServicePaths(fields);
    const { reportedTcb, signingKey, product } = expected;
    const { bootloader, tee, snp, microcode } = reportedTcb;
    const base = `/${signingKey.toLowerCase()}/v1/${product}`;
    assert.deepEqual(paths, {
      product,
      ...(signingKey === 'VCEK' && {
        certificate: `${base}/${report.subarray(0x1a0, 0x1e0).toString('hex')}?blSPL=${bootloader}&teeSPL=${tee}&snpSPL=${snp}&ucodeSPL=${microcode}`,
      }),
      chain: `${base}/cert_chain`,
      revocationList: `${base}/crl`,
    });
  });
}
