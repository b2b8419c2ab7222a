import { generateKeyPairSync } from 'node:crypto';
import { selfSignedCertificate } from '../src/protocol/certificate.ts';

/** A key of the kind that a CAS has, and its certificate, for a server that one is compared with. */
export async function minimalIdentity(): Promise<{ key: string; cert: string }> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const cert = await selfSignedCertificate({
    key: privateKey,
    commonName: 'minimal',
    names: ['localhost'],
    notBefore: new Date(Date.now() - 1000),
    notAfter: new Date(Date.now() + 86_400_000),
  });
  return { key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string, cert };
}
