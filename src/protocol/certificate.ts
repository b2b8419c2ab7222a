import type { KeyObject } from 'node:crypto';
import { isIP } from 'node:net';
import { publicKeyOf, toPem } from '../secrets/private-key.ts';
import { issueCertificate } from '../secrets/x509-issuer.ts';

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

/** @returns the certificate (RFC 5280) as PEM */
export async function selfSignedCertificate(request: CertificateRequest): Promise<string> {
  const { key, names, ...rest } = request;
  const privateKey = key.export({ type: 'pkcs8', format: 'der' });
  const certificate = await issueCertificate({
    ...rest,
    ca: false,
    dns: names.filter((name) => !isIP(name)),
    ip: names.filter((name) => isIP(name)),
    publicKey: publicKeyOf(privateKey),
    privateKey,
  });
  return toPem('CERTIFICATE', certificate);
}

/** A P-256 key and its self-signed certificate, both PEM. */
export interface Identity {
  key: string;
  certificate: string;
}
