import { REPORT_SIZE } from '../../attestation/amd/report.ts';
import { isAzureReport } from '../../attestation/azure.ts';
import { failure } from '../../errors.ts';

/** What Evidence can be in a file. A `tpm-bundle` is JSON: a TPM's quote with all that belongs to it. */
export type EvidenceKind = 'intel' | 'sev-snp' | 'azure' | 'tpm' | 'tpm-bundle';

export const names: Record<EvidenceKind, string> = {
  intel: 'Intel quote',
  'sev-snp': 'AMD SEV-SNP attestation report',
  azure: 'Azure report of a confidential virtual machine',
  tpm: 'TPM quote',
  'tpm-bundle': 'TPM quote',
};

/** Bytes; Evidence has a few thousand. */
export const LARGEST = 256 * 1024;

/** Type of attestation key that Intel's quotes have, ECDSA on P-256, behind their version. */
const INTEL_KEY_TYPE = 2;
/** TPM_GENERATED_VALUE, with which everything begins that a TPM says of itself. */
const TPM_GENERATED = 0xff544347;

/**
 * Tells what is in a file by its bytes.
 * @throws Failure FILE_INVALID
 */
export function kindOf(bytes: Buffer, file: string): EvidenceKind {
  if (isAzureReport(bytes)) return 'azure';
  if (bytes.length === REPORT_SIZE && bytes.readUInt16LE(2) === 0) return 'sev-snp';
  if (bytes.length >= 4 && bytes.readUInt32BE(0) === TPM_GENERATED) return 'tpm';
  if (bytes.length >= 4 && bytes.readUInt16LE(2) === INTEL_KEY_TYPE) return 'intel';
  if (/^\s*\{/.test(bytes.subarray(0, 64).toString('latin1'))) return 'tpm-bundle';
  throw failure('FILE_INVALID', {
    path: file,
    detail: 'it is no quote of SGX, TDX or a TPM, and no report of SEV-SNP or Azure',
  });
}
