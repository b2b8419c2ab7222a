import * as v from 'valibot';

/** At most so many bytes, in base64. */
export const base64 = (most: number) =>
  v.pipe(v.string(), v.maxLength(Math.ceil(most / 3) * 4), v.regex(/^[A-Za-z0-9+/]*={0,2}$/));

const QUOTE = 16 * 1024;
const nonce = base64(64);
const hex = (digits: number) => v.pipe(v.string(), v.regex(new RegExp(`^[0-9a-f]{${digits}}$`)));

/**
 * Evidence from hardware, as it travels: of the launcher itself (`sgx`), or of the machine that its LAS runs on. Bytes are
 * in base64. `nonce` is what the CAS gave, and the LAS had its machine quote along with its own key.
 */
export const hardwareEvidence = v.variant('type', [
  /** An Intel SGX quote of the process itself. */
  v.strictObject({ type: v.literal('sgx'), quote: base64(QUOTE) }),
  /** An Intel TDX quote. */
  v.strictObject({ type: v.literal('tdx'), quote: base64(QUOTE), nonce }),
  /** An AMD SEV-SNP report, and the certificates that the host gave along (GHCB certificate table), often none. */
  v.strictObject({
    type: v.literal('sev-snp'),
    report: base64(QUOTE),
    certificates: base64(QUOTE),
    nonce,
  }),
  /** A TPM 2.0 quote: TPMS_ATTEST, TPMT_SIGNATURE, TPMT_PUBLIC of its key, registers of the SHA-256 bank. */
  v.strictObject({
    type: v.literal('tpm'),
    message: base64(1024),
    signature: base64(1024),
    key: base64(1024),
    pcrs: v.pipe(v.record(v.pipe(v.string(), v.regex(/^(1?[0-9]|2[0-3])$/)), hex(64))),
    nonce,
  }),
]);
export type HardwareEvidence = v.InferOutput<typeof hardwareEvidence>;
/** Evidence about a machine, which its LAS shows beside what it says of a process. */
export type MachineEvidence = Exclude<HardwareEvidence, { type: 'sgx' }>;

/** All the Evidence there is about one process: what a LAS says of it, what hardware says, or both. */
export interface Evidence {
  evidence?: string | undefined;
  hardware?: HardwareEvidence | undefined;
}
