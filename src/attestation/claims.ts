import type { Credentials } from './credentials.ts';
import type { Machine } from './machine.ts';

/**
 * What a LAS can say of a process beyond its measurement, in the words of a policy's and a LAS's `require`; what each
 * proves is said where it is looked at (las/properties.ts).
 */
export const properties = ['secure-execution', 'root-owned-code'] as const;
export type Property = (typeof properties)[number];

/** What stands behind Evidence. */
export type Root = 'software' | 'sgx' | 'tdx' | 'sev-snp' | 'tpm';

/** What verified Evidence says, whatever root of trust it comes from. */
export interface Claims {
  root: Root;
  /** The 32 bytes that identify the launcher's code, hexadecimal. */
  measurement: string;
  /**
   * Where it runs, in the words of a policy's `platforms`: the public key of the LAS that vouches, hexadecimal; of
   * hardware `INTEL_QE_ID:`, `AMD_CHIP_ID:` or `TPM_EK:` and what is behind it.
   */
  platform: string;
  /** Whoever administers the host can see into the process, or can have made this Evidence. */
  debug: boolean;
  /** Names the process for as long as its host runs, and never another one there, hexadecimal. */
  process?: string;
  /** What holds of the process: {@link properties}, or names that a newer LAS knows. */
  properties?: readonly string[];
  /** Control group of the process, by which its container or service is known on its host. */
  cgroup?: string;
  /** As whom the process runs; an enclave has nobody who could look into it, and a LAS of an older version does not say. */
  credentials?: Credentials;
  /** Who signed the launcher's code, where the root of trust tells. */
  signer?: { mrsigner: string; isvprodid: number; isvsvn: number };
  /** The machine that the LAS runs on, where hardware has measured it. */
  machine?: Machine;
  /** What the platform's maker says is weak about it, in the words of `tolerate`. */
  weaknesses?: readonly string[];
  /** Security advisories that apply to the platform, such as INTEL-SA-00334. */
  advisories?: readonly string[];
  /** Whose revocation lists nobody has looked at; with any, nothing is proven. */
  unchecked?: string;
  /** What the Evidence was made over, 64 bytes. */
  reportData: Buffer;
}
