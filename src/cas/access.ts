import * as v from 'valibot';
import { failure, reason } from '../errors.ts';
import { isRole, principalKey } from '../policy/principals.ts';
import { accessPolicy, type Principal, quorumOf } from '../policy/schema/access-policy.ts';
import { signerDigest } from '../policy/signed-session.ts';
import type { Cas } from './cas.ts';
import { expandSection, literal } from './expand.ts';
import { createResolver, type Resolver } from './secrets.ts';
import type { SessionVersion } from './versions.ts';

/** Who asks: digests (hexadecimal) of the keys that were shown to be held, by certificate or by signature. */
export interface Client {
  certificate: string | undefined;
  signers: readonly string[];
}

export type Operation = 'read' | 'update' | 'create_sessions' | 'list_sessions';

const words: Record<Operation, string> = {
  read: 'read',
  update: 'update',
  create_sessions: 'create a session under',
  list_sessions: 'list the sessions under',
};

/**
 * Sees to it that the client may do something with a session.
 * @throws Failure ACCESS_DENIED, whose cause names variables that could not be used
 */
export async function authorize(
  cas: Cas,
  version: SessionVersion,
  operation: Operation,
  client: Client,
): Promise<void> {
  const resolver = createResolver(cas);
  const ignored: unknown[] = [];
  let allowed = false;
  try {
    const entries = await principalsOf(resolver, version, operation);
    for (const entry of entries)
      allowed = (await admits(resolver, version, entry, client, ignored)) || allowed;
  } catch (error) {
    ignored.push(error);
  }
  if (allowed) return;
  const cause = ignored.length > 0 ? new Error(`ignored: ${ignored.map(reason).join('; ')}`) : undefined;
  throw failure('ACCESS_DENIED', { operation: words[operation], session: version.session.name }, cause);
}

/** Whoever may create sessions below a namespace sees which ones there are. */
export async function authorizeListing(cas: Cas, version: SessionVersion, client: Client): Promise<void> {
  try {
    await authorize(cas, version, 'list_sessions', client);
  } catch (error) {
    await authorize(cas, version, 'create_sessions', client).catch(() => {
      throw error;
    });
  }
}

async function principalsOf(
  resolver: Resolver,
  version: SessionVersion,
  operation: Operation,
): Promise<Principal[]> {
  const written = version.session.access_policy;
  const policy =
    typeof written === 'string'
      ? literal(await expandSection(resolver, version, 'access_policy', written, accessPolicy))
      : written;
  const { read, update } = policy;
  const { create_sessions = update, list_sessions = read } = policy;
  const entries = { read, update, create_sessions, list_sessions }[operation];
  if (typeof entries !== 'string') return entries;
  const shape = accessPolicy.entries[operation];
  const expanded = await expandSection(resolver, version, operation, entries, shape);
  return literal(expanded ?? []);
}

/** Each variable is looked at alone: one that cannot be used does not lock the others out. */
async function admits(
  resolver: Resolver,
  version: SessionVersion,
  principal: Principal,
  client: Client,
  ignored: unknown[],
): Promise<boolean> {
  if (typeof principal === 'string') {
    if (!principal.startsWith('$$')) return isAdmitted(principal, version, client);
    try {
      const shape = accessPolicy.entries.update;
      const named = literal((await expandSection(resolver, version, 'principal', principal, shape)) ?? []);
      let allowed = false;
      for (const entry of named)
        if (typeof entry !== 'string' || !entry.startsWith('$$'))
          allowed = (await admits(resolver, version, entry, client, ignored)) || allowed;
      return allowed;
    } catch (error) {
      ignored.push(error);
      return false;
    }
  }
  for (const [key, members] of Object.entries(principal)) {
    if (!Array.isArray(members)) return hasSigned(resolver, version, String(members), client, ignored);
    let count = 0;
    for (const member of members) if (await admits(resolver, version, member, client, ignored)) count++;
    if (count < (quorumOf(key, members.length) ?? Number.POSITIVE_INFINITY)) return false;
  }
  return true;
}

/** A signer may be a variable, which a public key stands behind. */
async function hasSigned(
  resolver: Resolver,
  version: SessionVersion,
  signer: string,
  { signers }: Client,
  ignored: unknown[],
): Promise<boolean> {
  try {
    const key = signerDigest(await expandSection(resolver, version, 'signer', signer, v.string()));
    return typeof key !== 'string' && signers.includes(key.toString('hex'));
  } catch (error) {
    ignored.push(error);
    return false;
  }
}

function isAdmitted(principal: string, { creator }: SessionVersion, client: Client): boolean {
  const { certificate, signers } = client;
  if (!isRole(principal)) return certificate !== undefined && principalKey(principal) === certificate;
  if (principal === 'ANY') return true;
  if (principal === 'NONE' || !creator) return false;
  // A signed session has no connection of its author's; one that shows the same key is as good.
  const [key] = Object.values(creator);
  return key === certificate || ('signer' in creator && signers.includes(creator.signer));
}
