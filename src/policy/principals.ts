import { firstCertificate } from '../secrets/x509.ts';
import { parseKeyHash, publicKeyDigest } from './key-hash.ts';

/** Principals that are no keys. */
export const roles = ['CREATOR', 'ANY', 'NONE'] as const;
export type Role = (typeof roles)[number];

export const isRole = (text: string): text is Role => (roles as readonly string[]).includes(text);

/**
 * Digest of the key that a principal names, hexadecimal: a certificate (PEM), of which only the key counts, or a
 * key hash.
 * @returns undefined where it is neither
 */
export function principalKey(text: string): string | undefined {
  try {
    if (text.includes('-----BEGIN CERTIFICATE-----'))
      return publicKeyDigest(firstCertificate(text).publicKey).toString('hex');
    return parseKeyHash(text.trim(), 'principal').toString('hex');
  } catch {
    return undefined;
  }
}

/** What is wrong with a text that stands for a principal, if anything; variables are looked at when used. */
export function principalProblem(text: string): string | undefined {
  if (isRole(text) || text.startsWith('$$SCONE::') || principalKey(text) !== undefined) return undefined;
  return 'expected CREATOR, ANY, NONE, a certificate (PEM), a key hash or a variable';
}
