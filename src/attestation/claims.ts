/** What verified Evidence says, whatever root of trust it comes from. */
export interface Claims {
  root: 'software';
  /** The 32 bytes that identify the launcher's code, hexadecimal. */
  measurement: string;
  /** Public key of the LAS that vouches, hexadecimal. */
  platform: string;
  /** Whoever administers the host can see into the process, or can have made this Evidence. */
  debug: boolean;
  /** Names the process for as long as its host runs, and never another one there, hexadecimal. */
  process?: string;
  /** Who signed the launcher's code, where the root of trust tells. */
  signer?: { mrsigner: string; isvprodid: number; isvsvn: number };
  /** What the platform's maker says is weak about it, in the words of `tolerate`. */
  weaknesses?: readonly string[];
  /** Security advisories that apply to the platform, such as INTEL-SA-00334. */
  advisories?: readonly string[];
  /** What the Evidence was made over, 64 bytes. */
  reportData: Buffer;
}
