import {
  constants,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
} from 'node:crypto';

/**
 * Makes certificates and revocation lists as makers of hardware issue them, byte by byte, so that whatever can be wrong
 * with one can be made wrong.
 */

/** DER of an element with the contents. */
export function der(tag: number, ...contents: readonly Buffer[]): Buffer {
  const content = Buffer.concat(contents);
  const size = Buffer.alloc(4);
  size.writeUInt32BE(content.length);
  const bytes = size.subarray(size.findIndex((byte) => byte !== 0));
  const length = content.length < 0x80 ? [content.length] : [0x80 | bytes.length, ...bytes];
  return Buffer.concat([Buffer.from([tag, ...length]), content]);
}

export const sequence = (...contents: readonly Buffer[]) => der(0x30, ...contents);
export const octetString = (content: Buffer) => der(0x04, content);
export const bitString = (content: Buffer) => der(0x03, Buffer.of(0), content);
export const ia5String = (text: string) => der(0x16, Buffer.from(text));

export function integer(value: number | bigint): Buffer {
  const hex = value.toString(16);
  const bytes = Buffer.from(hex.padStart(hex.length + (hex.length % 2), '0'), 'hex');
  return der(0x02, (bytes[0] ?? 0) & 0x80 ? Buffer.concat([Buffer.of(0), bytes]) : bytes);
}

export function objectIdentifier(id: string): Buffer {
  const [first = 0, second = 0, ...rest] = id.split('.').map(Number);
  const bytes = [40 * first + second, ...rest].flatMap((arc) => {
    const digits = [arc & 0x7f];
    for (let high = arc >>> 7; high > 0; high >>>= 7) digits.unshift((high & 0x7f) | 0x80);
    return digits;
  });
  return der(0x06, Buffer.from(bytes));
}

/** GeneralizedTime. */
export function time(milliseconds: number): Buffer {
  const text = new Date(milliseconds).toISOString().replace(/[-:T]|\.\d+/g, '');
  return der(0x18, Buffer.from(text));
}

export function name(commonName: string): Buffer {
  const attribute = sequence(objectIdentifier('2.5.4.3'), der(0x0c, Buffer.from(commonName)));
  return sequence(der(0x31, attribute));
}

const rsaPss = objectIdentifier('1.2.840.113549.1.1.10');
const hash = sequence(objectIdentifier('2.16.840.1.101.3.4.2.2'), der(0x05));

/** AlgorithmIdentifier of RSASSA-PSS with SHA-384 (RFC 4055). */
export function pss(saltLength = 48, ...more: readonly Buffer[]): Buffer {
  const mask = sequence(objectIdentifier('1.2.840.113549.1.1.8'), hash);
  return sequence(
    rsaPss,
    sequence(der(0xa0, hash), der(0xa1, mask), der(0xa2, integer(saltLength)), ...more),
  );
}

const ecdsaWithSha256 = sequence(objectIdentifier('1.2.840.10045.4.3.2'));

/** What is signed, by which algorithm, and the signature, as in certificates and revocation lists. */
function signed(key: KeyObject, algorithm: Buffer | undefined, parts: (algorithm: Buffer) => Buffer): Buffer {
  const isRsa = key.asymmetricKeyType === 'rsa';
  const identifier = algorithm ?? (isRsa ? pss() : ecdsaWithSha256);
  const content = parts(identifier);
  const signature = isRsa
    ? sign('sha384', content, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 48 })
    : sign('sha256', content, key);
  return sequence(content, identifier, bitString(signature));
}

export interface Issuer {
  commonName: string;
  key: KeyObject;
}

export interface CertificateOptions {
  commonName: string;
  /** Itself by default. */
  issuer?: Issuer;
  /** Private; a new one on P-256 by default. */
  key?: KeyObject;
  /** SubjectPublicKeyInfo in the place of that of the key. */
  publicKey?: Buffer;
  serial?: number | bigint;
  /** Milliseconds since 1970; 2020 to 2050 by default. */
  notBefore?: number;
  notAfter?: number;
  /** Whether it may issue, and how many below it may. */
  ca?: boolean | number;
  /** Bits of keyUsage, numbered as in RFC 5280 §4.2.1.3. */
  usages?: readonly number[];
  extensions?: readonly { id: string; content: Buffer; isCritical?: boolean }[];
  /** AlgorithmIdentifier that is written; it is signed as usual. */
  algorithm?: Buffer;
}

