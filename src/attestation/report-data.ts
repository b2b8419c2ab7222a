import { createHash } from 'node:crypto';

/**
 * What Evidence is made over. It binds the Evidence to one TLS connection: `channel` is the exporter value of
 * that connection (RFC 8446 §7.5) for a launcher, and the caller's nonce for a CAS that is attested itself.
 */
export interface Binding {
  role: 'launcher' | 'cas';
  channel: Buffer;
  /** SHA-256 of the CAS's public key. */
  casKey: Buffer;
  /** `session/service` for a launcher, empty for a CAS. */
  configId: string;
}

const CONTEXT = 'envcas-report-data-v1';

/** 64 bytes: SHA-512 over the fields, each preceded by its length as 32 bits. */
export function reportData({ role, channel, casKey, configId }: Binding): Buffer {
  const hash = createHash('sha512');
  for (const field of [CONTEXT, role, channel, casKey, configId]) {
    const bytes = Buffer.from(field);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    hash.update(length).update(bytes);
  }
  return hash.digest();
}
