import * as v from 'valibot';
import { failure } from '../errors.ts';
import { formatKeyHash } from '../policy/key-hash.ts';
import { ROOT } from '../policy/names.ts';
import { type Creator, parseSession, type Session } from '../policy/session.ts';
import { Secret } from '../secrets/secret.ts';
import { authorize, authorizeListing, type Client } from './access.ts';
import type { Cas } from './cas.ts';
import type { StoredVersion } from './store/store.ts';

/** Who holds a key, by its digest (hexadecimal): whoever showed a certificate for it, or signed with it. */
export type KeyHolder = Creator;

/** A version of a session as the CAS works with it. */
export interface SessionVersion {
  number: number;
  hash: string;
  /** The text as it was uploaded. */
  text: string;
  session: Session;
  creator: KeyHolder | null;
  /** This version, or one before, has a salt. */
  isHashPublic: boolean;
  /** Secrets that are kept; the others are imported, or made from these when they are used. */
  secrets: ReadonlyMap<string, Secret>;
}

/** Counts the normal forms that sessions were stored in; one that was stored in an older one is read anew. */
const FORM = 3;

const keyHolder = v.union([
  // Older versions knew only certificates.
  v.pipe(
    v.string(),
    v.transform((certificate): KeyHolder => ({ certificate })),
  ),
  v.strictObject({ certificate: v.string() }),
  v.strictObject({ signer: v.string() }),
]);

/** Form of a version before it is sealed. The session is in the normal form that {@link parseSession} gave. */
const sealedVersion = v.object({
  form: v.optional(v.number(), 1),
  hash: v.string(),
  text: v.string(),
  creator: v.nullable(keyHolder),
  isHashPublic: v.optional(v.boolean(), false),
  session: v.custom<Session>((value) => typeof value === 'object'),
  secrets: v.array(v.object({ name: v.string(), value: v.string() })),
});

/** What is kept of an upload beside the session, sealed too. */
const sealedUpload = v.object({
  hash: v.string(),
  /** Milliseconds since 1970. */
  created: v.number(),
  by: v.array(keyHolder),
});

/** A version as it goes into the store. */
export function sealVersion(
  cas: Cas,
  version: SessionVersion,
  upload: { created: number; by: KeyHolder[] },
): StoredVersion {
  const { number, secrets, ...rest } = version;
  const hash = cas.keyring.pseudonym(Buffer.from(version.hash));
  const place = placeOf({ session: version.session.name, number, hash });
  const form: v.InferInput<typeof sealedVersion> = {
    form: FORM,
    ...rest,
    secrets: [...secrets].map(([name, secret]) => ({ name, value: secret.reveal().toString('base64') })),
  };
  const record: v.InferInput<typeof sealedUpload> = { hash: version.hash, ...upload };
  return {
    session: version.session.name,
    number,
    hash,
    sealed: cas.keyring.seal(Buffer.from(JSON.stringify(form)), place),
    upload: cas.keyring.seal(Buffer.from(JSON.stringify(record)), `upload of ${place}`),
  };
}

/** The newest version of a session, decrypted, or undefined. */
export async function activeSession(cas: Cas, name: string): Promise<SessionVersion | undefined> {
  const stored = await cas.store.activeVersion(name);
  return stored && openVersion(cas, stored);
}

function openVersion(cas: Cas, stored: StoredVersion): SessionVersion {
  const plaintext = cas.keyring.open(stored.sealed, placeOf(stored));
  const form = v.parse(sealedVersion, JSON.parse(plaintext.toString()));
  return {
    ...form,
    session: form.form === FORM ? form.session : parseSession(form.text).session,
    number: stored.number,
    secrets: new Map(form.secrets.map(({ name, value }) => [name, new Secret(Buffer.from(value, 'base64'))])),
  };
}

/** Where a version is kept; its ciphertext decrypts only there. */
function placeOf({ session, number, hash }: Pick<StoredVersion, 'session' | 'number' | 'hash'>): string {
  return `version/${session}/${number}/${hash.toString('hex')}`;
}

/** The newest version of a session. @throws Failure SESSION_NOT_FOUND */
export async function requireSession(cas: Cas, name: string): Promise<SessionVersion> {
  const active = await activeSession(cas, name);
  if (!active) throw failure('SESSION_NOT_FOUND', { session: name });
  return active;
}

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
  // Whoever may read the session now may read how it was.
  await authorize(cas, active, 'read', client);
  if (hash === undefined || hash === active.hash) return readable(active);
  const stored = await cas.store.versionByHash(name, cas.keyring.pseudonym(Buffer.from(hash)));
  if (!stored) throw failure('SESSION_NOT_FOUND', { session: name });
  return readable(openVersion(cas, stored));
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
  const active = await requireSession(cas, name);
  if (active.isHashPublic) return active.hash;
  if (!client) throw failure('IDENTITY_REQUIRED');
  await authorize(cas, active, 'read', client);
  return active.hash;
}

/** Versions and names that one answer holds at most. */
const MOST_VERSIONS = 100;
const MOST_NAMES = 1000;

/**
 * Who changed a session when, newest first.
 * @param before only versions with smaller numbers
 * @throws Failure SESSION_NOT_FOUND or ACCESS_DENIED
 */
export async function readHistory(cas: Cas, name: string, client: Client, before: number): Promise<object> {
  await authorize(cas, await requireSession(cas, name), 'read', client);
  const stored = await cas.store.versions(name, before, MOST_VERSIONS + 1);
  const versions = stored.slice(0, MOST_VERSIONS).map((version) => {
    const { number, upload } = version;
    // Older versions of this program kept neither time nor uploader.
    if (!upload) return { number, hash: openVersion(cas, version).hash, created: null, by: [] };
    const plaintext = cas.keyring.open(upload, `upload of ${placeOf(version)}`);
    const { hash, created, by } = v.parse(sealedUpload, JSON.parse(plaintext.toString()));
    return { number, hash, created: new Date(created).toISOString(), by: by.map(shownHolder) };
  });
  return { versions, more: stored.length > MOST_VERSIONS };
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
