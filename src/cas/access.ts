import { Failure, failure, reason } from '../errors.ts';
import { isRole, principalKey } from '../policy/principals.ts';
import { type Principal, quorumOf, standsAlone } from '../policy/schema/access-policy.ts';
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

/** Of the principals that cannot be used, in the log. */
const MOST_TOLD = 3;

/**
 * Sees to it that the client may do something with a session.
 * @throws Failure ACCESS_DENIED or CAS_BUSY; the log names variables that could not be used
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
    for (const entry of await principalsOf(resolver, version, operation))
      if (await peopleOf(resolver, version, entry, client, ignored)) allowed = true;
  } catch (error) {
    ignore(ignored, error);
  }
  if (allowed) return;
  const session = version.session.name;
  // What of the policy it is about is for those who may read it.
  if (ignored.length > 0)
    cas.log.warn(
      { session, operation, ignored: ignored.length, errors: ignored.slice(0, MOST_TOLD).map(reason) },
      'principals that cannot be used were ignored',
    );
  throw failure('ACCESS_DENIED', { operation: words[operation], session });
}

/** @throws Failure CAS_BUSY, which is no reason to deny anything */
function ignore(ignored: unknown[], error: unknown): void {
  if (error instanceof Failure && error.code === 'CAS_BUSY') throw error;
  ignored.push(error);
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
      ? literal(await expandSection(resolver, version, 'access_policy', written))
      : written;
  const { read, update } = policy;
  const { create_sessions = update, list_sessions = read } = policy;
  const entries = { read, update, create_sessions, list_sessions }[operation];
  if (typeof entries !== 'string') return entries;
  const expanded = await expandSection(resolver, version, operation, entries);
  return literal(expanded ?? []);
}

/** A key takes the longer to be read, the longer its text is. */
const stepsOf = (key: string) => 1 + key.length / 32;

/** Keys by which the client is who a principal names. */
type People = ReadonlySet<string>;

/**
 * Whom of the client's keys a principal names, or undefined where it does not admit the client. Each variable is looked
 * at alone: one that cannot be used does not lock the others out.
 */
async function peopleOf(
  resolver: Resolver,
  version: SessionVersion,
  principal: Principal,
  client: Client,
  ignored: unknown[],
): Promise<People | undefined> {
  if (typeof principal === 'string') {
    await resolver.pace(stepsOf(principal));
    if (!principal.startsWith('$$')) return admitted(principal, version, client);
    try {
      const named = literal((await expandSection(resolver, version, 'principal', principal)) ?? []);
      const people = new Set<string>();
      // A variable of a variable is none.
      for (const entry of named)
        if (!standsAlone(entry) && !(typeof entry === 'string' && entry.startsWith('$$')))
          for (const key of (await peopleOf(resolver, version, entry, client, ignored)) ?? [])
            people.add(key);
      return people.size > 0 ? people : undefined;
    } catch (error) {
      ignore(ignored, error);
      return undefined;
    }
  }
  const [[key, members] = ['', '']] = Object.entries(principal);
  if (!Array.isArray(members)) return signedBy(resolver, version, String(members), client, ignored);
  const agreed: People[] = [];
  for (const member of members) {
    const people = await peopleOf(resolver, version, member, client, ignored);
    if (people) agreed.push(people);
  }
  const everybody = new Set(agreed.flatMap((people) => [...people]));
  const quorum = quorumOf(key, members.length) ?? Number.POSITIVE_INFINITY;
  // All that are listed must agree; of some, each must be another person, by whatever names they are listed.
  const count = quorum === members.length ? agreed.length : countPeople(agreed);
  return count >= quorum ? everybody : undefined;
}

/** How many agree, each of whom brings somebody who was not counted before. */
function countPeople(agreed: People[]): number {
  const counted = new Set<string>();
  let count = 0;
  for (const people of agreed.toSorted((a, b) => a.size - b.size)) {
    if ([...people].every((key) => counted.has(key))) continue;
    for (const key of people) counted.add(key);
    count++;
  }
  return count;
}

/** A signer may be a variable, which a public key stands behind. */
async function signedBy(
  resolver: Resolver,
  version: SessionVersion,
  signer: string,
  { signers }: Client,
  ignored: unknown[],
): Promise<People | undefined> {
  try {
    await resolver.pace(stepsOf(signer));
    const digest = signerDigest(await expandSection(resolver, version, 'signer', signer));
    const key = typeof digest === 'string' ? undefined : digest.toString('hex');
    return key !== undefined && signers.includes(key) ? new Set([key]) : undefined;
  } catch (error) {
    ignore(ignored, error);
    return undefined;
  }
}

function admitted(principal: string, { creator }: SessionVersion, client: Client): People | undefined {
  const { certificate, signers } = client;
  if (!isRole(principal))
    return certificate !== undefined && principalKey(principal) === certificate
      ? new Set([certificate])
      : undefined;
  if (principal === 'ANY') return new Set(['']);
  if (principal === 'NONE' || !creator) return undefined;
  // A signed session has no connection of its author's; one that shows the same key is as good.
  const [key = ''] = Object.values(creator);
  const isHere = key === certificate || ('signer' in creator && signers.includes(key));
  return isHere ? new Set([key]) : undefined;
}
