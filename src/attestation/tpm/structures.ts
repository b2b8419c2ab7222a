import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import { Malformed, type Reader, reader } from '../bytes.ts';

/** Structures of TPM 2.0 (TCG Trusted Platform Module Library, Part 2), as far as quotes need them; all big-endian. */

/** TPM_ALG_ID */
export const algorithms = {
  rsa: 0x0001,
  sha256: 0x000b,
  sha384: 0x000c,
  sha512: 0x000d,
  null: 0x0010,
  rsassa: 0x0014,
  ecdsa: 0x0018,
  ecc: 0x0023,
} as const;

const hashes: Readonly<Record<number, string>> = {
  [algorithms.sha256]: 'sha256',
  [algorithms.sha384]: 'sha384',
  [algorithms.sha512]: 'sha512',
};

/** Name of a hash in node:crypto. Nothing weaker than SHA-256 is taken. @throws Malformed */
export function hashOf(algorithm: number): string {
  const hash = hashes[algorithm];
  if (hash === undefined) throw new Malformed(`the hash algorithm ${algorithm} is not accepted`);
  return hash;
}

/** TPMA_OBJECT: what a key may be used for. */
export const attributes = {
  fixedTpm: 1 << 1,
  fixedParent: 1 << 4,
  sensitiveDataOrigin: 1 << 5,
  adminWithPolicy: 1 << 7,
  encryptedDuplication: 1 << 11,
  restricted: 1 << 16,
  decrypt: 1 << 17,
  sign: 1 << 18,
  x509sign: 1 << 19,
  reserved: 0xfff0f009,
} as const;

/** TPMT_PUBLIC: the public part of a key. */
export interface PublicArea {
  /** As it is written, without a length before it. */
  bytes: Buffer;
  attributes: number;
  /** Digest of what it takes to use it (authPolicy). */
  policy: Buffer;
  /** Hash algorithm and hash of all of it (Part 1 §16). */
  name: Buffer;
  nameHash: string;
  key: KeyObject;
  type: 'rsa' | 'ecc';
}

/** TPMS_ATTEST of a quote. */
export interface QuoteInfo {
  /** What the quote was asked to be made over. */
  extraData: Buffer;
  /** Milliseconds that the TPM has run. */
  clock: bigint;
  /** How often it was reset, and resumed since. */
  resetCount: number;
  restartCount: number;
  /** Whether the clock has not gone back. */
  safe: boolean;
  firmwareVersion: string;
  selections: readonly Selection[];
  pcrDigest: Buffer;
}

/** Registers of one bank, by number. */
export interface Selection {
  algorithm: number;
  registers: readonly number[];
}

/** TPMT_SIGNATURE */
export interface Signature {
  scheme: 'rsassa' | 'ecdsa';
  hash: string;
  /** RSA: as it is; ECDSA: r and s, each as long as it came. */
  parts: readonly Buffer[];
}

const GENERATED = 0xff544347;
const ATTEST_QUOTE = 0x8018;
const LARGEST = 4096;

function open(bytes: Buffer, name: string): Reader {
  if (bytes.length > LARGEST) throw new Malformed(`${name} has more than ${LARGEST} bytes`);
  return reader(bytes, name);
}

const sized = (from: Reader) => from.bytes(from.u16be());

/** @throws Malformed */
export function parseQuoteInfo(message: Buffer): QuoteInfo {
  const attest = open(message, 'the quote');
  if (attest.u32be() !== GENERATED) throw new Malformed('the quote was not made by a TPM');
  if (attest.u16be() !== ATTEST_QUOTE)
    throw new Malformed('it is no quote, but something else that a TPM has signed');
  sized(attest); // The name of the signer, which its signature tells better.
  const extraData = sized(attest);
  const clock = attest.u64be();
  const resetCount = attest.u32be();
  const restartCount = attest.u32be();
  const yesNo = attest.u8();
  if (yesNo > 1) throw new Malformed('the quote says neither yes nor no of its clock');
  const safe = yesNo === 1;
  const firmwareVersion = attest.bytes(8).toString('hex');
  const count = attest.u32be();
  if (count > 16) throw new Malformed(`the quote is over ${count} banks`);
  const selections = Array.from({ length: count }, () => parseSelection(attest));
  const pcrDigest = sized(attest);
  attest.end();
  return { extraData, clock, resetCount, restartCount, safe, firmwareVersion, selections, pcrDigest };
}

