import { setImmediate } from 'node:timers/promises';
import { failure } from '../errors.ts';
import { formatKeyHash } from '../policy/key-hash.ts';
import { ROOT } from '../policy/names.ts';
import type { KeyHolder } from '../policy/session.ts';
import { authorize, authorizeListing, type Client } from './access.ts';
import type { Cas } from './cas.ts';
import type { StoredVersion, VersionHead } from './store/store.ts';
import { activeSession, openUpload, openVersion, requireSession, type SessionVersion } from './versions.ts';

/** A session as people get it. */
export interface ReadSession {
  session: string;
  hash: string;
  creator: object | null;
}

/**
 * Text and hash of the newest version, or of the one with a hash.
 * @throws Failure SESSION_NOT_FOUND or ACCESS_DENIED
 */
export async function readSession(
  cas: Cas,
  name: string,
  client: Client,
  hash?: string,
): Promise<ReadSession> {
  const active = await requireSession(cas, name);
  const { certificate } = client;
  // Whoever may read the session now may read how it was.
  await authorize(cas, active, 'read', client).catch(async (error: unknown) => {
    await cas.audit.recordRefusal({ operation: 'read_refused', session: name, certificate });
    throw error;
  });
  const version = hash === undefined || hash === active.hash ? active : await versionWith(cas, name, hash);
  await cas.audit.record({ operation: 'session_read', session: name, version: version.number, certificate });
  return readable(version);
}

/** @throws Failure SESSION_NOT_FOUND */
async function versionWith(cas: Cas, name: string, hash: string): Promise<SessionVersion> {
  const stored = await cas.store.versionByHash(name, cas.keyring.pseudonym(Buffer.from(hash)));
  if (!stored) throw failure('SESSION_NOT_FOUND', { session: name });
  return openVersion(cas, stored);
}

function readable({ text, hash, creator }: SessionVersion): ReadSession {
  return { session: text, hash, creator: creator && shownHolder(creator) };
}

/** A key holder with the key hash that people know the key by. */
function shownHolder(holder: KeyHolder): object {
  return Object.fromEntries(
    Object.entries(holder).map(([how, key]) => [how, formatKeyHash(Buffer.from(key, 'hex'))]),
  );
}

/**
 * Hash of the newest version: for everybody once a version had a salt, else for those who may read the session.
 * @param client undefined for somebody who is not known
 * @throws Failure SESSION_NOT_FOUND, IDENTITY_REQUIRED or ACCESS_DENIED
 */
export async function readHash(cas: Cas, name: string, client: Client | undefined): Promise<string> {
  const [head] = await cas.store.heads(name, Number.MAX_SAFE_INTEGER, 1);
  const upload = head && openUpload(cas, head);
  if (upload?.isHashPublic) return upload.hash;
  if (upload?.isHashPublic === false && !client) throw failure('IDENTITY_REQUIRED');
  const active = await requireSession(cas, name);
  if (active.isHashPublic) return active.hash;
  if (!client) throw failure('IDENTITY_REQUIRED');
  await authorize(cas, active, 'read', client);
  return active.hash;
}

/** Versions and names that one answer holds at most. */
const MOST_VERSIONS = 100;
/** Versions that are read at once: a database that is a file goes through their content for what stands behind it. */
const AT_ONCE = 8;
const MOST_NAMES = 1000;

/**
 * Who changed a session when, newest first.
 * @param before only versions with smaller numbers
 * @throws Failure SESSION_NOT_FOUND or ACCESS_DENIED
 */
export async function readHistory(cas: Cas, name: string, client: Client, before: number): Promise<object> {
  await authorize(cas, await requireSession(cas, name), 'read', client);
  const versions: object[] = [];
  for (let from = before; versions.length <= MOST_VERSIONS; ) {
    const heads = await cas.store.heads(name, from, AT_ONCE);
    for (const head of heads) versions.push(await shownVersion(cas, head));
    if (heads.length < AT_ONCE) break;
    from = heads.at(-1)?.number ?? 0;
    await setImmediate();
  }
  return { versions: versions.slice(0, MOST_VERSIONS), more: versions.length > MOST_VERSIONS };
}

/** Only the session has the hash of a version that an older version of this program took. */
async function shownVersion(cas: Cas, head: VersionHead): Promise<object> {
  const { number } = head;
  const upload = openUpload(cas, head);
  if (upload) {
    const { hash, created, by } = upload;
    return { number, hash, created: new Date(created).toISOString(), by: by.map(shownHolder) };
  }
  const stored = (await cas.store.versionByHash(head.session, head.hash)) as StoredVersion;
  return { number, hash: (await openVersion(cas, stored)).hash, created: null, by: [] };
}

/**
 * Names of the sessions just below a namespace; each of those says who may list what is below it.
 * @param after only names that come after this one
 * @throws Failure SESSION_NOT_FOUND or ACCESS_DENIED
 */
export async function listSessions(cas: Cas, namespace: string, client: Client, after: string) {
  const version = await activeSession(cas, namespace);
  // Without a root session everybody may create sessions at the top, and so list them.
  if (!version && namespace !== ROOT) throw failure('SESSION_NOT_FOUND', { session: namespace });
  if (version) await authorizeListing(cas, version, client);
  const names = await cas.store.sessionsIn(namespace, after, MOST_NAMES + 1);
  return { sessions: names.slice(0, MOST_NAMES), more: names.length > MOST_NAMES };
}
