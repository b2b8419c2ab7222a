import { createHash, createPublicKey, type KeyObject, sign } from 'node:crypto';
import { padded } from '../../../src/attestation/tpm/structures.ts';
import { newKey } from '../../support/pki.ts';

/** What a TPM says, written as the specification of the TCG has it. */

export const u16 = (value: number) => {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
};
export const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};
export const sized = (bytes: Buffer) => Buffer.concat([u16(bytes.length), bytes]);

export const RESTRICTED_SIGNING = 0x00050072;
export const ENDORSEMENT = 0x000300b2;
/** EK Credential Profile §B.6.2 */
export const POLICY_A = Buffer.from(
  '837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa',
  'hex',
);

/** TPMT_PUBLIC of a key; by default that of an attestation key. */
export function publicArea(key: KeyObject, attributes = RESTRICTED_SIGNING): Buffer {
  const isEndorsement = attributes === ENDORSEMENT;
  const symmetric = isEndorsement ? [u16(0x0006), u16(128), u16(0x0043)] : [u16(0x0010)];
  const jwk = createPublicKey(key).export({ format: 'jwk' });
  const bytes = (text = '') => Buffer.from(text, 'base64url');
  const isEcc = jwk.kty === 'EC';
  const scheme = isEndorsement ? [u16(0x0010)] : [u16(isEcc ? 0x0018 : 0x0014), u16(0x000b)];
  const parameters = isEcc ? [u16(0x0003), u16(0x0010)] : [u16(8 * bytes(jwk.n).length), u32(0)];
  const unique = isEcc ? [sized(bytes(jwk.x)), sized(bytes(jwk.y))] : [sized(bytes(jwk.n))];
  return Buffer.concat([
    ...[
      u16(isEcc ? 0x0023 : 0x0001),
      u16(0x000b),
      u32(attributes),
      sized(isEndorsement ? POLICY_A : Buffer.alloc(0)),
    ],
    ...symmetric,
    ...scheme,
    ...parameters,
    ...unique,
  ]);
}

export interface MessageOptions {
  magic?: number;
  type?: number;
  extraData?: Buffer;
  resetCount?: number;
  restartCount?: number;
  safe?: number;
  bank?: number;
  /** Banks that the same registers of are selected too. */
  more?: readonly number[];
  selected?: readonly number[];
  pcrDigest?: Buffer;
}

export const pcrs = Object.fromEntries(
  Array.from({ length: 8 }, (_, register) => [String(register), String(register).repeat(64)]),
);

export function digestOf(values: Readonly<Record<string, string>>): Buffer {
  const hash = createHash('sha256');
  for (const value of Object.values(values)) hash.update(Buffer.from(value, 'hex'));
  return hash.digest();
}

/** TPMS_ATTEST of a quote. */
export function message(options: MessageOptions = {}): Buffer {
  const { selected = [0, 1, 2, 3, 4, 5, 6, 7], extraData = Buffer.alloc(64, 0xee), more = [] } = options;
  const banks = [options.bank ?? 0x000b, ...more];
  const bits = Buffer.alloc(3);
  for (const register of selected) bits[register >> 3] = (bits[register >> 3] ?? 0) | (1 << (register & 7));
  return Buffer.concat([
    ...[u32(options.magic ?? 0xff544347), u16(options.type ?? 0x8018)],
    ...[sized(Buffer.alloc(34, 0x0b)), sized(extraData)],
    ...[Buffer.alloc(8, 1), u32(options.resetCount ?? 3), u32(options.restartCount ?? 1)],
    Buffer.of(options.safe ?? 1),
    Buffer.alloc(8, 2),
    u32(banks.length),
    ...banks.flatMap((bank) => [u16(bank), Buffer.of(3), bits]),
    sized(options.pcrDigest ?? digestOf(pcrs)),
  ]);
}

/** TPMT_SIGNATURE */
export function signature(bytes: Buffer, key: KeyObject): Buffer {
  if (key.asymmetricKeyType === 'rsa')
    return Buffer.concat([u16(0x0014), u16(0x000b), sized(sign('sha256', bytes, key))]);
  const both = sign('sha256', bytes, { key, dsaEncoding: 'ieee-p1363' });
  return Buffer.concat([u16(0x0018), u16(0x000b), sized(both.subarray(0, 32)), sized(both.subarray(32))]);
}

export const ecKey = newKey('P-256');
export const rsaKey = newKey('RSA');

export function quote(options: MessageOptions = {}, key: KeyObject = ecKey) {
  const bytes = message(options);
  return { message: bytes, signature: signature(bytes, key), key: publicArea(key), pcrs };
}

const le16 = (value: number) => u16(value).reverse();
const le32 = (value: number) => u32(value).reverse();

export interface Measured {
  register: number;
  type: number;
  data: Buffer;
  digest?: Buffer;
}

/** The log of a boot, with digests of SHA-1 and SHA-256. */
export function eventLog(events: readonly Measured[]): Buffer {
  const header = Buffer.concat([
    Buffer.from('Spec ID Event03\0'),
    ...[le32(0), Buffer.of(0, 2, 0, 2), le32(2)],
    ...[le16(0x0004), le16(20), le16(0x000b), le16(32)],
    Buffer.of(0),
  ]);
  const first = Buffer.concat([le32(0), le32(3), Buffer.alloc(20), le32(header.length), header]);
  const rest = events.map(({ register, type, data, digest }) => {
    const sha256 = digest ?? createHash('sha256').update(data).digest();
    const sha1 = createHash('sha1').update(data).digest();
    return Buffer.concat([
      ...[le32(register), le32(type), le32(2)],
      ...[le16(0x0004), sha1, le16(0x000b), sha256],
      ...[le32(data.length), data],
    ]);
  });
  return Buffer.concat([first, ...rest]);
}

/** What the registers come to. */
export function extended(events: readonly Measured[], locality = 0): Record<string, string> {
  const values: Record<string, Buffer> = {};
  for (const { register, type, data, digest } of events) {
    if (type === 3) continue;
    const before = values[register] ?? padded(register === 0 ? Buffer.of(locality) : Buffer.of(0), 32);
    const next = digest ?? createHash('sha256').update(data).digest();
    values[register] = createHash('sha256').update(before).update(next).digest();
  }
  return Object.fromEntries(
    Object.entries(values).map(([register, value]) => [register, value.toString('hex')]),
  );
}
