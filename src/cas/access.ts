import { failure, reason } from '../errors.ts';
import { isRole, principalKey } from '../policy/principals.ts';
import { accessPolicy, type Principal, quorumOf } from '../policy/schema.ts';
import type { Cas } from './cas.ts';
import { expandSection, literal } from './expand.ts';
import { createResolver, type Resolver } from './secrets.ts';
import type { SessionVersion } from './sessions.ts';

export type Operation = 'read' | 'update' | 'create_sessions' | 'list_sessions';

const words: Record<Operation, string> = {
  read: 'read',
  update: 'update',
  create_sessions: 'create a session under',
  list_sessions: 'list the sessions under',
};

/**
 * Whether the holder of a key may do something with a session.
 * @param identity digest of the client's public key, hexadecimal
 * @throws Failure ACCESS_DENIED, whose cause names variables that could not be used
 */
export async function authorize(
  cas: Cas,
  version: SessionVersion,
  operation: Operation,
  identity: string,
): Promise<void> {
  const resolver = createResolver(cas);
  const ignored: unknown[] = [];
  let allowed = false;
  try {
    const entries = await principalsOf(resolver, version, operation);
    for (const entry of entries)
      allowed = (await admits(resolver, version, entry, identity, ignored)) || allowed;
  } catch (error) {
    ignored.push(error);
  }
  if (allowed) return;
  const cause = ignored.length > 0 ? new Error(`ignored: ${ignored.map(reason).join('; ')}`) : undefined;
  throw failure('ACCESS_DENIED', { operation: words[operation], session: version.session.name }, cause);
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
  identity: string,
  ignored: unknown[],
): Promise<boolean> {
  if (typeof principal === 'string') {
    if (!principal.startsWith('$$')) return isAdmitted(principal, version, identity);
    try {
      const shape = accessPolicy.entries.update;
      const named = literal((await expandSection(resolver, version, 'principal', principal, shape)) ?? []);
      let allowed = false;
      for (const entry of named)
        if (typeof entry !== 'string' || !entry.startsWith('$$'))
          allowed = (await admits(resolver, version, entry, identity, ignored)) || allowed;
      return allowed;
    } catch (error) {
      ignored.push(error);
      return false;
    }
  }
  for (const [key, members] of Object.entries(principal)) {
    // Signatures are not verified by this version, so nobody has one.
    if (!Array.isArray(members)) return false;
    let count = 0;
    for (const member of members) if (await admits(resolver, version, member, identity, ignored)) count++;
    if (count < (quorumOf(key, members.length) ?? Number.POSITIVE_INFINITY)) return false;
  }
  return true;
}

function isAdmitted(principal: string, { creator }: SessionVersion, identity: string): boolean {
  if (!isRole(principal)) return principalKey(principal) === identity;
  return principal === 'ANY' || (principal === 'CREATOR' && creator === identity);
}
