import { createHash } from 'node:crypto';
import type { SecretDefinition } from '../policy/session.ts';
import { parseDuration } from '../secrets/duration.ts';
import type { TypedSecret } from '../secrets/kinds.ts';
import { publicKeyOf } from '../secrets/private-key.ts';
import { Secret } from '../secrets/secret.ts';
import {
  acceptedCertificates,
  certificatePublicKey,
  certificateValidity,
  LONGEST_COMMON_NAME,
  NO_EXPIRY,
  renewalTime,
} from '../secrets/x509.ts';
import { type CertificateRequest, issueCertificate } from '../secrets/x509-issuer.ts';
import type { Cas } from './cas.ts';
import { issuedOnce } from './issued.ts';
import { inThread } from './threads.ts';
import type { SessionVersion } from './versions.ts';

const CLOCK_SKEW = 3600 * 1000;

/** Names in one certificate; a thread makes those with more, which takes milliseconds. */
const MANY_NAMES = 50;

async function issue(request: CertificateRequest): Promise<Buffer> {
  if (request.dns.length + request.ip.length <= MANY_NAMES) return issueCertificate(request);
  return Buffer.from(await inThread('short', 'issueCertificate', request));
}

type CertificateDefinition = Extract<SecretDefinition, { kind: 'x509' | 'x509-ca' }>;

/** A certificate as it is at present. */
export interface PresentCertificate {
  secret: TypedSecret;
  /** When it is to be made anew, in milliseconds since 1970; a given one never is. */
  renew?: number;
}

/** The certificate of a secret: as it was given, or issued on first use and again before it runs out. */
export async function certificateOf(
  cas: Cas,
  version: SessionVersion,
  definition: CertificateDefinition,
  key: Secret | undefined,
  issuer: TypedSecret | undefined,
): Promise<PresentCertificate> {
  const { kind, name } = definition;
  const finished = (der: Buffer, chain: Buffer[], renew?: number): PresentCertificate => ({
    secret: { kind, secret: new Secret(der), chain, ...(key && { privateKey: key }) },
    ...(renew !== undefined && { renew }),
  });
  if (definition.value !== undefined) {
    const [own, ...chain] = acceptedCertificates(definition.value);
    if (!own) throw new Error('it is no certificate');
    if (key && !certificatePublicKey(own).equals(publicKeyOf(key.reveal())))
      throw new Error('its private key is that of another certificate');
    return finished(own, chain);
  }
  if (!key) throw new Error('it has no private key');
  const publicKey = publicKeyOf(key.reveal());
  const issuerCertificate = issuer?.secret.reveal();
  const issuerName = issuerCertificate ? createHash('sha256').update(issuerCertificate).digest('hex') : '';
  const chain = issuerCertificate ? [issuerCertificate, ...(issuer?.chain ?? [])] : [];
  const names = 'san' in definition ? (definition.san ?? []) : [];
  const dns = [
    ...('dns' in definition ? (definition.dns ?? []) : []),
    ...names.filter((text) => text.startsWith('dns:')).map((text) => text.slice(4)),
  ];
  const ip = names.filter((text) => text.startsWith('ip:')).map((text) => text.slice(3));
  const commonName = definition.common_name ?? dns[0] ?? name;
  const validFor = definition.valid_for === undefined ? undefined : parseDuration(definition.valid_for);
  const { content, renew } = await issuedOnce(cas, {
    session: version.session.name,
    number: version.number,
    name,
    madeOf: issuerName,
    isRight: (der) => certificatePublicKey(der).equals(publicKey),
    make: async (now) => {
      if (issuer && !issuer.privateKey) throw new Error('the private key of its issuer is not accessible');
      const from = now - CLOCK_SKEW;
      const der = await issue({
        ca: kind === 'x509-ca',
        commonName: [...commonName].slice(0, LONGEST_COMMON_NAME).join(''),
        dns,
        ip,
        ...(kind === 'x509' && definition.endpoint !== undefined && { endpoint: definition.endpoint }),
        publicKey,
        ...(issuer?.privateKey && issuerCertificate
          ? { issuer: { certificate: issuerCertificate, privateKey: issuer.privateKey.reveal() } }
          : { privateKey: key.reveal() }),
        notBefore: new Date(from),
        notAfter: validFor === undefined ? NO_EXPIRY : new Date(now + validFor),
      });
      return { content: der, from, renew: renewalTime(now, certificateValidity(der).notAfter) };
    },
  });
  return finished(content, chain, renew);
}
