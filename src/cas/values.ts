import { setImmediate } from 'node:timers/promises';
import { Failure, failure } from '../errors.ts';
import type { SecretKind, TypedSecret } from '../secrets/kinds.ts';
import { certificateValidity, NO_EXPIRY, renewalTime } from '../secrets/x509.ts';
import type { Cas } from './cas.ts';
import { formatted } from './format.ts';
import { createResolver } from './secrets.ts';
import { activeSession, type SessionVersion } from './versions.ts';

/** A secret as everybody may read it. */
export interface PublicValue {
  /** Its kind; that of an ascii secret is called string. */
  kind: string;
  /** Text; a binary secret as hexadecimal, keys and certificates as PEM, never a certificate's key. */
  value: string;
  /** Of a certificate: when it runs out and when it will be made anew (RFC 3339), null for never. */
  expires: string | null;
  renew: string | null;
}

/**
 * The secrets of a session that it publishes with `export_public`: one of them, or all.
 * @throws Failure VALUE_NOT_PUBLIC, which does not tell what is not there from what is not published
 */
export async function publicValue(cas: Cas, session: string, secret: string): Promise<PublicValue> {
  const version = await activeSession(cas, session);
  if (!version || !published(version).includes(secret)) throw failure('VALUE_NOT_PUBLIC');
  const { secret: typed } = await createResolver(cas).find(version, secret);
  // An imported secret may turn out to be one.
  if (typed.kind === 'private-key') throw failure('VALUE_NOT_PUBLIC');
  return present(typed);
}

/** @returns values by name, as JSON: they may have megabytes, and others are served between them */
export async function publicValues(cas: Cas, session: string): Promise<string> {
  const version = await activeSession(cas, session);
  if (!version) throw failure('VALUE_NOT_PUBLIC');
  const resolver = createResolver(cas);
  const values: string[] = [];
  for (const name of published(version))
    try {
      const { secret } = await resolver.find(version, name);
      if (secret.kind === 'private-key') continue;
      values.push(`${JSON.stringify(name)}:${JSON.stringify(await present(secret))}`);
      await setImmediate();
    } catch (error) {
      // One that cannot be used at present keeps nobody from the others.
      if (!(error instanceof Failure)) throw error;
    }
  return `{${values.join(',')}}`;
}

function published({ session }: SessionVersion): string[] {
  return session.secrets.filter((secret) => secret.export_public).map(({ name }) => name);
}

/** Formats of values that have none by themselves, or another; of a key pair only the public part. */
const publicFormats: Partial<Record<SecretKind, string>> = {
  binary: ':hex',
  'pgp-key': ':publickey:asciiarmored',
};

async function present(secret: TypedSecret): Promise<PublicValue> {
  const { kind } = secret;
  const value = (await formatted(secret, publicFormats[kind] ?? '')).toString();
  const shown = kind === 'ascii' ? 'string' : kind;
  if (kind !== 'x509' && kind !== 'x509-ca') return { kind: shown, value, expires: null, renew: null };
  const { notBefore, notAfter } = certificateValidity(secret.secret.reveal());
  const never = notAfter >= NO_EXPIRY.getTime();
  const date = (at: number) => (never ? null : new Date(at).toISOString());
  return { kind: shown, value, expires: date(notAfter), renew: date(renewalTime(notBefore, notAfter)) };
}
