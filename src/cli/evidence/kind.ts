import { REPORT_SIZE } from '../../attestation/amd/report.ts';
import { isAzureReport } from '../../attestation/azure.ts';
import { failure } from '../../errors.ts';

/** What Evidence can be in a file. */
export type EvidenceKind = 'intel' | 'sev-snp' | 'azure';

export const names: Record<EvidenceKind, string> = {
  intel: 'Intel quote',
  'sev-snp': 'AMD SEV-SNP attestation report',
  azure: 'Azure report of a confidential virtual machine',
};

/** Bytes; Evidence has a few thousand. */
export const LARGEST = 256 * 1024;

/** Type of attestation key that Intel's quotes have, ECDSA on P-256, behind their version. */
const INTEL_KEY_TYPE = 2;

/**
 * Tells what is in a file by its bytes.
 * @throws Failure FILE_INVALID
 */
export function kindOf(bytes: Buffer, file: string): EvidenceKind {
  if (isAzureReport(bytes)) return 'azure';
  if (bytes.length >= 4 && bytes.readUInt16LE(2) === INTEL_KEY_TYPE) return 'intel';
  if (bytes.length === REPORT_SIZE) return 'sev-snp';
  throw failure('FILE_INVALID', {
    path: file,
    detail: 'it is no quote of SGX or TDX, and no report of SEV-SNP or Azure',
  });
}
