import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import * as v from 'valibot';
import { failure } from '../errors.ts';
import { REPORT_SIZE } from './amd/report.ts';
import { type SnpVerdict, verifySnpReport } from './amd/verify.ts';
import { invalidEvidence, Malformed, reader, refusing } from './bytes.ts';
import type { Collateral } from './collateral.ts';
import { type IntelVerdict, verifyIntelQuote } from './intel/verify.ts';
import { LEAST_BITS } from './tpm/structures.ts';

/**
 * The report that a confidential virtual machine on Azure finds in its TPM (index 0x01400001): what runs beneath the guest,
 * at the highest privilege level, is measured by the processor, and keeps the TPM. The processor's report is over the
 * hash of a JSON text that names the TPM's attestation key. What the guest itself is, a quote by that key says.
 */
export interface AzureReport {
  /** In whose format the processor's report is. */
  hardware: 'sev-snp' | 'tdx';
  /** SEV-SNP: the attestation report. TDX: a TDREPORT, which only the same machine can check. */
  hardwareReport: Buffer;
  /** JSON text, as it was hashed. */
  runtimeData: Buffer;
  /** What the TPM signs its quotes with. */
  attestationKey: KeyObject;
}

const HARDWARE = new Map<number, AzureReport['hardware']>([
  [2, 'sev-snp'],
  [4, 'tdx'],
]);
const SHA256 = 1;
const LARGEST = 64 * 1024;

const base64Url = (most: number) => v.pipe(v.string(), v.regex(/^[A-Za-z0-9_-]+$/), v.maxLength(most));
const runtimeData = v.object({
  keys: v.pipe(v.array(v.looseObject({ kid: v.string() })), v.maxLength(16)),
});
const attestationKey = v.object({
  kid: v.literal('HCLAkPub'),
  kty: v.literal('RSA'),
  n: base64Url(1024),
  e: base64Url(8),
});

export function isAzureReport(bytes: Buffer): boolean {
  return bytes.subarray(0, 4).toString('latin1') === 'HCLA';
}

/**
 * Reads the report: a header of 32 bytes, that of the processor, the JSON text with a header of its own; zeros may follow.
 * @throws Malformed
 */
export function parseAzureReport(bytes: Buffer): AzureReport {
  if (bytes.length > LARGEST) throw new Malformed(`a report of Azure has more than ${LARGEST} bytes`);
  if (!isAzureReport(bytes)) throw new Malformed('a report of Azure begins with HCLA');
  const r = reader(bytes, 'the report of Azure');
  r.bytes(32);
  const hardwareReport = r.bytes(REPORT_SIZE);
  // Size and version.
  r.bytes(8);
  const [kind, hash] = [r.u32le(), r.u32le()];
  const hardware = HARDWARE.get(kind);
  if (!hardware) throw new Malformed(`the report of Azure holds one of kind ${kind}`);
  if (hash !== SHA256) throw new Malformed(`the report of Azure uses the hash ${hash}`);
  const text = r.bytes(r.u32le());
  r.zeros(r.remaining);
  return { hardware, hardwareReport, runtimeData: text, attestationKey: attestationKeyOf(text) };
}

function attestationKeyOf(text: Buffer): KeyObject {
  let key: KeyObject;
  try {
    const { keys } = v.parse(v.pipe(v.string(), v.parseJson(), runtimeData), text.toString());
    const wanted = keys.filter(({ kid }) => kid === 'HCLAkPub');
    if (wanted.length !== 1) throw new Error(`it names ${wanted.length} keys HCLAkPub`);
    const [{ n, e }] = v.parse(v.tuple([attestationKey]), wanted);
    key = createPublicKey({ format: 'jwk', key: { kty: 'RSA', n, e } });
  } catch (error) {
    throw new Malformed("the report of Azure does not name the TPM's key", { cause: error });
  }
  if ((key.asymmetricKeyDetails?.modulusLength ?? 0) < LEAST_BITS)
    throw new Malformed("the report of Azure names a key of the TPM's that is too short");
  return key;
}

/** What the processor says of the machine, and the key of the TPM that it vouches for. */
export interface AzureVerdict {
  hardware: SnpVerdict | IntelVerdict;
  attestationKey: KeyObject;
}

export interface AzureOptions {
  /** As for {@link verifySnpReport} and {@link verifyIntelQuote}. */
  roots?: ReadonlySet<string>;
  /** TDX: the quote over the same report data, which the machine has made of its TDREPORT. */
  quote?: Buffer;
}

/**
 * Verifies that the processor vouches for the TPM's key.
 * @param at milliseconds since 1970
 * @throws Failure as {@link verifySnpReport} or {@link verifyIntelQuote}
 */
export function verifyAzureReport(
  bytes: Buffer,
  collateral: Collateral,
  at: number,
  { roots, quote }: AzureOptions = {},
): AzureVerdict {
  return refusing(() => {
    const { hardware: kind, hardwareReport, runtimeData, attestationKey } = parseAzureReport(bytes);
    let hardware: AzureVerdict['hardware'];
    if (kind === 'sev-snp') {
      hardware = verifySnpReport(hardwareReport, collateral, at, roots);
      // The guest runs at a lower level, and can have reports made over whatever it likes.
      if (hardware.vmpl !== 0)
        throw invalidEvidence(`the report of Azure was asked for at VMPL ${hardware.vmpl}`);
    } else {
      if (!quote)
        throw failure('COLLATERAL_MISSING', {
          what: 'a TDX quote, since a TDREPORT proves nothing elsewhere',
        });
      hardware = verifyIntelQuote(quote, collateral, at, roots);
      if (hardware.root !== 'tdx') throw invalidEvidence('the report of Azure goes with a quote of TDX');
    }
    const hash = createHash('sha256').update(runtimeData).digest('hex');
    if (!reportDataOf(hardware).startsWith(hash))
      throw invalidEvidence("the report of Azure is over another key of the TPM's");
    return { hardware, attestationKey };
  });
}

function reportDataOf(verdict: AzureVerdict['hardware']): string {
  return verdict.root === 'sev-snp' ? verdict.reportData : verdict.body.reportData;
}
