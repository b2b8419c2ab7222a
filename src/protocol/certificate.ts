import 'reflect-metadata';
import { createPublicKey, type KeyObject, webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
import * as x509 from '@peculiar/x509';

/** A self-signed certificate to be made. Whoever pins it pins its key, so it may be made anew at any time. */
export interface CertificateRequest {
  /** P-256 private key. */
  key: KeyObject;
  commonName: string;
  /** Host names and IP addresses it is good for. */
  names: readonly string[];
  notBefore: Date;
  notAfter: Date;
}

const P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

/** @returns the certificate (RFC 5280) as PEM */
export async function selfSignedCertificate(request: CertificateRequest): Promise<string> {
  const { subtle } = webcrypto;
  const privateKey = await subtle.importKey(
    'pkcs8',
    new Uint8Array(request.key.export({ type: 'pkcs8', format: 'der' })),
    P256,
    false,
    ['sign'],
  );
  const publicKey = await subtle.importKey(
    'spki',
    new Uint8Array(createPublicKey(request.key).export({ type: 'spki', format: 'der' })),
    P256,
    true,
    ['verify'],
  );
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [request.commonName] }],
    notBefore: request.notBefore,
    notAfter: request.notAfter,
    keys: { privateKey, publicKey },
    signingAlgorithm: P256,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
      new x509.SubjectAlternativeNameExtension(
        request.names.map((value) => ({ type: isIP(value) ? 'ip' : 'dns', value })),
      ),
    ],
  });
  return `${certificate.toString('pem')}\n`;
}

/** A P-256 key and its self-signed certificate, both PEM. */
export interface Identity {
  key: string;
  certificate: string;
}
