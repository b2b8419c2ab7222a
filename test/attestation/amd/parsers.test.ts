import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseCertificateTable } from '../../../src/attestation/amd/certificate-table.ts';
import { keyServicePaths } from '../../../src/attestation/amd/key-service.ts';
import { parseSnpReport } from '../../../src/attestation/amd/report.ts';
import { verifySnpReport } from '../../../src/attestation/amd/verify.ts';
import { Malformed } from '../../../src/attestation/bytes.ts';
import { parseCertificate } from '../../../src/attestation/x509/certificate.ts';
import { parseRevocationList } from '../../../src/attestation/x509/revocation.ts';
import { revocationList } from '../../support/pki.ts';
import { spoiled, survives } from '../../support/spoil.ts';
import { at, bag, chipIdOf, maker, report, unsignedReport, VLEK_FLAG, vcek } from './synthetic.ts';

/** Bytes that are not what they should be. */

const milan = maker('Milan');
const key = vcek(milan);
const chain = [key, milan.ask, milan.ark];
const list = revocationList({ issuer: milan.ark, revoked: [1, 2, 3] });

const isMalformed = (error: unknown) => error instanceof Malformed;

test('a report of any bytes is read or refused', () => {
  survives(unsignedReport('Milan'), parseSnpReport, isMalformed);
  survives(unsignedReport('Turin', { version: 3 }), parseSnpReport, isMalformed);
  survives(unsignedReport('Genoa', { version: 2 }), parseSnpReport, isMalformed);
});

test('every field is read from where it is, and nothing else', () => {
  const base = unsignedReport('Turin');
  const { fields } = parseSnpReport(base);
  // Bytes that may be anything, and the field that they are in.
  const free: [from: number, to: number, field: keyof typeof fields][] = [
    [0x04, 0x08, 'guestSvn'],
    [0x10, 0x20, 'familyId'],
    [0x20, 0x30, 'imageId'],
    [0x50, 0x90, 'reportData'],
    [0x90, 0xc0, 'measurement'],
    [0xc0, 0xe0, 'hostData'],
    [0xe0, 0x110, 'idKeyDigest'],
    [0x110, 0x140, 'authorKeyDigest'],
    [0x140, 0x160, 'reportId'],
    [0x160, 0x180, 'migrationAgent'],
    [0x180, 0x184, 'reportedTcb'],
    [0x1a0, 0x1e0, 'chipId'],
    [0x1f8, 0x200, 'launchMitigations'],
    [0x200, 0x208, 'currentMitigations'],
  ];
  for (const [from, to, field] of free)
    fc.assert(
      fc.property(
        fc.integer({ min: from, max: to - 1 }),
        fc.integer({ min: 1, max: 255 }),
        (offset, mask) => {
          const changed = Buffer.from(base);
          changed.writeUInt8((base[offset] ?? 0) ^ mask, offset);
          const { [field]: value, ...others } = parseSnpReport(changed).fields;
          const { [field]: before, ...othersBefore } = fields;
          assert.notDeepEqual(value, before);
          assert.deepEqual(others, othersBefore);
        },
      ),
    );
});

test('no spoiled report verifies', () => {
  const good = report('Milan', key.key);
  const collateral = bag(chain);
  fc.assert(
    fc.property(spoiled(good), (bytes) => {
      if (bytes.equals(good)) return;
      assert.throws(() => verifySnpReport(bytes, collateral, at, milan.roots), { name: 'Failure' });
    }),
    { numRuns: 500 },
  );
});

test('certificates and lists of any bytes are read or refused, and count only as they were', () => {
  const good = report('Milan', key.key);
  for (const [index, { der }] of chain.entries()) {
    survives(
      der,
      (bytes) => {
        const certificates = chain.map((each, i) => (i === index ? { der: bytes } : each));
        if (bytes.equals(der)) return;
        verifySnpReport(good, bag(certificates, [list]), at, milan.roots);
        assert.fail('it verifies');
      },
      (error) => isMalformed(error) || (error instanceof Error && error.name === 'Failure'),
    );
    survives(der, parseCertificate, isMalformed);
  }
  survives(list, parseRevocationList, isMalformed);
  survives(
    list,
    (bytes) => {
      if (bytes.equals(list)) return;
      const verdict = verifySnpReport(good, bag(chain, [bytes]), at, milan.roots);
      assert.equal(verdict.isRevocationChecked, false, 'of another issuer');
    },
    (error) => isMalformed(error) || (error instanceof Error && error.name === 'Failure'),
  );
});

const GUID = Buffer.from('8d75da63-64e6-4564-adc5-f4b93be8accd'.replaceAll('-', ''), 'hex');

/** What a host hands over: entries, and the certificates behind them. */
function table(certificates: readonly Buffer[]): Buffer {
  let offset = 24 * (certificates.length + 1);
  const entries = certificates.map(({ length }) => {
    const entry = Buffer.concat([GUID, Buffer.alloc(8)]);
    entry.writeUInt32LE(offset, 16);
    entry.writeUInt32LE(length, 20);
    offset += length;
    return entry;
  });
  return Buffer.concat([...entries, Buffer.alloc(24), ...certificates]);
}

test("a host's certificate table is read", () => {
  const full = Buffer.concat([table(chain.map(({ der }) => der)), Buffer.alloc(100)]);
  assert.deepEqual(
    parseCertificateTable(full).map(({ commonName }) => commonName),
    ['SEV-VCEK', 'SEV-Milan', 'ARK-Milan'],
  );
  assert.deepEqual(parseCertificateTable(Buffer.alloc(0)), []);
  assert.deepEqual(parseCertificateTable(Buffer.alloc(4096)), []);
});

test('a certificate table that lies is refused', () => {
  const good = table(chain.map(({ der }) => der));
  survives(good, parseCertificateTable, isMalformed);
  const change = (offset: number, value: number) => {
    const changed = Buffer.from(good);
    changed.writeUInt32LE(value, offset);
    return changed;
  };
  const bad = [
    change(16, good.length),
    change(16, 0xffff_ffff),
    change(20, 0xffff_ffff),
    change(20, 0),
    good.subarray(0, 24),
    good.subarray(0, -1),
    Buffer.alloc(64 * 1024 + 1),
    table(Array<Buffer>(17).fill(key.der)).subarray(0, 64 * 1024),
    Buffer.alloc(23),
  ];
  for (const [index, bytes] of bad.entries())
    assert.throws(() => parseCertificateTable(bytes), { name: 'Malformed' }, `${index}`);
});

test("AMD's key service is asked for a Turin's key by FMC and eight bytes, and never for a provider's", () => {
  const { fields } = parseSnpReport(unsignedReport('Turin'));
  assert.deepEqual(keyServicePaths(fields), {
    product: 'Turin',
    certificate: `/vcek/v1/Turin/${'c1'.repeat(8)}?fmcSPL=1&blSPL=4&teeSPL=2&snpSPL=24&ucodeSPL=219`,
    chain: '/vcek/v1/Turin/cert_chain',
    revocationList: '/vcek/v1/Turin/crl',
  });
  const provided = unsignedReport('Genoa', { flags: VLEK_FLAG, chipId: chipIdOf('Genoa') });
  assert.deepEqual(keyServicePaths(parseSnpReport(provided).fields), {
    product: 'Genoa',
    chain: '/vlek/v1/Genoa/cert_chain',
    revocationList: '/vlek/v1/Genoa/crl',
  });
  const old = unsignedReport('Milan', { version: 2 });
  assert.equal(keyServicePaths(parseSnpReport(old).fields), undefined, 'it does not tell its product');
});
