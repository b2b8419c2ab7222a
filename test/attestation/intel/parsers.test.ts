import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Malformed } from '../../../src/attestation/bytes.ts';
import { type CollateralFile, fileList, parseCollateral } from '../../../src/attestation/collateral.ts';
import { parseIntelCollateral } from '../../../src/attestation/intel/collateral.ts';
import { pckExtension } from '../../../src/attestation/intel/pck.ts';
import { parseQuote } from '../../../src/attestation/intel/quote.ts';
import { verifyIntelQuote } from '../../../src/attestation/intel/verify.ts';
import { parseCertificate } from '../../../src/attestation/x509/certificate.ts';
import { parseRevocationList } from '../../../src/attestation/x509/revocation.ts';
import { Failure } from '../../../src/errors.ts';
import { revocationList } from '../../support/pki.ts';
import { spoiled, survives } from '../../support/spoil.ts';
import {
  at,
  collateral,
  domainReport,
  enclaveReport,
  identity,
  maker,
  pck,
  quote,
  signedDocument,
  tcbInfo,
} from './synthetic.ts';

const intel = maker();
const key = pck(intel, { smtEnabled: true });
const chain = [intel.platformCa, intel.root];
const quotes = [
  quote({ tee: 'sgx', body: enclaveReport({ reportData: Buffer.alloc(64) }), pck: key, chain }),
  quote({ tee: 'tdx', body: domainReport(), pck: key, chain }),
  quote({ tee: 'tdx', body: domainReport({ kind: '1.5' }), pck: key, chain, version: 5 }),
];
const isMalformed = (error: unknown) => error instanceof Malformed;
const isFailure = (error: unknown) => error instanceof Failure;

test('a quote of any bytes is read or refused', () => {
  for (const bytes of quotes) survives(bytes, parseQuote, isMalformed);
});

test('no spoiled quote verifies to anything else', () => {
  for (const bytes of quotes) {
    const bag = collateral({ by: intel, tee: bytes === quotes[0] ? 'SGX' : 'TDX' });
    const good = JSON.stringify(verifyIntelQuote(bytes, bag, at, intel.roots));
    fc.assert(
      fc.property(spoiled(bytes), (changed) => {
        let verdict: string;
        try {
          verdict = JSON.stringify(verifyIntelQuote(changed, bag, at, intel.roots));
        } catch (error) {
          assert.ok(error instanceof Failure, String(error));
          return;
        }
        assert.equal(verdict, good);
      }),
      { numRuns: 500 },
    );
  }
});

test('a PCK certificate of any bytes is read or refused', () => {
  survives(key.der, (bytes) => pckExtension(parseCertificate(bytes)), isMalformed);
});

test('a revocation list of any bytes is read or refused', () => {
  const list = revocationList({
    issuer: intel.root,
    revoked: Array.from({ length: 50 }, (_, serial) => serial + 1),
  });
  survives(list, parseRevocationList, isMalformed);
});

test('collateral of any text is read or refused', () => {
  const document = signedDocument('tcbInfo', tcbInfo('TDX', [{}, { status: 'OutOfDate' }]), intel.tcbSigning);
  survives(document, (bytes) => parseIntelCollateral(bytes.toString()), isMalformed);
  survives(document, (bytes) => parseCollateral([{ name: 'file', bytes }]), isFailure);
});

test('no spoiled collateral changes a verdict', () => {
  for (const [index, tee] of (['SGX', 'TDX'] as const).entries()) {
    const bytes = quotes[index] ?? Buffer.alloc(0);
    const list = fileList(collateral({ by: intel, tee }));
    const files = list.map(({ name, content }) => ({ name, bytes: Buffer.from(content, 'base64') }));
    const verdictOf = (given: readonly CollateralFile[]) =>
      JSON.stringify(verifyIntelQuote(bytes, parseCollateral(given), at, intel.roots));
    const good = verdictOf(files);
    for (const file of files)
      fc.assert(
        fc.property(spoiled(file.bytes), (changed) => {
          let verdict: string;
          try {
            verdict = verdictOf(files.map((each) => (each === file ? { ...each, bytes: changed } : each)));
          } catch (error) {
            assert.ok(error instanceof Failure, String(error));
            return;
          }
          assert.equal(verdict, good);
        }),
      );
  }
});

