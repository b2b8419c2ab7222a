import { createHash } from 'node:crypto';
import * as v from 'valibot';
import type { SecretDefinition } from '../policy/session.ts';
import { parseDuration } from '../secrets/duration.ts';
import type { TypedSecret } from '../secrets/kinds.ts';
import { publicKeyOf } from '../secrets/private-key.ts';
import { Secret } from '../secrets/secret.ts';
import {
  certificatePublicKey,
  certificateValidity,
  LONGEST_COMMON_NAME,
  NO_EXPIRY,
  parseCertificates,
  renewalTime,
} from '../secrets/x509.ts';
import { issueCertificate } from '../secrets/x509-issuer.ts';
import type { Cas } from './cas.ts';
import type { SessionVersion } from './versions.ts';

const CLOCK_SKEW = 3600 * 1000;

const issuedForm = v.object({
  certificate: v.string(),
  /** From when it is given out, and when it is to be made anew; milliseconds since 1970. */
  issued: v.optional(v.number(), 0),
  renew: v.number(),
  issuer: v.string(),
});

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
    const [own, ...chain] = parseCertificates(definition.value) as Buffer[];
    if (key && !certificatePublicKey(own as Buffer).equals(publicKeyOf(key.reveal())))
      throw new Error('its private key is that of another certificate');
    return finished(own as Buffer, chain);
  }
  if (!key) throw new Error('it has no private key');
  const publicKey = publicKeyOf(key.reveal());
  const issuerCertificate = issuer?.secret.reveal();
  const issuerName = issuerCertificate ? createHash('sha256').update(issuerCertificate).digest('hex') : '';
  const chain = issuerCertificate ? [issuerCertificate, ...(issuer?.chain ?? [])] : [];
  const now = cas.clock();

  const session = version.session.name;
  const placeOf = (generation: number) => `certificate/${session}/${version.number}/${name}/${generation}`;
  const stored = await cas.store.certificate(session, version.number, name);
  if (stored) {
    const plaintext = cas.keyring.open(stored.sealed, placeOf(stored.generation));
    const issued = v.parse(issuedForm, JSON.parse(plaintext.toString()));
    const der = Buffer.from(issued.certificate, 'base64');
    // A clock that was ahead may have made one that is not valid yet.
    const isCurrent = now >= issued.issued - CLOCK_SKEW && now < issued.renew;
    if (isCurrent && issued.issuer === issuerName && certificatePublicKey(der).equals(publicKey))
      return finished(der, chain, issued.renew);
  }

  const names = 'san' in definition ? (definition.san ?? []) : [];
  const dns = [
    ...('dns' in definition ? (definition.dns ?? []) : []),
    ...names.filter((text) => text.startsWith('dns:')).map((text) => text.slice(4)),
  ];
  const ip = names.filter((text) => text.startsWith('ip:')).map((text) => text.slice(3));
  if (issuer && !issuer.privateKey) throw new Error('the private key of its issuer is not accessible');
  const commonName = definition.common_name ?? dns[0] ?? name;
  const validFor = definition.valid_for === undefined ? undefined : parseDuration(definition.valid_for);
  const der = await issueCertificate({
    ca: kind === 'x509-ca',
    commonName: [...commonName].slice(0, LONGEST_COMMON_NAME).join(''),
    dns,
    ip,
    ...(kind === 'x509' && definition.endpoint !== undefined && { endpoint: definition.endpoint }),
    publicKey,
    ...(issuer?.privateKey && issuerCertificate
      ? { issuer: { certificate: issuerCertificate, privateKey: issuer.privateKey.reveal() } }
      : { privateKey: key.reveal() }),
    notBefore: new Date(now - CLOCK_SKEW),
    notAfter: validFor === undefined ? NO_EXPIRY : new Date(now + validFor),
  });
  const generation = (stored?.generation ?? 0) + 1;
  const form: v.InferOutput<typeof issuedForm> = {
    certificate: der.toString('base64'),
    issued: now,
    renew: renewalTime(now, certificateValidity(der).notAfter),
    issuer: issuerName,
  };
  const sealed = cas.keyring.seal(Buffer.from(JSON.stringify(form)), placeOf(generation));
  const winner = await cas.store.keepCertificate({
    session,
    number: version.number,
    name,
    generation,
    sealed,
  });
  const kept = v.parse(issuedForm, JSON.parse(cas.keyring.open(winner, placeOf(generation)).toString()));
  return finished(Buffer.from(kept.certificate, 'base64'), chain, kept.renew);
}
