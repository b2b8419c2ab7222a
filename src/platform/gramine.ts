import fs from 'node:fs';
import { join } from 'node:path';
import { failure, reason } from '../errors.ts';

/**
 * SGX quotes about this very process, where it runs under Gramine with remote attestation by DCAP (Gramine manual,
 * "Attestation and Secret Provisioning"): files that belong to the process alone.
 */
export type GramineFiles = Pick<typeof fs, 'readFileSync' | 'openSync' | 'writeSync' | 'closeSync'>;

export const GRAMINE_ATTESTATION = '/dev/attestation';

/** Whether this process runs in an SGX enclave that can be attested. */
export function isInEnclave(folder = GRAMINE_ATTESTATION, files: GramineFiles = fs): boolean {
  try {
    return files.readFileSync(join(folder, 'attestation_type'), 'utf8').replace(/[\0\s]+$/, '') === 'dcap';
  } catch {
    return false;
  }
}

/**
 * @param reportData 64 bytes
 * @returns an SGX quote
 * @throws Failure HARDWARE_UNUSABLE
 */
export function enclaveQuote(
  reportData: Buffer,
  folder = GRAMINE_ATTESTATION,
  files: GramineFiles = fs,
): Buffer {
  try {
    const file = files.openSync(join(folder, 'user_report_data'), fs.constants.O_WRONLY);
    try {
      if (files.writeSync(file, reportData) !== reportData.length)
        throw new Error('the report data were taken in part only');
    } finally {
      files.closeSync(file);
    }
    return files.readFileSync(join(folder, 'quote'));
  } catch (error) {
    throw failure('HARDWARE_UNUSABLE', { what: folder, detail: reason(error) }, error);
  }
}
