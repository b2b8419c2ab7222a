import { createHash, createPublicKey, X509Certificate } from 'node:crypto';
import { formatKeyHash, publicKeyDigest } from '../policy/key-hash.ts';
import type { Output } from './output.ts';
import { warn } from './report.ts';
import { openIdentity, openSigningKey } from './state.ts';

/** What `scone self …` shows of the user's own identity, which is made on first use: never its private key. */

/** `scone self show`: key hash and certificate. */
export async function showSelf(): Promise<Output> {
  const { certificate, keyHash } = await ownIdentity();
  return { text: `Key hash: ${keyHash}\n${certificate}`, json: { keyHash, certificate } };
}

/** `scone self show-certificate`: the certificate as PEM. */
export async function showOwnCertificate(): Promise<Output> {
  const { certificate } = await ownIdentity();
  return { text: certificate, json: { certificate } };
}

/** `scone self show-key-hash`: the name of the key, as in the `access_policy` of a session. */
export async function showOwnKeyHash(): Promise<Output> {
  const { keyHash } = await ownIdentity();
  return { text: `${keyHash}\n`, json: { keyHash } };
}

/** `scone self show-certificate-hash`: SHA-256 of the certificate in DER, in hexadecimal. */
export async function showOwnCertificateHash(): Promise<Output> {
  const { certificate } = await ownIdentity();
  warn(
    'show-certificate-hash is deprecated: a policy names the key, which `scone self show-key-hash` prints',
  );
  const certificateHash = createHash('sha256').update(new X509Certificate(certificate).raw).digest('hex');
  return { text: `${certificateHash}\n`, json: { certificateHash } };
}

/** `scone self show-session-signing-key`: the public key as PEM. */
export function showSigningKey(): Output {
  const publicKey = createPublicKey(openSigningKey(process.env));
  const text = publicKey.export({ type: 'spki', format: 'pem' }) as string;
  return { text, json: { publicKey: text, keyHash: formatKeyHash(publicKeyDigest(publicKey)) } };
}

async function ownIdentity(): Promise<{ certificate: string; keyHash: string }> {
  const { certificate } = await openIdentity(process.env);
  const keyHash = formatKeyHash(publicKeyDigest(new X509Certificate(certificate).publicKey));
  return { certificate, keyHash };
}
