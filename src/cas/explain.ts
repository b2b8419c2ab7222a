import { base32nopad } from '@scure/base';
import { failure } from '../errors.ts';
import type { ServiceName } from '../policy/names.ts';
import { authorize, type Client } from './access.ts';
import { admissionOf, factorsOf, sharedSecretOf } from './admission.ts';
import type { Cas } from './cas.ts';
import { trustedPlatforms } from './owner/owner.ts';
import { usableSharedSecret } from './second-factors.ts';
import { createResolver } from './secrets.ts';
import { requireService } from './versions.ts';

/**
 * What a launcher must show to be admitted to a service, all variables filled in, for whoever may read the session.
 * @throws Failure SESSION_NOT_FOUND, SERVICE_NOT_FOUND, ACCESS_DENIED, POLICY_UNUSABLE or SECRET_UNAVAILABLE
 */
export async function explainAdmission(cas: Cas, named: ServiceName, client: Client): Promise<object> {
  const { version, service } = await requireService(cas, named);
  await authorize(cas, version, 'read', client);
  const resolver = createResolver(cas);
  const { trustedPlatforms: own, ...admission } = await admissionOf(resolver, version, service);
  const { oneTimePassword, accessToken } = await factorsOf(resolver, version, service);
  // What a fragment of another session refers to is that one's own.
  const others = new Set(resolver.found.map(({ from }) => from).filter((from) => from !== version));
  for (const from of others) await authorize(cas, from, 'read', client);
  return {
    session: version.session.name,
    service: service.name,
    ...admission,
    trustedPlatforms: [...new Set([...(await trustedPlatforms(cas)), ...own])],
    // That they are asked for, never what they are.
    oneTimePassword: oneTimePassword !== undefined,
    accessToken: accessToken !== undefined,
  };
}

/**
 * The shared secret of a service's one-time passwords, in base32, to be put into an authenticator. Where the session
 * says it in so many words, whoever may read that; else whoever may update each session that has a part in it, since
 * he could have it handed to a program of his.
 * @throws Failure as {@link explainAdmission}, or ONE_TIME_PASSWORD_UNUSED
 */
export async function readSharedSecret(
  cas: Cas,
  named: ServiceName,
  client: Client,
): Promise<{ secret: string }> {
  const { version, service } = await requireService(cas, named);
  await authorize(cas, version, 'read', client);
  const resolver = createResolver(cas);
  const sharedSecret = await sharedSecretOf(resolver, version, service);
  for (const { home } of resolver.found) {
    // One from another CAS has its owner there, whom nobody can ask here.
    if (!home) throw failure('ACCESS_DENIED', { operation: 'update', session: 'on the other CAS' });
    await authorize(cas, home, 'update', client);
  }
  if (sharedSecret === undefined)
    throw failure('ONE_TIME_PASSWORD_UNUSED', { session: version.session.name, service: service.name });
  await cas.audit.record({
    operation: 'one_time_password_read',
    session: version.session.name,
    service: service.name,
    certificate: client.certificate,
  });
  // As it may be written in several ways, of which authenticators take this one.
  return { secret: base32nopad.encode(usableSharedSecret(sharedSecret).reveal()) };
}
