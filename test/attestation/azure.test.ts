import assert from 'node:assert/strict';
import { createHash, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { isAzureReport, parseAzureReport, verifyAzureReport } from '../../src/attestation/azure.ts';
import { Malformed } from '../../src/attestation/bytes.ts';
import { at, bag, maker, type ReportOptions, report, vcek } from './amd/synthetic.ts';
import * as intel from './intel/synthetic.ts';

/** Reports as a confidential machine on Azure finds them in its TPM. */

const milan = maker('Milan');
const key = vcek(milan);
const collateral = bag([milan.ark, milan.ask, key]);
const rsa = (modulusLength: number) => generateKeyPairSync('rsa', { modulusLength }).publicKey;
const tpmKey = rsa(2048);
const jwk = (publicKey = tpmKey, kid = 'HCLAkPub') => ({
  kid,
  key_ops: ['sign'],
  ...publicKey.export({ format: 'jwk' }),
});
const runtime = (...keys: object[]) =>
  JSON.stringify({
    keys,
    'vm-configuration': { 'secure-boot': true, 'tpm-enabled': true },
    'user-data': '00',
  });
const text = runtime(jwk(), jwk(rsa(2048), 'HCLEkPub'));
const digest = (data: string | Buffer) => createHash('sha256').update(data).digest();

/** A report by the processor that says what it is about. */
const hardwareReport = (about: string, options: ReportOptions = {}) =>
  report('Milan', key.key, {
    vmpl: 0,
    reportData: Buffer.concat([digest(about), Buffer.alloc(32)]),
    ...options,
  });

interface AzureOptions {
  hardware?: Buffer;
  kind?: number;
  hash?: number;
  length?: number;
  trailer?: Buffer;
}

function azureReport(data: string, options: AzureOptions = {}): Buffer {
  const { hardware = hardwareReport(data), kind = 2, hash = 1, trailer = Buffer.alloc(100) } = options;
  const size = Buffer.byteLength(data);
  const words = (...values: number[]) => Buffer.from(Uint32Array.from(values).buffer);
  return Buffer.concat([
    Buffer.from('HCLA'),
    words(2, hardware.length, 2, 0, 0, 0, 0),
    hardware,
    words(20 + size, 1, kind, hash, options.length ?? size),
    Buffer.from(data),
    trailer,
  ]);
}

function verify(bytes: Buffer) {
  const { hardware, attestationKey } = verifyAzureReport(bytes, collateral, at, { roots: milan.roots });
  assert.equal(hardware.root, 'sev-snp');
  return { hardware, attestationKey };
}
const refuses = (bytes: Buffer, message: RegExp) =>
  assert.throws(() => verify(bytes), { name: 'Failure', code: 'EVIDENCE_INVALID', message });

test("the processor vouches for the TPM's key", () => {
  const { hardware, attestationKey } = verify(azureReport(text));
  assert.ok(attestationKey.equals(tpmKey));
  assert.deepEqual([hardware.root, hardware.product, hardware.vmpl], ['sev-snp', 'Milan', 0]);
  assert.ok(isAzureReport(azureReport(text)));
  assert.equal(verify(azureReport(text, { trailer: Buffer.alloc(0) })).hardware.root, 'sev-snp');
});

test('for no other key, and at no lower level', () => {
  const other = runtime(jwk(rsa(2048)));
  refuses(azureReport(other, { hardware: hardwareReport(text) }), /over another key/);
  refuses(azureReport(`${text} `, { hardware: hardwareReport(text) }), /over another key/);
  for (const vmpl of [1, 2, 3])
    refuses(azureReport(text, { hardware: hardwareReport(text, { vmpl }) }), /VMPL/);
});

test("the processor's report is verified", () => {
  const spoiled = Buffer.from(hardwareReport(text));
  spoiled.writeUInt8(1, 0x4a0 - 600);
  refuses(azureReport(text, { hardware: spoiled }), /./);
  const bytes = azureReport(text);
  assert.throws(() => verifyAzureReport(bytes, collateral, at), { code: 'EVIDENCE_INVALID' }, "AMD's roots");
  assert.throws(() => verifyAzureReport(bytes, bag([]), at, { roots: milan.roots }), {
    code: 'COLLATERAL_MISSING',
  });
  const until = Date.parse('2060-01-01T00:00:00Z');
  assert.throws(() => verifyAzureReport(bytes, collateral, until, { roots: milan.roots }), {
    code: 'EVIDENCE_INVALID',
  });
});

const tdReport = azureReport(text, { kind: 4 });

test("a TDREPORT names the TPM's key, and proves nothing without a quote", () => {
  const { hardware, attestationKey } = parseAzureReport(tdReport);
  assert.equal(hardware, 'tdx');
  assert.ok(attestationKey.equals(tpmKey));
  assert.throws(() => verify(tdReport), { code: 'COLLATERAL_MISSING', message: /a TDX quote/ });
});

test('a TDREPORT goes with a quote of TDX over the same key', () => {
  const by = intel.maker();
  const chain = [by.platformCa, by.root];
  const withQuote = (tee: 'sgx' | 'tdx', body: Buffer) =>
    verifyAzureReport(tdReport, intel.collateral({ by, tee: tee === 'sgx' ? 'SGX' : 'TDX' }), intel.at, {
      roots: by.roots,
      quote: intel.quote({ tee, body, pck: intel.pck(by), chain }),
    });
  const about = (data: string) => ({ reportData: Buffer.concat([digest(data), Buffer.alloc(32)]) });
  const { hardware, attestationKey } = withQuote('tdx', intel.domainReport(about(text)));
  assert.deepEqual([hardware.root, attestationKey.equals(tpmKey)], ['tdx', true]);
  const refused = (tee: 'sgx' | 'tdx', body: Buffer, message: RegExp) =>
    assert.throws(() => withQuote(tee, body), { code: 'EVIDENCE_INVALID', message });
  refused('tdx', intel.domainReport(about(`${text} `)), /over another key/);
  refused('sgx', intel.enclaveReport(about(text)), /a quote of TDX/);
});

test('what is not of the form is refused', () => {
  const { d: _, ...ec } = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({
    format: 'jwk',
  });
  const texts = [
    runtime(),
    runtime(jwk(tpmKey, 'HCLEkPub')),
    runtime(jwk(), jwk(rsa(2048))),
    runtime({ kid: 'HCLAkPub', ...ec }),
    runtime(jwk(rsa(1024))),
    runtime({ ...jwk(), n: 'not base64url!' }),
    runtime({ ...jwk(), n: undefined }),
    runtime(...Array<object>(17).fill(jwk())),
    '{"keys": null}',
    '[]',
    text.slice(0, -1),
    '',
  ];
  for (const each of texts) refuses(azureReport(each), /the TPM's|names a key/);
  refuses(azureReport(text, { kind: 3 }), /of kind 3/);
  refuses(azureReport(text, { hash: 2 }), /hash 2/);
  refuses(azureReport(text, { length: 10_000 }), /ends early/);
  refuses(azureReport(text, { trailer: Buffer.from('x') }), /zeros/);
  refuses(azureReport(text, { trailer: Buffer.alloc(70_000) }), /more than/);
  refuses(Buffer.from('HCL'), /begins with HCLA/);
});

test('any bytes are read or refused, and none but the right ones verify', () => {
  const good = azureReport(text);
  const spoiled = fc.oneof(
    fc.nat(good.length - 1).map((length) => good.subarray(0, length)),
    fc.tuple(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 })).map(([offset, mask]) => {
      const copy = Buffer.from(good);
      copy.writeUInt8((copy[offset] ?? 0) ^ mask, offset);
      return copy;
    }),
    fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.concat([Buffer.from('HCLA'), bytes])),
  );
  const spki = createPublicKey(tpmKey.export({ type: 'spki', format: 'pem' }));
  fc.assert(
    fc.property(spoiled, (bytes) => {
      try {
        parseAzureReport(bytes);
      } catch (error) {
        assert.ok(error instanceof Malformed, String(error));
      }
      try {
        // The header, and sizes that say the same twice, are not signed; what counts is as it was.
        const { attestationKey, hardware } = verify(bytes);
        assert.ok(attestationKey.equals(spki) && hardware.measurement === '14'.repeat(48));
      } catch (error) {
        assert.ok(error instanceof Error && error.name === 'Failure', String(error));
      }
    }),
    { numRuns: 500 },
  );
});
