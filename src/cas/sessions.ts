import * as v from 'valibot';
import { failure } from '../errors.ts';
import { namespaceOf, ROOT } from '../policy/names.ts';
import { principalKey } from '../policy/principals.ts';
import type { Problem } from '../policy/problem.ts';
import { InvalidText } from '../policy/problem.ts';
import {
  isImported,
  parseSession,
  type SecretDefinition,
  type Session,
  sessionHash,
} from '../policy/session.ts';
import { DEFAULT_SIZE, makeSecret } from '../secrets/generate.ts';
import { Secret } from '../secrets/secret.ts';
import { authorize } from './access.ts';
import type { Cas } from './cas.ts';
import type { StoredVersion } from './store/store.ts';

/** A version of a session as the CAS works with it. */
export interface SessionVersion {
  number: number;
  hash: string;
  /** The text as it was uploaded. */
  text: string;
  session: Session;
  /** Digest of the creator's public key, hexadecimal. */
  creator: string;
  /** Secrets that are kept; the others are imported, or made from these when they are used. */
  secrets: ReadonlyMap<string, Secret>;
}

/** Counts the normal forms that sessions were stored in; one that was stored in an older one is read anew. */
const FORM = 2;

/** Form of a version before it is sealed. The session is in the normal form that {@link parseSession} gave. */
const sealedForm = v.object({
  form: v.optional(v.number(), 1),
  hash: v.string(),
  text: v.string(),
  creator: v.string(),
  session: v.custom<Session>((value) => typeof value === 'object'),
  secrets: v.array(v.object({ name: v.string(), value: v.string() })),
});

/**
 * Stores a session: a new one, or the next version of one that exists.
 * @param identity digest of the client's public key, hexadecimal
 * @throws InvalidText, or Failure SESSION_EXISTS, PREDECESSOR_*, NAMESPACE_NOT_FOUND, ACCESS_DENIED
 */
export async function createSession(
  cas: Cas,
  text: string,
  identity: string,
): Promise<{ hash: string; warnings: Problem[] }> {
  const { session, warnings, unsupported } = parseSession(text);
  if (unsupported.length > 0) throw new InvalidText(unsupported);
  const { creator } = session;
  if (creator !== undefined && (typeof creator !== 'string' || principalKey(creator) !== identity))
    throw failure('CREATOR_MISMATCH');
  const active = await activeSession(cas, session.name);
  if (active) {
    await authorize(cas, active, 'update', identity);
    if (session.predecessor === null) throw failure('SESSION_EXISTS', { session: session.name });
    if (session.predecessor !== active.hash) throw failure('PREDECESSOR_STALE', { session: session.name });
  } else {
    await authorizeCreation(cas, session, identity);
    if (session.predecessor !== null) throw failure('PREDECESSOR_UNKNOWN', { session: session.name });
  }

  const number = (active?.number ?? 0) + 1;
  const hash = sessionHash(session, identity);
  const secrets: { name: string; value: string }[] = [];
  for (const definition of session.secrets) {
    if (isImported(definition)) continue;
    const secret = keptSecret(active, definition) ?? (await makeSecret(definition));
    if (secret) secrets.push({ name: definition.name, value: secret.reveal().toString('base64') });
  }
  const form: v.InferInput<typeof sealedForm> = {
    form: FORM,
    hash,
    text,
    creator: identity,
    session,
    secrets,
  };
  const place = { session: session.name, number, hash: cas.keyring.pseudonym(Buffer.from(hash)) };
  const sealed = cas.keyring.seal(Buffer.from(JSON.stringify(form)), placeOf(place));
  if (!(await cas.store.addVersion({ ...place, sealed })))
    throw session.name === ROOT && !active
      ? failure('ROOT_SEALED')
      : failure(active ? 'PREDECESSOR_STALE' : 'SESSION_EXISTS', { session: session.name });
  cas.log.info({ session: session.name, version: number, identity }, 'session stored');
  return { hash, warnings };
}

/**
 * Text and hash of the newest version, or of the one with a hash.
 * @throws Failure SESSION_NOT_FOUND or ACCESS_DENIED
 */
export async function readSession(
  cas: Cas,
  name: string,
  identity: string,
  hash?: string,
): Promise<{ session: string; hash: string }> {
  const active = await activeSession(cas, name);
  if (!active) throw failure('SESSION_NOT_FOUND', { session: name });
  // Whoever may read the session now may read how it was.
  await authorize(cas, active, 'read', identity);
  if (hash === undefined) return { session: active.text, hash: active.hash };
  const stored = await cas.store.versionByHash(name, cas.keyring.pseudonym(Buffer.from(hash)));
  if (!stored) throw failure('SESSION_NOT_FOUND', { session: name });
  const version = openVersion(cas, stored);
  return { session: version.text, hash: version.hash };
}

/** The newest version of a session, decrypted, or undefined. */
export async function activeSession(cas: Cas, name: string): Promise<SessionVersion | undefined> {
  const stored = await cas.store.activeVersion(name);
  return stored && openVersion(cas, stored);
}

function openVersion(cas: Cas, stored: StoredVersion): SessionVersion {
  const plaintext = cas.keyring.open(stored.sealed, placeOf(stored));
  const form = v.parse(sealedForm, JSON.parse(plaintext.toString()));
  return {
    ...form,
    session: form.form === FORM ? form.session : parseSession(form.text).session,
    number: stored.number,
    secrets: new Map(form.secrets.map(({ name, value }) => [name, new Secret(Buffer.from(value, 'base64'))])),
  };
}

/** Where a version is kept; its ciphertext decrypts only there. */
function placeOf({ session, number, hash }: Omit<StoredVersion, 'sealed'>): string {
  return `version/${session}/${number}/${hash.toString('hex')}`;
}

/** The secret of the version before, where the definition leaves it as it is: same name, kind and size. */
function keptSecret(before: SessionVersion | undefined, definition: SecretDefinition): Secret | undefined {
  const old = before?.session.secrets.find(({ name }) => name === definition.name);
  const kept = before?.secrets.get(definition.name);
  if (!old || !kept || isImported(old) || isImported(definition)) return undefined;
  const isGiven = (it: SecretDefinition) => 'value' in it && it.value !== undefined;
  if (isGiven(old) || isGiven(definition)) return undefined;
  if (old.kind === 'private-key' && definition.kind === 'private-key') {
    const typeOf = ({ key_type = 'P-256' }: typeof old) => key_type;
    return old.migrate && definition.migrate && typeOf(old) === typeOf(definition) ? kept : undefined;
  }
  if ((old.kind === 'ascii' || old.kind === 'binary') && old.kind === definition.kind) {
    const sizeOf = ({ size = DEFAULT_SIZE }: { size?: unknown }) => size;
    return sizeOf(old) === sizeOf(definition) ? kept : undefined;
  }
  return undefined;
}

/** A session is created by whoever may create sessions in its namespace; at the top by anyone, unless there is a root. */
async function authorizeCreation(cas: Cas, session: Session, identity: string): Promise<void> {
  const { name, namespace_hash } = session;
  const namespace = namespaceOf(name);
  if (namespace === undefined) return;
  const parent = await activeSession(cas, namespace);
  if (!parent && namespace !== ROOT) throw failure('NAMESPACE_NOT_FOUND', { namespace });
  if (parent) await authorize(cas, parent, 'create_sessions', identity);
  if (namespace_hash !== undefined && namespace_hash !== parent?.hash)
    throw failure('NAMESPACE_CHANGED', { namespace });
}
