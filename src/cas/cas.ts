import type { KeyObject } from 'node:crypto';
import type { TrustedTpms } from '../attestation/tpm/credential.ts';
import type { AuditLog } from './audit-log.ts';
import type { CollateralKeeper } from './collateral/collateral.ts';
import type { Keyring } from './keyring.ts';
import type { MachineNonces } from './machine-nonce.ts';
import type { OtherCases } from './other-cas.ts';
import type { Facts } from './seal/facts.ts';
import type { Store } from './store/store.ts';
import type { OpenedVersions } from './versions.ts';
import type { Watches } from './watch.ts';

/** What the parts of a CAS share. */
export interface Cas {
  store: Store;
  /** What was decided. */
  audit: Pick<AuditLog, 'record' | 'recordWith' | 'recordRefusal' | 'head' | 'lines'>;
  keyring: Keyring;
  facts: Facts;
  /** Versions that were decrypted. */
  opened: OpenedVersions;
  /** SHA-256 of the CAS's public key, by which launchers know it. */
  key: Buffer;
  /** X25519 key that opens sessions encrypted for this CAS. */
  encryptionKey: KeyObject;
  otherCases: OtherCases;
  watches: Watches;
  /** What makers of hardware publish. */
  collateral: CollateralKeeper;
  /** SHA-256 of roots to trust instead of the makers' own. */
  hardwareRoots?: ReadonlySet<string> | undefined;
  machineNonces: MachineNonces;
  /** Whose TPMs may be enrolled. */
  trustedTpms: TrustedTpms;
  /** What the operator says, beside the owner. */
  operator: Operator;
  /** How many sessions one client may create. */
  sessionsPerClient: number;
  /** How much all versions may have that one client has uploaded. */
  mebibytesPerClient: number;
  /** Milliseconds since 1970. */
  clock: () => number;
  log: Log;
}

/** What whoever runs a CAS says of it. */
export interface Operator {
  /** Names in its certificate. */
  names: readonly string[];
  /** LAS keys that he trusts, hexadecimal. */
  trustedPlatforms: readonly string[];
}

/** Structured log, one line an event. Fields never hold a secret. */
export interface Log {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}
