import * as v from 'valibot';
import { failure } from '../errors.ts';
import type { Problem } from '../policy/problem.ts';
import { parseSession, type SecretDefinition, type Session, sessionHash } from '../policy/session.ts';
import { DEFAULT_SIZE, makeSecret, type TypedSecret } from '../secrets/kinds.ts';
import { Secret } from '../secrets/secret.ts';
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
  secrets: ReadonlyMap<string, TypedSecret>;
}

/** Form of a version before it is sealed. The session is in the normal form that {@link parseSession} gave. */
const sealedForm = v.object({
  hash: v.string(),
  text: v.string(),
  creator: v.string(),
  session: v.custom<Session>((value) => typeof value === 'object'),
  secrets: v.array(v.object({ name: v.string(), kind: v.picklist(['ascii', 'binary']), value: v.string() })),
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
  const { session, warnings } = parseSession(text);
  const active = await activeSession(cas, session.name);
  if (active) {
    authorize(active, 'update', identity);
    if (session.predecessor === null) throw failure('SESSION_EXISTS', { session: session.name });
    if (session.predecessor !== active.hash) throw failure('PREDECESSOR_STALE', { session: session.name });
  } else {
    await authorizeCreation(cas, session.name, identity);
    if (session.predecessor !== null) throw failure('PREDECESSOR_UNKNOWN', { session: session.name });
  }

  const number = (active?.number ?? 0) + 1;
  const hash = sessionHash(session, identity);
  const form: v.InferInput<typeof sealedForm> = {
    hash,
    text,
    creator: identity,
    session,
    secrets: session.secrets.map((definition) => {
      const { kind, secret } = keptSecret(active, definition) ?? makeSecret(definition);
      return { name: definition.name, kind, value: secret.reveal().toString('base64') };
    }),
  };
  const place = { session: session.name, number, hash: cas.keyring.pseudonym(Buffer.from(hash)) };
  const sealed = cas.keyring.seal(Buffer.from(JSON.stringify(form)), placeOf(place));
  if (!(await cas.store.addVersion({ ...place, sealed })))
    throw failure(active ? 'PREDECESSOR_STALE' : 'SESSION_EXISTS', { session: session.name });
  cas.log.info({ session: session.name, version: number, identity }, 'session stored');
  return { hash, warnings };
}

/**
 * Text and hash of the newest version.
 * @throws Failure SESSION_NOT_FOUND or ACCESS_DENIED
 */
export async function readSession(
  cas: Cas,
  name: string,
  identity: string,
): Promise<{ session: string; hash: string }> {
  const active = await activeSession(cas, name);
  if (!active) throw failure('SESSION_NOT_FOUND', { session: name });
  authorize(active, 'read', identity);
  return { session: active.text, hash: active.hash };
}

/** The newest version of a session, decrypted, or undefined. */
export async function activeSession(cas: Cas, name: string): Promise<SessionVersion | undefined> {
  const stored = await cas.store.activeVersion(name);
  if (!stored) return undefined;
  const plaintext = cas.keyring.open(stored.sealed, placeOf(stored));
  const form = v.parse(sealedForm, JSON.parse(plaintext.toString()));
  return {
    ...form,
    number: stored.number,
    secrets: new Map(
      form.secrets.map(({ name, kind, value }) => [
        name,
        { kind, secret: new Secret(Buffer.from(value, 'base64')) },
      ]),
    ),
  };
}

/** Where a version is kept; its ciphertext decrypts only there. */
function placeOf({ session, number, hash }: Omit<StoredVersion, 'sealed'>): string {
  return `version/${session}/${number}/${hash.toString('hex')}`;
}

/** The secret of the version before, where the definition leaves it as it is: same name, kind and size. */
function keptSecret(
  before: SessionVersion | undefined,
  definition: SecretDefinition,
): TypedSecret | undefined {
  const kept = before?.secrets.get(definition.name);
  if (!kept || kept.kind !== definition.kind || definition.value !== undefined) return undefined;
  const old = before?.session.secrets.find(({ name }) => name === definition.name);
  const sizeOf = ({ size = DEFAULT_SIZE }: SecretDefinition) => size;
  return old && old.value === undefined && sizeOf(old) === sizeOf(definition) ? kept : undefined;
}

type Operation = 'read' | 'update' | 'create_sessions';

/** @throws Failure ACCESS_DENIED */
function authorize({ session, creator }: SessionVersion, operation: Operation, identity: string): void {
  const { read, update, create_sessions = update } = session.access_policy;
  const allowed = { read, update, create_sessions }[operation];
  const admitted = allowed.some(
    (principal) => principal === 'ANY' || (principal === 'CREATOR' && creator === identity),
  );
  if (!admitted)
    throw failure('ACCESS_DENIED', {
      operation: operation === 'create_sessions' ? 'create a session under' : operation,
      session: session.name,
    });
}

/** A session `a/b` is created by whoever may create sessions under `a`; one without `/` by anyone. */
async function authorizeCreation(cas: Cas, name: string, identity: string): Promise<void> {
  const slash = name.lastIndexOf('/');
  if (slash < 0) return;
  const namespace = await activeSession(cas, name.slice(0, slash));
  if (!namespace) throw failure('NAMESPACE_NOT_FOUND', { namespace: name.slice(0, slash) });
  authorize(namespace, 'create_sessions', identity);
}
