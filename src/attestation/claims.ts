/** What verified Evidence says, whatever root of trust it comes from. */
export interface Claims {
  root: 'software';
  /** The 32 bytes that identify the launcher's code, hexadecimal. */
  measurement: string;
  /** Public key of the LAS that vouches, hexadecimal. */
  platform: string;
  /** Whoever administers the host can see into the process, or can have made this Evidence. */
  debug: boolean;
  /** What the Evidence was made over, 64 bytes. */
  reportData: Buffer;
}
