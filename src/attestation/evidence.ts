import { invalidEvidence } from './bytes.ts';
import type { Claims } from './claims.ts';
import { type Endorsements, type HardwareClaims, verifyHardware } from './hardware.ts';
import type { Evidence, HardwareEvidence } from './hardware-evidence.ts';
import { machineReportData, tpmReportData } from './report-data.ts';
import { verifySoftwareEvidence } from './software.ts';

/** Claims, and what is known of the moment that hardware spoke of its machine. */
export interface VerifiedEvidence extends Claims {
  /** What the Evidence about the machine was made over, beside the key of its LAS. */
  nonce?: Buffer;
  boot?: HardwareClaims['boot'];
}

/**
 * Verifies what came as Evidence: from an enclave, or from a LAS about one of its processes, with what hardware says of
 * the LAS's machine where it does. Whether the claims suffice is for {@link appraise} to say, and whether they were
 * made for the right purpose follows from their report data.
 * @param endorse finds what hardware Evidence is checked with
 * @param at milliseconds since 1970
 * @throws Failure EVIDENCE_INVALID, COLLATERAL_MISSING, COLLATERAL_INVALID, CERTIFICATE_REVOKED, TCB_UNACCEPTABLE or
 *   TPM_UNKNOWN
 */
export async function verifyEvidence(
  { evidence, hardware }: Evidence,
  endorse: (hardware: HardwareEvidence) => Promise<Endorsements>,
  at: number,
): Promise<VerifiedEvidence> {
  if (hardware?.type === 'sgx') {
    if (evidence !== undefined) throw invalidEvidence('an enclave needs nobody else to vouch for it');
    const { enclave, ...claims } = verifyHardware(hardware, await endorse(hardware), at);
    if (!enclave) throw invalidEvidence('it is no quote of an enclave');
    return { ...claims, ...enclave };
  }
  if (evidence === undefined) throw invalidEvidence('it says nothing of a process');
  const process = await verifySoftwareEvidence(evidence);
  if (!hardware) return process;
  const { reportData, enclave, ...machine } = verifyHardware(hardware, await endorse(hardware), at);
  const nonce = Buffer.from(hardware.nonce, 'base64');
  if (!machine.machine || enclave) throw invalidEvidence('it says nothing of a machine');
  const expected = machineReportData(process.platform, nonce);
  if (!reportData.equals(machine.root === 'tpm' ? tpmReportData(expected) : expected))
    throw invalidEvidence('the machine vouches for another LAS, or for another purpose');
  return { ...process, ...machine, nonce };
}
