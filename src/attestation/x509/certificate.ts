import { createHash, type X509Certificate } from 'node:crypto';
import { readCertificate } from '../../quick-key.ts';
import { Malformed } from '../bytes.ts';
import { boolean, children, contextTag, expect, objectIdentifier, parseDer, tags } from './der.ts';

/** A certificate (RFC 5280), parsed once and the same object wherever it turns up again. */
export interface Certificate {
  x509: X509Certificate;
  /** SHA-256 of its DER, hexadecimal. */
  fingerprint: string;
  /** Names as OpenSSL writes them, one attribute a line. */
  subject: string;
  issuer: string;
  /** What people know it by. */
  commonName: string;
  /** Hexadecimal, lower case, without leading zeros. */
  serial: string;
  /** Milliseconds since 1970. */
  notBefore: number;
  notAfter: number;
  /** Contents of its extensions by object identifier. */
  extensions: ReadonlyMap<string, Buffer>;
  /** Object identifiers of the extensions that may not be ignored. */
  critical: readonly string[];
}

/** Larger than any that vendors issue. */
const LARGEST = 16 * 1024;
const KEPT = 1024;
const known = new Map<string, Certificate>();

/** @throws Malformed */
export function parseCertificate(der: Buffer): Certificate {
  if (der.length > LARGEST) throw new Malformed(`a certificate has more than ${LARGEST} bytes`);
  const fingerprint = createHash('sha256').update(der).digest('hex');
  const certificate = known.get(fingerprint) ?? parse(der, fingerprint);
  // The last one used is the last one to go.
  known.delete(fingerprint);
  known.set(fingerprint, certificate);
  if (known.size > KEPT) known.delete(known.keys().next().value ?? '');
  return certificate;
}

function parse(input: Buffer, fingerprint: string): Certificate {
  const der = Buffer.from(input);
  try {
    const x509 = readCertificate(der);
    const extensions = extensionsOf(der);
    return {
      x509,
      fingerprint,
      subject: x509.subject,
      issuer: x509.issuer,
      commonName: commonName(x509.subject),
      serial: normalSerial(x509.serialNumber),
      notBefore: x509.validFromDate.getTime(),
      notAfter: x509.validToDate.getTime(),
      extensions: new Map(extensions.map(({ id, content }) => [id, content])),
      critical: extensions.filter(({ isCritical }) => isCritical).map(({ id }) => id),
    };
  } catch (error) {
    throw new Malformed('a certificate cannot be read', { cause: error });
  }
}

/** Extensions of RFC 5280 §4.1. Each may be there once. */
function extensionsOf(der: Buffer): { id: string; isCritical: boolean; content: Buffer }[] {
  const [signed] = children(parseDer(der, tags.sequence));
  const list = children(expect(signed, tags.sequence)).find(({ tag }) => tag === contextTag(3));
  if (!list) return [];
  const extensions = children(parseDer(list.content, tags.sequence)).map((extension) => {
    const [id, ...rest] = children(expect(extension, tags.sequence));
    const isCritical = rest.length === 2 && boolean(rest[0]);
    return { id: objectIdentifier(id), isCritical, content: expect(rest.at(-1), tags.octetString).content };
  });
  if (new Set(extensions.map(({ id }) => id)).size < extensions.length)
    throw new Malformed('an extension is there twice');
  return extensions;
}

/** @returns the bytes of each PEM block (RFC 7468) with the label */
export function pemBlocks(text: string, label: string): Buffer[] {
  const pattern = new RegExp(`-----BEGIN ${label}-----([A-Za-z0-9+/=\\s]*)-----END ${label}-----`, 'g');
  return [...text.matchAll(pattern)].map(([, body = '']) => Buffer.from(body, 'base64'));
}

/** @throws Malformed */
export function parseCertificates(pem: string): Certificate[] {
  return pemBlocks(pem, 'CERTIFICATE').map(parseCertificate);
}

export function commonName(subject: string | undefined): string {
  return /^CN=(.*)$/m.exec(subject ?? '')?.[1] ?? subject ?? 'without a name';
}

export function normalSerial(hex: string): string {
  return hex.toLowerCase().replace(/^0+(?=.)/, '');
}

const KEY_USAGE = '2.5.29.15';

/** Bits of the extension keyUsage (RFC 5280 §4.2.1.3), numbered as there. */
const keyUsages = { digitalSignature: 0, cRLSign: 6 } as const;

/** Whether its extension keyUsage names the use; a certificate without it may be used for anything. */
export function mayBeUsedFor({ extensions }: Certificate, usage: keyof typeof keyUsages): boolean {
  const content = extensions.get(KEY_USAGE);
  if (!content) return true;
  const bit = keyUsages[usage];
  // The first byte says how many of the last one's bits are not used.
  const byte = parseDer(content, tags.bitString).content[1 + (bit >> 3)] ?? 0;
  return ((byte << (bit & 7)) & 0x80) !== 0;
}
