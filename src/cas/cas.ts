import type { KeyObject } from 'node:crypto';
import type { Keyring } from './keyring.ts';
import type { OtherCases } from './other-cas.ts';
import type { Store } from './store/store.ts';
import type { Watches } from './watch.ts';

/** What the parts of a CAS share. */
export interface Cas {
  store: Store;
  keyring: Keyring;
  /** SHA-256 of the CAS's public key, by which launchers know it. */
  key: Buffer;
  /** X25519 key that opens sessions encrypted for this CAS. */
  encryptionKey: KeyObject;
  otherCases: OtherCases;
  watches: Watches;
  /** LAS keys that the operator trusts, hexadecimal. */
  trustedPlatforms: readonly string[];
  /** Milliseconds since 1970. */
  clock: () => number;
  log: Log;
}

/** Structured log, one line an event. Fields never hold a secret. */
export interface Log {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}
