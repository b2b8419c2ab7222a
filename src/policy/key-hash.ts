import { createHash, type KeyObject } from 'node:crypto';
import { createBase58check } from '@scure/base';
import { failure } from '../errors.ts';

/**
 * The name of a public key: Base58Check (version byte 1) over the SHA-256 of its SubjectPublicKeyInfo in DER
 * (RFC 5280 §4.1.2.7).
 */
const base58check = createBase58check((data: Uint8Array) => createHash('sha256').update(data).digest());
const VERSION = 1;

/** SHA-256 of the SubjectPublicKeyInfo, 32 bytes. */
export function publicKeyDigest(key: KeyObject): Buffer {
  return createHash('sha256')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest();
}

export function formatKeyHash(digest: Uint8Array): string {
  return base58check.encode(Buffer.concat([Buffer.of(VERSION), digest]));
}

/**
 * @param name where the text comes from, for the error
 * @returns the 32 bytes of SHA-256
 * @throws Failure CAS_KEY_MALFORMED
 */
export function parseKeyHash(text: string, name: string): Buffer {
  let bytes: Uint8Array;
  try {
    bytes = base58check.decode(text);
  } catch (error) {
    throw failure('CAS_KEY_MALFORMED', { name, detail: 'its checksum is wrong' }, error);
  }
  if (bytes[0] !== VERSION || bytes.length !== 33)
    throw failure('CAS_KEY_MALFORMED', { name, detail: 'it names something else' });
  return Buffer.from(bytes.subarray(1));
}
