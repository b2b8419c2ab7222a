import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from 'node:crypto';
import { isQuick, readPrivateKey, readPublicKey, UnknownKey } from '../quick-key.ts';

/** Types of private keys that the language knows. */
export const keyTypes = ['P-256', 'P-384', 'Ed25519', 'RSA-2048', 'RSA-3072'] as const;
export type KeyType = (typeof keyTypes)[number];

/** Longest PEM that is looked at, in characters: far more than a key, or a chain of certificates, needs. */
const LONGEST = 262_144;

/**
 * Makes a key. RSA takes up to a second, so a server has a thread do it.
 * @returns PKCS#8 in DER. That of Ed25519 is version 1 (RFC 5208): version 2 (RFC 5958), which holds the public
 *   key too, is refused by `openssl pkey` 3.0
 */
export function generatePrivateKey(type: KeyType): Buffer {
  return pkcs8(generatePair(type).privateKey);
}

function generatePair(type: KeyType): { privateKey: KeyObject } {
  switch (type) {
    case 'P-256':
    case 'P-384':
      return generateKeyPairSync('ec', { namedCurve: type });
    case 'Ed25519':
      return generateKeyPairSync('ed25519');
    case 'RSA-2048':
      return generateKeyPairSync('rsa', { modulusLength: 2048 });
    case 'RSA-3072':
      return generateKeyPairSync('rsa', { modulusLength: 3072 });
  }
}

/**
 * Reads a private key from PEM (RFC 7468 §10), text around it allowed.
 * @returns the key as `generatePrivateKey` would give it: named curve, public key of a curve included; or a message
 */
export function parsePrivateKey(pem: string): { der: Buffer; type: KeyType } | string {
  if (/-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: 4,ENCRYPTED/.test(pem))
    return 'the private key is encrypted with a passphrase; expected is one that is not';
  const [block, ...others] = readPem(pem) ?? [];
  if (block?.label !== 'PRIVATE KEY' || others.length > 0)
    return 'expected one private key as PKCS#8 in PEM (BEGIN PRIVATE KEY), as openssl pkcs8 -topk8 -nocrypt writes it';
  const unknown = `the type of the private key is none of ${keyTypes.join(', ')}`;
  try {
    const key = readPrivateKey(block.der);
    const type = typeOf(key);
    if (!type) return unknown;
    if (!isQuick(key)) return 'the public exponent of the private key is 2^32 or more';
    // Through JWK, which has but one form of a key, and refuses a curve's public key that is of another.
    const canonical = createPrivateKey({ key: key.export({ format: 'jwk' }), format: 'jwk' });
    if (isConsistent(canonical)) return { der: pkcs8(canonical), type };
  } catch (error) {
    // What OpenSSL says is of no use to people.
    if (error instanceof UnknownKey) return unknown;
  }
  return 'the private key is damaged';
}

/** Whether signatures of the private part are accepted by the public part; RSA keys hold both. */
function isConsistent(key: KeyObject): boolean {
  const message = Buffer.from('consistent');
  return verify(undefined, message, createPublicKey(key), sign(undefined, message, key));
}

/**
 * Reads a public key of any type that {@link readPublicKey} knows from PEM (RFC 7468 §13), text around it allowed.
 * @returns SubjectPublicKeyInfo in DER, or a message
 */
export function parsePublicKey(pem: string): Buffer | string {
  const [block, ...others] = readPem(pem) ?? [];
  if (block?.label !== 'PUBLIC KEY' || others.length > 0)
    return 'expected one public key as SubjectPublicKeyInfo in PEM (BEGIN PUBLIC KEY), as openssl pkey -pubout writes it';
  try {
    return spki(readPublicKey(block.der));
  } catch {
    return 'the public key is damaged, or of an unknown type';
  }
}

/**
 * @param privateKey PKCS#8 in DER
 * @returns its public key, SubjectPublicKeyInfo in DER
 */
export function publicKeyOf(privateKey: Buffer): Buffer {
  const known = publicKeys.get(privateKey) ?? spki(createPublicKey(readPrivateKey(privateKey)));
  publicKeys.set(privateKey, known);
  return known;
}

/** Of private keys that are in use, since one can have many certificates. */
const publicKeys = new WeakMap<Buffer, Buffer>();

/**
 * @param privateKey PKCS#8 in DER
 * @returns undefined where it is of another type
 */
export function keyTypeOf(privateKey: Buffer): KeyType | undefined {
  return typeOf(readPrivateKey(privateKey));
}

function typeOf({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): KeyType | undefined {
  const { namedCurve, modulusLength } = asymmetricKeyDetails ?? {};
  if (asymmetricKeyType === 'ed25519') return 'Ed25519';
  if (asymmetricKeyType === 'rsa') return keyTypes.find((type) => type === `RSA-${modulusLength}`);
  if (asymmetricKeyType !== 'ec') return undefined;
  return namedCurve === 'prime256v1' ? 'P-256' : namedCurve === 'secp384r1' ? 'P-384' : undefined;
}

const pkcs8 = (key: KeyObject) => key.export({ type: 'pkcs8', format: 'der' });
const spki = (key: KeyObject) => key.export({ type: 'spki', format: 'der' });

/** A part of a PEM text, between its BEGIN and END lines. */
export interface PemBlock {
  label: string;
  der: Buffer;
}

/** @returns the blocks of a PEM text (RFC 7468), or undefined where one is not closed, not base64 or too long */
export function readPem(text: string): PemBlock[] | undefined {
  if (text.length > LONGEST) return undefined;
  const blocks = [...text.matchAll(/-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\s]*)-----END \1-----/g)].map(
    ([, label = '', body = '']) => ({ label, base64: body.replace(/\s/g, '') }),
  );
  const read = blocks.map(({ label, base64 }) => ({ label, der: Buffer.from(base64, 'base64') }));
  const isWhole = blocks.length === text.split('-----BEGIN ').length - 1;
  const isBase64 = read.every(({ der }, index) => der.toString('base64') === blocks[index]?.base64);
  return isWhole && isBase64 ? read : undefined;
}

/** PEM (RFC 7468) in lines of 64 characters, the last ended too. */
export function toPem(label: string, der: Buffer): string {
  const lines = der.toString('base64').replace(/.{1,64}/g, '$&\n');
  return `-----BEGIN ${label}-----\n${lines}-----END ${label}-----\n`;
}