test('of members with one name only the one that was signed is used', () => {
  const good = signedDocument(
    'tcbInfo',
    tcbInfo('SGX', [{ status: 'OutOfDate' }]),
    intel.tcbSigning,
  ).toString();
  const other = JSON.stringify(tcbInfo('SGX', [{}]));
  const [first] = parseIntelCollateral(`{"tcbInfo":${other},${good.slice(1)}`)?.tcbInfos ?? [];
  assert.equal(first?.text, other);
  assert.equal(first?.content.tcbLevels[0]?.tcbStatus, 'UpToDate');
  const [last] = parseIntelCollateral(`${good.slice(0, -1)},"tcbInfo":${other}}`)?.tcbInfos ?? [];
  assert.equal(last?.content.tcbLevels[0]?.tcbStatus, 'OutOfDate');
  assert.ok(last?.text.includes('OutOfDate'));
});

test('a name in a text, or deeper, is no member', () => {
  const good = signedDocument('tcbInfo', tcbInfo('SGX', [{}]), intel.tcbSigning).toString();
  const inText = `{"x":"\\"tcbInfo\\":{}","y":{"tcbInfo":{}},${good.slice(1)}`;
  assert.equal(parseIntelCollateral(inText)?.tcbInfos?.[0]?.content.id, 'SGX');
});

test('texts are passed over as JSON has them', () => {
  const good = signedDocument('tcbInfo', tcbInfo('SGX', [{}]), intel.tcbSigning).toString();
  for (const odd of ['}"}{', '"', '\\', '}\\', '{"tcbInfo":{']) {
    const json = `{"x":${JSON.stringify(odd)},${good.slice(1)}`;
    assert.equal(parseIntelCollateral(json)?.tcbInfos?.[0]?.content.id, 'SGX', json.slice(0, 30));
  }
});

test('documents of another form than Intel describes are refused', () => {
  const parse = (name: 'tcbInfo' | 'enclaveIdentity', content: object) =>
    parseIntelCollateral(signedDocument(name, content, intel.tcbSigning).toString());
  const components = (length: number) => Array.from({ length }, () => 5);
  const infos = [
    tcbInfo('TDX', [{}], { version: 4 }),
    tcbInfo('SGX', [{}], { tcbType: 1 }),
    tcbInfo('SGX', [{}], { fmspc: '00906ed5' }),
    tcbInfo('SGX', [{}], { issueDate: '2026-01-01' }),
    tcbInfo('SGX', [{ sgx: components(15) }]),
    tcbInfo('SGX', [{ sgx: components(17) }]),
    tcbInfo('TDX', [{ tdx: components(15) }]),
    tcbInfo('SGX', [{ advisories: ['INTEL-SA-1'] }]),
    tcbInfo('SGX', []),
  ];
  for (const content of infos)
    assert.throws(() => parse('tcbInfo', content), Malformed, JSON.stringify(content));
  const identities = [
    identity('SGX', [{ isvsvn: 8 }], { version: 3 }),
    identity('SGX', [{ isvsvn: 8 }], { mrsigner: '' }),
    identity('SGX', [{ isvsvn: -1 }]),
    identity('SGX', []),
  ];
  for (const content of identities)
    assert.throws(() => parse('enclaveIdentity', content), Malformed, JSON.stringify(content));
  // Intel served version 2 until 2023, which folders may still hold.
  assert.deepEqual(parse('tcbInfo', tcbInfo('SGX', [{}], { version: 2 })), {});
  assert.throws(() => parseIntelCollateral(`{"x":"${' '.repeat(256 * 1024)}"}`), Malformed);
});

test('structures that are deep or of many parts are refused like any other', () => {
  const deep = Buffer.concat([Buffer.from('30820ffc', 'hex'), Buffer.alloc(4092, 0x30)]);
  const many = Buffer.concat([Buffer.from('30820ffc', 'hex'), Buffer.from('0500'.repeat(2046), 'hex')]);
  for (const bytes of [deep, many]) {
    assert.throws(() => parseCertificate(bytes), Malformed);
    assert.throws(() => parseRevocationList(bytes), Malformed);
  }
  assert.throws(
    () => parseIntelCollateral(`{"tcbInfo":${'['.repeat(100_000)}${']'.repeat(100_000)}}`),
    Malformed,
  );
});
