import { createPrivateKey, createPublicKey, type KeyObject, X509Certificate } from 'node:crypto';
import { Malformed } from './attestation/bytes.ts';
import {
  bitString,
  children,
  contextTag,
  type Element,
  expect,
  objectIdentifier,
  parseDer,
  tags,
} from './attestation/x509/der.ts';

/**
 * Reads keys and certificates of strangers. OpenSSL computes while it reads some: the public part of a private key, or a
 * point on a curve that somebody made up, which takes it from half a second to days. So it sees only what is quick.
 */

/** A key of a type, or on a curve, that is not read here. */
export class UnknownKey extends Error {
  override name = 'UnknownKey';
}

const EC = '1.2.840.10045.2.1';
const RSA = '1.2.840.113549.1.1.1';
const ED25519 = '1.3.101.112';

/** Types of public keys: RSA, RSASSA-PSS, X25519, X448, Ed25519, Ed448, ML-DSA, SLH-DSA and ML-KEM. */
const PUBLIC =
  /^(1\.2\.840\.113549\.1\.1\.(1|10)|1\.3\.101\.11[0-3]|2\.16\.840\.1\.101\.3\.4\.(3\.(1[7-9]|2\d|3[01])|4\.[1-3]))$/;
const PRIVATE = new Set([RSA, ED25519]);

/** Curves by name: P-224, P-256, P-384, P-521, secp256k1, and those of Brainpool (RFC 5639). */
const CURVE =
  /^(1\.3\.132\.0\.(33|34|35|10)|1\.2\.840\.10045\.3\.1\.7|1\.3\.36\.3\.3\.2\.8\.1\.1\.([1-9]|1[0-4]))$/;

/** Bytes: 2000 names of 255 bytes, as many as one that is made here may have. */
const LARGEST_CERTIFICATE = 640 * 1024;
/** Bytes: a public key of RSA has at most 2 KiB. */
const LARGEST_PUBLIC = 16 * 1024;
/** Bytes of PKCS#8: an RSA key of 8192 bits has some 4800. */
const LARGEST_PRIVATE = 8192;

/**
 * @param der Certificate (RFC 5280 §4.1), and nothing else
 * @throws UnknownKey, Malformed, or an error of OpenSSL
 */
export function readCertificate(der: Buffer): X509Certificate {
  checkCertificate(der);
  const certificate = new X509Certificate(der);
  if (!certificate.raw.equals(der)) throw new Malformed('bytes follow the certificate');
  return certificate;
}

/**
 * @param der SubjectPublicKeyInfo (RFC 5280 §4.1.2.7)
 * @throws UnknownKey, Malformed, or an error of OpenSSL
 */
export function readPublicKey(der: Buffer): KeyObject {
  checkSize(der, LARGEST_PUBLIC);
  checkPublicKey(parseDer(der, tags.sequence));
  return createPublicKey({ key: der, format: 'der', type: 'spki' });
}

/**
 * @param der PKCS#8 (RFC 5208 §5) of RSA, a curve or Ed25519
 * @throws UnknownKey, Malformed, or an error of OpenSSL
 */
export function readPrivateKey(der: Buffer): KeyObject {
  const [, algorithm, key] = children(parseDer(der, tags.sequence));
  checkSize(der, LARGEST_PRIVATE);
  const { content } = expect(key, tags.octetString);
  if (checkAlgorithm(algorithm, (type) => PRIVATE.has(type)) === EC) {
    // What it says of its curve itself counts more (RFC 5915 §3).
    const own = children(parseDer(content, tags.sequence)).find(({ tag }) => tag === contextTag(0));
    if (own) checkCurve(children(own));
  }
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
}

/**
 * Looks at a certificate without OpenSSL.
 * @param der Certificate
 * @throws UnknownKey or Malformed where OpenSSL should not see it
 */
export function checkCertificate(der: Buffer): void {
  checkSize(der, LARGEST_CERTIFICATE);
  // Node looks for PEM first, wherever a line of it begins.
  if (der.includes('-----BEGIN ')) throw new Malformed('a certificate holds PEM');
  const [signed] = children(parseDer(der, tags.sequence));
  const fields = children(expect(signed, tags.sequence));
  // Of version 1 it does not say its version.
  const serial = fields[0]?.tag === contextTag(0) ? 1 : 0;
  checkPublicKey(expect(fields[serial + 5], tags.sequence));
}

function checkSize(der: Buffer, largest: number): void {
  if (der.length > largest) throw new UnknownKey(`it has more than ${largest} bytes`);
}

function checkPublicKey(info: Element): void {
  const [algorithm, key] = children(info);
  checkAlgorithm(algorithm, (type) => PUBLIC.test(type));
  bitString(key);
}

/** @returns the object identifier of its type */
function checkAlgorithm(algorithm: Element | undefined, isKnown: (type: string) => boolean): string {
  const [id, ...parameters] = children(expect(algorithm, tags.sequence));
  const type = objectIdentifier(id);
  if (type === EC) checkCurve(parameters);
  else if (!isKnown(type)) throw new UnknownKey(`a key of the type ${type}`);
  return type;
}

/** ECParameters: a name (RFC 5480 §2.1.1), or the same curve spelled out (ANSI X9.62), as older programs write keys. */
function checkCurve([curve, ...more]: readonly Element[]): void {
  if (more.length > 0) throw new Malformed('a key on several curves');
  if (curve?.tag === tags.objectIdentifier) {
    const name = objectIdentifier(curve);
    if (!CURVE.test(name)) throw new UnknownKey(`a key on the curve ${name}`);
    return;
  }
  const [, field] = children(expect(curve, tags.sequence));
  const [type, prime] = children(expect(field, tags.sequence));
  if (
    objectIdentifier(type) !== PRIME_FIELD ||
    !PRIMES.has(expect(prime, tags.integer).content.toString('hex'))
  )
    throw new UnknownKey('a key on a curve over another field');
}

const PRIME_FIELD = '1.2.840.10045.1.1';
/** Primes of P-256, P-384 and P-521, modulo which a square root is found quickly: each is 3 modulo 4. */
const PRIMES: ReadonlySet<string> = new Set(
  [
    2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n,
    2n ** 384n - 2n ** 128n - 2n ** 96n + 2n ** 32n - 1n,
    2n ** 521n - 1n,
  ].map((prime) => {
    const hex = prime.toString(16);
    // Above 2^255 and 2^383 a byte of zeros says that it is not negative.
    return hex.length % 2 ? `0${hex}` : `00${hex}`;
  }),
);

/** Public exponents of RSA that anybody uses; one as long as the key has a check of a signature take as long as making it. */
const LARGEST_EXPONENT = 2n ** 32n;

/** Whether to check a signature of a key is quick. */
export const isQuick = ({ asymmetricKeyDetails }: KeyObject): boolean =>
  (asymmetricKeyDetails?.publicExponent ?? 0n) < LARGEST_EXPONENT;
