import type { X509Certificate } from 'node:crypto';
import { isQuick, readCertificate } from '../quick-key.ts';
import { readPem } from './private-key.ts';

/** The end of a certificate that does not expire (RFC 5280 §4.1.2.5). */
export const NO_EXPIRY = new Date('9999-12-31T23:59:59Z');

/** Longest common name, in characters (RFC 5280 appendix A.1, ub-common-name). */
export const LONGEST_COMMON_NAME = 64;

/** Most certificates that a PEM text may hold. */
const MOST_CERTIFICATES = 16;

/**
 * Reads certificates from PEM (RFC 7468 §5), text between them allowed.
 * @returns them in DER: the own one, then its issuers in the direction of the root; or a message
 */
export function parseCertificates(pem: string): Buffer[] | string {
  const certificates = readCertificates(pem);
  if (typeof certificates === 'string') return certificates;
  for (const [index, issuer] of certificates.entries()) {
    const previous = certificates[index - 1];
    if (previous && !isIssuedBy(previous, issuer))
      return `certificate ${index + 1} is not the issuer of the one before it`;
  }
  return certificates.map(({ raw }) => raw);
}

/** Certificates that {@link parseCertificates} has accepted before: to check their signatures again would take long. */
export function acceptedCertificates(pem: string): Buffer[] {
  const certificates = readCertificates(pem);
  return typeof certificates === 'string' ? [] : certificates.map(({ raw }) => raw);
}

function readCertificates(pem: string): X509Certificate[] | string {
  const blocks = readPem(pem) ?? [];
  if (blocks.length === 0 || blocks.some(({ label }) => label !== 'CERTIFICATE'))
    return 'expected X.509 certificates in PEM (BEGIN CERTIFICATE), and nothing else in PEM';
  if (blocks.length > MOST_CERTIFICATES) return `expected at most ${MOST_CERTIFICATES} certificates`;
  const certificates: X509Certificate[] = [];
  for (const { der } of blocks) {
    const certificate = usable(der);
    if (!certificate) return `certificate ${certificates.length + 1} is damaged`;
    certificates.push(certificate);
  }
  return certificates;
}

/** Only where its key can be used, too. */
function usable(der: Buffer): X509Certificate | undefined {
  try {
    const certificate = readCertificate(der);
    return isQuick(certificate.publicKey) ? certificate : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The first certificate in a PEM text, whatever else is in it.
 * @throws Error
 */
export function firstCertificate(pem: string): X509Certificate {
  const first = readPem(pem)?.find(({ label }) => /^(X509 |TRUSTED )?CERTIFICATE$/.test(label));
  if (!first) throw new Error('there is no certificate in it');
  return readCertificate(first.der);
}

function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

/**
 * @param certificate in DER
 * @returns SubjectPublicKeyInfo in DER
 */
export function certificatePublicKey(certificate: Buffer): Buffer {
  return readCertificate(certificate).publicKey.export({ type: 'spki', format: 'der' });
}

/**
 * @param certificate in DER
 * @returns its first and last moment, in milliseconds since 1970
 */
export function certificateValidity(certificate: Buffer): { notBefore: number; notAfter: number } {
  const { validFromDate, validToDate } = readCertificate(certificate);
  return { notBefore: validFromDate.getTime(), notAfter: validToDate.getTime() };
}

/**
 * When a certificate is to be made anew: when a third of its life is left. All are milliseconds since 1970.
 */
export function renewalTime(notBefore: number, notAfter: number): number {
  return Math.floor(notAfter - (notAfter - notBefore) / 3);
}