export interface Minted extends Issuer {
  der: Buffer;
  pem: string;
}

export const defaultNotBefore = Date.parse('2020-01-01T00:00:00Z');
export const defaultNotAfter = Date.parse('2050-01-01T00:00:00Z');

export function newKey(kind: 'P-256' | 'P-384' | 'RSA'): KeyObject {
  return kind === 'RSA'
    ? generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
    : generateKeyPairSync('ec', { namedCurve: kind }).privateKey;
}

/** A certificate of version 3, signed by its issuer with RSASSA-PSS and SHA-384, or ECDSA and SHA-256. */
export function certificate(options: CertificateOptions): Minted {
  const { commonName, notBefore = defaultNotBefore, notAfter = defaultNotAfter, ca, usages } = options;
  const key = options.key ?? newKey('P-256');
  const issuer = options.issuer ?? { commonName, key };
  const extensions = [
    ...(ca === undefined ? [] : [{ id: '2.5.29.19', content: basicConstraints(ca), isCritical: true }]),
    ...(usages ? [{ id: '2.5.29.15', content: keyUsage(usages), isCritical: true }] : []),
    ...(options.extensions ?? []),
  ];
  const encoded = signed(issuer.key, options.algorithm, (algorithm) =>
    sequence(
      der(0xa0, integer(2)),
      integer(options.serial ?? randomBytes(8).readBigUInt64BE() >> 1n),
      algorithm,
      name(issuer.commonName),
      sequence(time(notBefore), time(notAfter)),
      name(commonName),
      options.publicKey ?? publicKeyInfo(key),
      ...(extensions.length > 0 ? [der(0xa3, sequence(...extensions.map(extension)))] : []),
    ),
  );
  return { commonName, key, der: encoded, pem: pem(encoded, 'CERTIFICATE') };
}

export interface RevocationListOptions {
  issuer: Issuer;
  /** Serial numbers. */
  revoked?: readonly (number | bigint)[];
  thisUpdate?: number;
  nextUpdate?: number;
  extensions?: CertificateOptions['extensions'];
  algorithm?: Buffer;
}

/** DER of a revocation list of version 2. */
export function revocationList(options: RevocationListOptions): Buffer {
  const { issuer, revoked = [], extensions = [] } = options;
  const { thisUpdate = defaultNotBefore, nextUpdate = defaultNotAfter } = options;
  return signed(issuer.key, options.algorithm, (algorithm) =>
    sequence(
      integer(1),
      algorithm,
      name(issuer.commonName),
      time(thisUpdate),
      time(nextUpdate),
      ...(revoked.length > 0
        ? [sequence(...revoked.map((serial) => sequence(integer(serial), time(thisUpdate))))]
        : []),
      ...(extensions.length > 0 ? [der(0xa0, sequence(...extensions.map(extension)))] : []),
    ),
  );
}

export function pem(encoded: Buffer, label: string): string {
  const lines = encoded.toString('base64').replace(/.{64}/g, '$&\n').trimEnd();
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`;
}

function publicKeyInfo(key: KeyObject): Buffer {
  return createPublicKey(key).export({ type: 'spki', format: 'der' });
}

function extension({
  id,
  content,
  isCritical = false,
}: NonNullable<CertificateOptions['extensions']>[number]) {
  return sequence(
    objectIdentifier(id),
    ...(isCritical ? [der(0x01, Buffer.of(0xff))] : []),
    octetString(content),
  );
}

function basicConstraints(ca: boolean | number): Buffer {
  if (ca === false) return sequence();
  return sequence(der(0x01, Buffer.of(0xff)), ...(ca === true ? [] : [integer(ca)]));
}

function keyUsage(usages: readonly number[]): Buffer {
  const last = Math.max(...usages);
  const bytes = Buffer.alloc((last >> 3) + 1);
  for (const bit of usages) bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) | (0x80 >> (bit & 7));
  return der(0x03, Buffer.of(7 - (last & 7)), bytes);
}
