import 'reflect-metadata';
import { randomBytes, webcrypto } from 'node:crypto';
import { isIP, isIPv6 } from 'node:net';
import * as x509 from '@peculiar/x509';
import { readCertificate, readPrivateKey, readPublicKey } from '../quick-key.ts';
import { type KeyType, keyTypeOf } from './private-key.ts';
import { NO_EXPIRY } from './x509.ts';

/** A certificate to be made. */
export interface CertificateRequest {
  /** Whether it may issue certificates itself. */
  ca: boolean;
  /** Of at most LONGEST_COMMON_NAME characters; where it is empty, the certificate has no subject but its names. */
  commonName: string;
  /** Host names it is good for, in ASCII. */
  dns: readonly string[];
  /** IP addresses it is good for. */
  ip: readonly string[];
  /** Which end of a TLS connection it is for; both and anything else where absent. */
  endpoint?: 'server' | 'client';
  /** SubjectPublicKeyInfo in DER. */
  publicKey: Buffer;
  /** Absent where it is self-signed. */
  issuer?: {
    /** In DER. */
    certificate: Buffer;
    /** PKCS#8 in DER. */
    privateKey: Buffer;
  };
  /** The certificate's own, PKCS#8 in DER; only to sign it where there is no issuer. */
  privateKey?: Buffer;
  notBefore: Date;
  /** It ends earlier where its issuer does, since it would be good for nothing after. */
  notAfter: Date;
}

/** Why no certificate can be issued in the name of another. */
export class IssuerUnusable extends Error {
  override name = 'IssuerUnusable';
}

const rsa = { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
const signatureAlgorithms: Record<KeyType, { name: string; namedCurve?: string; hash?: string }> = {
  'P-256': { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
  'P-384': { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' },
  Ed25519: { name: 'Ed25519' },
  'RSA-2048': rsa,
  'RSA-3072': rsa,
};

const endpoints = {
  server: x509.ExtendedKeyUsage.serverAuth,
  client: x509.ExtendedKeyUsage.clientAuth,
} as const;

/**
 * Makes a certificate as RFC 5280 has it, signed by the issuer's key or its own.
 * @returns the certificate in DER
 * @throws IssuerUnusable where the issuer may not, or can no longer, sign it
 * @throws TypeError where there is nothing to sign it with, or a name is malformed
 */
export async function issueCertificate(request: CertificateRequest): Promise<Buffer> {
  const { commonName, publicKey, issuer, notBefore } = request;
  const privateKey = issuer?.privateKey ?? request.privateKey;
  if (!privateKey) throw new TypeError('a certificate has an issuer or is signed with its own private key');
  const issuing = issuer && readIssuer(issuer, request);
  // A string would be read as an escaped form, not as the name itself.
  const subject = new x509.Name(commonName === '' ? [] : [{ CN: [{ utf8String: commonName }] }]);
  const ends = [request.notAfter, NO_EXPIRY, ...(issuing ? [issuing.notAfter] : [])];
  const certificate = await x509.X509CertificateGenerator.create({
    // Positive, without a zero in front, and of 16 random bytes.
    serialNumber: `01${randomBytes(16).toString('hex')}`,
    subject,
    issuer: issuing?.subjectName ?? subject,
    notBefore,
    notAfter: new Date(Math.min(...ends.map(Number))),
    publicKey,
    ...(await signer(privateKey)),
    extensions: await extensionsOf(request, issuing),
  });
  return Buffer.from(certificate.rawData);
}

async function signer(privateKey: Buffer) {
  const type = keyTypeOf(privateKey);
  if (!type) throw new IssuerUnusable('the type of its private key cannot sign certificates');
  const signingAlgorithm = signatureAlgorithms[type];
  const signingKey = await webcrypto.subtle.importKey(
    'pkcs8',
    new Uint8Array(privateKey),
    signingAlgorithm,
    false,
    ['sign'],
  );
  return { signingAlgorithm, signingKey };
}

async function extensionsOf(
  { ca, commonName, dns, ip, endpoint, publicKey }: CertificateRequest,
  issuing: x509.X509Certificate | undefined,
): Promise<x509.Extension[]> {
  const { keyCertSign, cRLSign, digitalSignature, keyEncipherment } = x509.KeyUsageFlags;
  const isRsa = readPublicKey(publicKey).asymmetricKeyType === 'rsa';
  const usages = ca ? keyCertSign | cRLSign : digitalSignature | (isRsa ? keyEncipherment : 0);
  const names = [...dns.map(hostName), ...ip.map(ipAddress)];
  const known = issuing?.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId;
  return [
    new x509.BasicConstraintsExtension(ca, undefined, true),
    new x509.KeyUsagesExtension(usages, true),
    await x509.SubjectKeyIdentifierExtension.create(publicKey),
    ...(issuing
      ? [
          known
            ? new x509.AuthorityKeyIdentifierExtension(known)
            : await x509.AuthorityKeyIdentifierExtension.create(issuing.publicKey),
        ]
      : []),
    ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names, commonName === '')] : []),
    ...(endpoint ? [new x509.ExtendedKeyUsageExtension([endpoints[endpoint]])] : []),
  ];
}

/** @throws TypeError for what the library would encode as another name */
function hostName(value: string): x509.JsonGeneralName {
  if (!/^[\x21-\x7e]+$/.test(value))
    throw new TypeError(`${JSON.stringify(value)} is not a host name in ASCII`);
  return { type: 'dns', value };
}

/** @throws TypeError for what the library would encode as another address */
function ipAddress(value: string): x509.JsonGeneralName {
  if (!isIP(value) || value.includes('%'))
    throw new TypeError(`${JSON.stringify(value)} is not an IP address`);
  // Dots within IPv6 are misread.
  return { type: 'ip', value: isIPv6(value) ? new URL(`http://[${value}]`).hostname.slice(1, -1) : value };
}

/** @throws IssuerUnusable where it may not sign what is requested */
function readIssuer(
  { certificate, privateKey }: NonNullable<CertificateRequest['issuer']>,
  { ca, notBefore }: CertificateRequest,
): x509.X509Certificate {
  const { issuing, constraints, usages } = readExtensions(certificate);
  if (!constraints?.ca || (usages !== undefined && !(usages & x509.KeyUsageFlags.keyCertSign)))
    throw new IssuerUnusable('the certificate of the issuer is not one that may issue others');
  if (ca && constraints.pathLength === 0)
    throw new IssuerUnusable('the certificate of the issuer may not issue certificates that issue others');
  if (issuing.notAfter <= notBefore) throw new IssuerUnusable('the certificate of the issuer has expired');
  const key = readPrivateKey(privateKey);
  if (!readCertificate(certificate).checkPrivateKey(key))
    throw new IssuerUnusable('the private key is not that of the issuer');
  return issuing;
}

function readExtensions(certificate: Buffer) {
  try {
    const issuing = new x509.X509Certificate(certificate);
    const constraints = issuing.getExtension(x509.BasicConstraintsExtension);
    return { issuing, constraints, usages: issuing.getExtension(x509.KeyUsagesExtension)?.usages };
  } catch (cause) {
    throw new IssuerUnusable('the certificate of the issuer is malformed', { cause });
  }
}
