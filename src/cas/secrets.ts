import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { failure, reason } from '../errors.ts';
import { isWithin, resolveSessionName } from '../policy/names.ts';
import type { ExportTarget } from '../policy/schema.ts';
import type { SecretDefinition } from '../policy/session.ts';
import { parseDuration } from '../secrets/duration.ts';
import type { TypedSecret } from '../secrets/kinds.ts';
import { publicKeyOf } from '../secrets/private-key.ts';
import { Secret } from '../secrets/secret.ts';
import {
  certificatePublicKey,
  certificateValidity,
  issueCertificate,
  LONGEST_COMMON_NAME,
  NO_EXPIRY,
  parseCertificates,
  renewalTime,
} from '../secrets/x509.ts';
import type { Cas } from './cas.ts';
import { activeSession, type SessionVersion } from './sessions.ts';

/** A secret, and the session that defines it, from which what it refers to is seen. */
export interface Resolved {
  secret: TypedSecret;
  home: SessionVersion;
}

/**
 * Finds a secret of a session by its name, as it is at present: imported, issued or as it is kept.
 * @throws Failure SECRET_UNAVAILABLE
 */
export type Resolver = (version: SessionVersion, name: string) => Promise<Resolved>;

/** Sessions that a secret may be handed through; longer ways are mistakes. */
const LONGEST_WAY = 32;
const CLOCK_SKEW = 3600 * 1000;

/** A resolver for one request: every session is read once, so that what it gives fits together. */
export function createResolver(cas: Cas): Resolver {
  const sessions = new Map<string, Promise<SessionVersion | undefined>>();
  const read = (name: string) => {
    const reading = sessions.get(name) ?? activeSession(cas, name);
    sessions.set(name, reading);
    return reading;
  };
  const known = new Map<string, Promise<Resolved>>();

  const resolve = (version: SessionVersion, name: string, way: readonly string[]): Promise<Resolved> => {
    const id = `${version.session.name}#${version.number}:${name}`;
    const unavailable = (detail: string, cause?: unknown) =>
      failure('SECRET_UNAVAILABLE', { secret: name, session: version.session.name, detail }, cause);
    if (way.includes(id)) throw unavailable('it is imported from itself, in a circle');
    if (way.length >= LONGEST_WAY) throw unavailable(`it goes through more than ${LONGEST_WAY} others`);
    const present = known.get(id);
    if (present) return present;
    const definition = version.session.secrets.find((secret) => secret.name === name);
    if (!definition) throw unavailable('there is no such secret');
    const finding = find(version, definition, [...way, id], unavailable);
    known.set(id, finding);
    return finding;
  };

  const find = async (
    version: SessionVersion,
    definition: SecretDefinition,
    way: readonly string[],
    unavailable: (detail: string, cause?: unknown) => Error,
  ): Promise<Resolved> => {
    const other = (name: string) => resolve(version, name, way);
    if ('import' in definition) return imported(version, definition, way, unavailable);
    if ('import_akv' in definition) throw unavailable('Azure Key Vault is not supported');
    const { kind } = definition;
    const kept = version.secrets.get(definition.name);
    if (kind === 'public-key' && definition.private_key !== undefined) {
      const { secret } = (await other(definition.private_key)).secret;
      return { secret: { kind, secret: new Secret(publicKeyOf(secret.reveal())) }, home: version };
    }
    if (kind === 'x509' || kind === 'x509-ca') {
      const key =
        definition.private_key === undefined
          ? undefined
          : (await other(definition.private_key)).secret.secret;
      const issuer = definition.issuer === undefined ? undefined : (await other(definition.issuer)).secret;
      try {
        const secret = await certificate(cas, version, definition, key, issuer);
        return { secret, home: version };
      } catch (error) {
        throw unavailable(reason(error));
      }
    }
    if (!kept) throw unavailable(`secrets of kind ${kind} are not made by this version`);
    return { secret: { kind, secret: kept }, home: version };
  };

  const imported = async (
    version: SessionVersion,
    definition: Extract<SecretDefinition, { import: unknown }>,
    way: readonly string[],
    unavailable: (detail: string, cause?: unknown) => Error,
  ): Promise<Resolved> => {
    const { session: reference, secret: name, session_hash } = definition.import;
    const session = resolveSessionName(version.session.name, reference);
    const exporter = session === undefined ? undefined : await read(session);
    // One answer for what is not there and for what is not exported: it tells nothing of other sessions.
    const notExported = () =>
      unavailable(`the session ${session ?? reference} exports no ${name} to this one`);
    if (!exporter) throw notExported();
    const exported = exporter.session.secrets.find((secret) => secret.name === name);
    if (!exported || !isExported(exporter, exported, version)) throw notExported();
    if (session_hash !== undefined && exporter.hash !== session_hash)
      throw unavailable(`the session ${session} is of another version than session_hash says`);
    const { secret, home } = await resolve(exporter, name, way);
    if (definition.kind !== undefined && definition.kind !== secret.kind)
      throw unavailable(`it is of kind ${secret.kind}, not ${definition.kind}`);
    const keyName = 'private_key' in exported ? exported.private_key : undefined;
    const key = exporter.session.secrets.find((other) => other.name === keyName);
    if (!secret.privateKey || !('private_key' in exported) || (key && isExported(exporter, key, version)))
      return { secret, home };
    const { privateKey: _, ...withoutKey } = secret;
    return { secret: withoutKey, home };
  };

  return async (version, name) => resolve(version, name, []);
}

function isExported(from: SessionVersion, definition: SecretDefinition, to: SessionVersion): boolean {
  return (definition.export ?? []).some((target: ExportTarget) => {
    if (target.cas_url !== undefined || target.cas_key !== undefined) return false;
    const name = resolveSessionName(from.session.name, target.session ?? target.namespace ?? '');
    if (name === undefined) return false;
    if (target.namespace !== undefined) return isWithin(to.session.name, name);
    return name === to.session.name && [undefined, to.hash].includes(target.session_hash);
  });
}

const issuedForm = v.object({
  certificate: v.string(),
  /** When it is to be made anew, milliseconds since 1970. */
  renew: v.number(),
  issuer: v.string(),
});

type CertificateDefinition = Extract<SecretDefinition, { kind: 'x509' | 'x509-ca' }>;

/** The certificate of a secret: as it was given, or issued on first use and again before it runs out. */
async function certificate(
  cas: Cas,
  version: SessionVersion,
  definition: CertificateDefinition,
  key: Secret | undefined,
  issuer: TypedSecret | undefined,
): Promise<TypedSecret> {
  const { kind, name } = definition;
  const finished = (der: Buffer, chain: Buffer[]): TypedSecret => ({
    kind,
    secret: new Secret(der),
    chain,
    ...(key && { privateKey: key }),
  });
  if (definition.value !== undefined) {
    const [own, ...chain] = parseCertificates(definition.value) as Buffer[];
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
    if (now < issued.renew && issued.issuer === issuerName && certificatePublicKey(der).equals(publicKey))
      return finished(der, chain);
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
    commonName: commonName.slice(0, LONGEST_COMMON_NAME),
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
  return finished(Buffer.from(kept.certificate, 'base64'), chain);
}
