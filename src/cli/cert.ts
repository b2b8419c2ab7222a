import { createPublicKey, type KeyObject, X509Certificate } from 'node:crypto';
import { failure } from '../errors.ts';
import { formatKeyHash, publicKeyDigest } from '../policy/key-hash.ts';
import { readInput } from './input.ts';
import type { Output } from './output.ts';

const LARGEST = 1024 * 1024;

/** `scone cert show-key-hash FILE`: names the key of a certificate, the first one of a chain, or a public key. */
export function showKeyHash(file: string): Output {
  const keyHash = formatKeyHash(publicKeyDigest(readPublicKey(file)));
  return { text: `${keyHash}\n`, json: { keyHash } };
}

/** @throws Failure FILE_INVALID, which quotes nothing of the file */
function readPublicKey(file: string): KeyObject {
  const wrong = (detail: string) => failure('FILE_INVALID', { path: file, detail });
  const pem = readInput(file, LARGEST).toString('latin1');
  // RFC 7468 §2: the label says what it is.
  const labels = [...pem.matchAll(/^-----BEGIN ([A-Z0-9 ]+)-----/gm)].map(([, label = '']) => label);
  if (labels.some((label) => label.endsWith('PRIVATE KEY')))
    throw wrong('it holds a private key; take the public one: openssl pkey -in FILE -pubout');
  const [first] = labels;
  if (first === undefined) throw wrong('it is not PEM: there is no -----BEGIN …-----');
  try {
    if (/^(X509 |TRUSTED )?CERTIFICATE$/.test(first)) return new X509Certificate(pem).publicKey;
    if (/^(RSA )?PUBLIC KEY$/.test(first)) return createPublicKey(pem);
  } catch {
    throw wrong(`its ${first} cannot be read`);
  }
  throw wrong(`a certificate or a public key is wanted, and it holds a ${first}`);
}