function parseSelection(from: Reader): Selection {
  const algorithm = from.u16be();
  const bits = from.bytes(from.u8());
  const registers = [...bits].flatMap((byte, index) =>
    Array.from({ length: 8 }, (_, bit) => 8 * index + bit).filter((register) => byte & (1 << (register % 8))),
  );
  return { algorithm, registers };
}

/** @throws Malformed */
export function parseSignature(bytes: Buffer): Signature {
  const signature = open(bytes, 'the signature');
  const algorithm = signature.u16be();
  const hash = hashOf(signature.u16be());
  if (algorithm !== algorithms.rsassa && algorithm !== algorithms.ecdsa)
    throw new Malformed(`the signature scheme ${algorithm} is not accepted`);
  const isEcdsa = algorithm === algorithms.ecdsa;
  const parts = isEcdsa ? [sized(signature), sized(signature)] : [sized(signature)];
  signature.end();
  return { scheme: isEcdsa ? 'ecdsa' : 'rsassa', hash, parts };
}

const curves: Readonly<Record<number, { name: string; size: number }>> = {
  3: { name: 'P-256', size: 32 },
  4: { name: 'P-384', size: 48 },
};

/**
 * Reads TPMT_PUBLIC, or TPM2B_PUBLIC, which has a length before it.
 * @throws Malformed
 */
export function parsePublicArea(input: Buffer): PublicArea {
  const isSized = input.length > 2 && input.readUInt16BE(0) === input.length - 2;
  const bytes = isSized ? input.subarray(2) : input;
  const area = open(bytes, 'the public part of a key');
  const type = area.u16be();
  const nameAlgorithm = area.u16be();
  const nameHash = hashOf(nameAlgorithm);
  const flags = area.u32be();
  const policy = sized(area);
  if (area.u16be() !== algorithms.null) {
    // Symmetric algorithm of a key that others are stored under.
    area.u16be();
    area.u16be();
  }
  if (area.u16be() !== algorithms.null) area.u16be(); // Scheme and its hash.
  const key = type === algorithms.rsa ? rsaKey(area) : type === algorithms.ecc ? eccKey(area) : undefined;
  if (!key) throw new Malformed(`a key of the type ${type} is not accepted`);
  area.end();
  const digest = createHash(nameHash).update(bytes).digest();
  const prefix = Buffer.alloc(2);
  prefix.writeUInt16BE(nameAlgorithm);
  return {
    bytes,
    attributes: flags,
    policy,
    name: Buffer.concat([prefix, digest]),
    nameHash,
    key,
    type: type === algorithms.rsa ? 'rsa' : 'ecc',
  };
}

/** Of an RSA key's modulus. */
export const LEAST_BITS = 2048;
const MOST_BITS = 4096;

function rsaKey(area: Reader): KeyObject {
  const bits = area.u16be();
  const exponent = area.u32be() || 65537;
  const modulus = sized(area);
  if (bits < LEAST_BITS || bits > MOST_BITS || modulus.length * 8 !== bits)
    throw new Malformed(`an RSA key of ${bits} bits is not accepted`);
  const e = Buffer.alloc(4);
  e.writeUInt32BE(exponent);
  return importKey({ kty: 'RSA', n: modulus.toString('base64url'), e: e.toString('base64url') });
}

function eccKey(area: Reader): KeyObject {
  const curve = curves[area.u16be()];
  if (area.u16be() !== algorithms.null) area.u16be(); // Key derivation and its hash.
  const [x, y] = [sized(area), sized(area)];
  if (!curve || x.length > curve.size || y.length > curve.size)
    throw new Malformed('an elliptic curve other than P-256 and P-384 is not accepted');
  const coordinate = (value: Buffer) => padded(value, curve.size).toString('base64url');
  return importKey({ kty: 'EC', crv: curve.name, x: coordinate(x), y: coordinate(y) });
}

function importKey(key: Record<string, string>): KeyObject {
  try {
    return createPublicKey({ format: 'jwk', key });
  } catch (error) {
    throw new Malformed('a public key cannot be used', { cause: error });
  }
}

/** With zeros in front, as the TPM may leave them out. */
export function padded(value: Buffer, size: number): Buffer {
  return Buffer.concat([Buffer.alloc(Math.max(0, size - value.length)), value]);
}
