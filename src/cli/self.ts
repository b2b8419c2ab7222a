import { X509Certificate } from 'node:crypto';
import { formatKeyHash, publicKeyDigest } from '../protocol/key-hash.ts';
import { openClientIdentity } from './state.ts';

/** `scone self show`: key hash and certificate of the user's own identity; never its private key. */
export async function showSelf(): Promise<void> {
  const { certificate } = await openClientIdentity(process.env);
  const digest = publicKeyDigest(new X509Certificate(certificate).publicKey);
  process.stdout.write(`Key hash: ${formatKeyHash(digest)}\n${certificate}`);
}
