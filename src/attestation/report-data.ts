import { createHash } from 'node:crypto';

/**
 * What Evidence is made over. It binds the Evidence to one TLS connection: `channel` is the exporter value of
 * that connection (RFC 8446 §7.5) for a launcher, and for a CAS that asks another for its root key (`backup`); the caller's
 * nonce for a CAS that is attested itself.
 */
export interface Binding {
  role: 'launcher' | 'cas' | 'backup';
  channel: Buffer;
  /** SHA-256 of the CAS's public key. */
  casKey: Buffer;
  /** `session/service` for a launcher, empty for a CAS. */
  configId: string;
}

/** 64 bytes, for Evidence about a process. */
export function reportData({ role, channel, casKey, configId }: Binding): Buffer {
  return digest('envcas-report-data-v1', role, channel, casKey, configId);
}

/**
 * 64 bytes, for Evidence about the machine of a LAS. That makes a key for itself in memory each time it starts, so that
 * whoever holds the key is the LAS that was measured.
 * @param platform the LAS's public key, hexadecimal
 * @param nonce of the CAS, which knows by it how old the Evidence is
 */
export function machineReportData(platform: string, nonce: Buffer): Buffer {
  return digest('envcas-machine-v1', Buffer.from(platform, 'hex'), nonce);
}

/**
 * As much of report data as every TPM makes a quote over. It takes no more than its largest hash (TPM 2.0 Part 2, TPM2B_DATA),
 * and many know none beyond SHA-256.
 */
export function tpmReportData(reportData: Buffer): Buffer {
  return reportData.subarray(0, 32);
}

/** SHA-512 over the fields, each preceded by its length as 32 bits. The first names the purpose. */
function digest(...fields: (string | Buffer)[]): Buffer {
  const hash = createHash('sha512');
  for (const field of fields) {
    const bytes = Buffer.from(field);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    hash.update(length).update(bytes);
  }
  return hash.digest();
}
