import { isDeepStrictEqual } from 'node:util';
import { Failure, failure } from '../errors.ts';
import { namespaceOf, ROOT } from '../policy/names.ts';
import { InvalidText, type Problem } from '../policy/problem.ts';
import {
  hashOf,
  isImported,
  type KeyHolder,
  namedCreator,
  refersToCreator,
  type SecretDefinition,
} from '../policy/session.ts';
import { decryptSession, isEncryptedSession } from '../protocol/encrypted-session.ts';
import { DEFAULT_SIZE, type Definition, makeSecret } from '../secrets/generate.ts';
import { Secret } from '../secrets/secret.ts';
import { authorize, type Client } from './access.ts';
import type { Cas } from './cas.ts';
import { countStored, MEBIBYTE } from './limits/stored.ts';
import type { Statements } from './store/database.ts';
import { openState } from './store/sql.ts';
import type { Parent } from './store/store.ts';
import type { Jobs } from './thread.ts';
import { inThread } from './threads.ts';
import {
  activeSession,
  countedCreator,
  type NewVersion,
  type SessionVersion,
  sealVersion,
} from './versions.ts';

/** What decides over an upload. */
type Uploaded = Awaited<ReturnType<Jobs['parseSession']>>['session'];

/** Where a text is read: one of so many characters takes long in any case. */
const threadFor = (text: string) => (text.length > 131_072 ? 'long' : 'short');

/**
 * Takes a session: a new one, or the next version of one that exists. It comes as its text, signed, or encrypted for
 * this CAS.
 * @param certificate digest of the client certificate's key, hexadecimal, where there is one
 * @param form whether only an encrypted one is taken
 * @throws InvalidText, or Failure IDENTITY_REQUIRED, SIGNED_SESSION_INVALID, SIGNATURE_INVALID,
 *   ENCRYPTED_SESSION_INVALID, CREATOR_*, SESSION_EXISTS, PREDECESSOR_*, NAMESPACE_*, ROOT_SEALED, ACCESS_DENIED
 */
export async function uploadSession(
  cas: Cas,
  body: string,
  certificate: string | undefined,
  form: 'any' | 'encrypted' = 'any',
): Promise<{ hash: string; warnings: Problem[] }> {
  const about: { session?: string } = {};
  try {
    return await takeSession(cas, body, certificate, form, about);
  } catch (error) {
    const code =
      error instanceof InvalidText ? 'POLICY_INVALID' : error instanceof Failure ? error.code : 'INTERNAL';
    await cas.audit.recordRefusal({ operation: 'session_refused', ...about, code, certificate });
    throw error;
  }
}

/** @param about is told the name of the session once it is known */
async function takeSession(
  cas: Cas,
  body: string,
  certificate: string | undefined,
  form: 'any' | 'encrypted',
  about: { session?: string },
): Promise<{ hash: string; warnings: Problem[] }> {
  if (form === 'encrypted' && !isEncryptedSession(body))
    throw failure('ENCRYPTED_SESSION_INVALID', { detail: 'it is not encrypted' });
  const { text, signers } = await openUpload(cas, body);
  if (certificate === undefined && signers.length === 0) throw failure('IDENTITY_REQUIRED');
  const client: Client = { certificate, signers };
  const parsed = await inThread(threadFor(text), 'parseSession', text);
  const { session, warnings, unsupported } = parsed;
  if (unsupported.length > 0) throw new InvalidText(unsupported);
  about.session = session.name;
  const active = await activeSession(cas, session.name);
  let parent: Parent | undefined;
  if (active) {
    await authorize(cas, active, 'update', client);
    if (session.predecessor === null) throw failure('SESSION_EXISTS', { session: session.name });
    if (session.predecessor !== active.hash) throw failure('PREDECESSOR_STALE', { session: session.name });
  } else {
    parent = await authorizeCreation(cas, session, client);
    if (session.predecessor !== null) throw failure('PREDECESSOR_UNKNOWN', { session: session.name });
  }
  const creator = creatorOf(session, client, active?.creator ?? null);
  if (active?.isHashPublic && session.salt === undefined) warnings.push(WITHOUT_SALT);

  const secrets = new Map<string, Secret>();
  const toMake: (Definition & { name: string })[] = [];
  let bytes = 0;
  let bytesToMake = 0;
  for (const part of Object.values(parsed.parts)) bytes += part.length;
  for (const definition of session.secrets) {
    if (isImported(definition)) continue;
    const given = parsed.given.get(definition.name);
    const secret = given ? new Secret(given) : keptSecret(active, definition);
    if (secret) {
      secrets.set(definition.name, secret);
      bytes += secret.reveal().length;
    } else {
      toMake.push(definition);
      bytesToMake += sizeOf(definition);
    }
  }
  // Before anything is made: what is refused costs nothing.
  countStored(bytes + bytesToMake);
  for (const definition of toMake) {
    const secret = await madeSecret(definition, cas.clock(), bytesToMake > LARGE);
    if (secret) secrets.set(definition.name, secret);
  }
  const version: NewVersion = {
    number: (active?.number ?? 0) + 1,
    hash: hashOf(parsed.hashed, creator),
    creator,
    isHashPublic: session.salt !== undefined || (active?.isHashPublic ?? false),
    secrets,
  };
  const by: KeyHolder[] = signers.map((key) => ({ signer: key }));
  if (certificate !== undefined) by.push({ certificate });
  const shown = version.isHashPublic ? { hash: version.hash } : {};
  const counted = countedCreator(cas.keyring, by.at(-1) as KeyHolder);
  const sealed = {
    ...(await sealVersion(cas, session.name, version, { created: cas.clock(), by }, parsed.parts)),
    ...(!active && { creator: counted }),
  };
  const outcome = await cas.audit.recordWith(async (statements) => {
    if (!active && (await cas.store.sessionsOf(counted, statements)) >= cas.sessionsPerClient)
      throw failure('TOO_MANY_SESSIONS', { limit: cas.sessionsPerClient });
    await countBytes(cas, counted, sealed.sealed.length, statements);
    const result = await cas.store.addVersion(sealed, parent, statements);
    const entry = { session: session.name, version: version.number, by, ...shown };
    const operation = active ? 'session_updated' : 'session_created';
    return { result, entries: result === 'added' ? [{ operation, ...entry }] : [] };
  });
  if (outcome === 'parent changed') throw failure('NAMESPACE_CHANGED', { namespace: parent?.session ?? '' });
  if (outcome === 'taken')
    throw session.name === ROOT && !active
      ? failure('ROOT_SEALED')
      : failure(active ? 'PREDECESSOR_STALE' : 'SESSION_EXISTS', { session: session.name });
  cas.watches.changed(session.name);
  cas.log.info({ session: session.name, version: version.number, by, ...shown }, 'session stored');
  return { hash: version.hash, warnings };
}

/** Bytes that even the shortest version takes. */
const LEAST = 4096;

/** Counts what a client has stored, in all versions. */
async function countBytes(cas: Cas, client: Buffer, bytes: number, statements: Statements): Promise<void> {
  const state = openState(statements);
  const name = `stored/${client.toString('hex')}`;
  const place = `state/${name}`;
  const kept = await state.readState(name);
  const before = kept ? Number(cas.keyring.open(kept, place).toString()) : 0;
  const total = before + Math.max(LEAST, bytes);
  if (total > cas.mebibytesPerClient * MEBIBYTE)
    throw failure('TOO_MUCH_STORED', { limit: cas.mebibytesPerClient });
  const sealed = cas.keyring.seal(Buffer.from(String(total)), place);
  if (kept) await state.replaceState(name, sealed, kept);
  else await state.createState(name, sealed);
}

const sizeOf = (definition: object): number =>
  'size' in definition && typeof definition.size === 'number' ? definition.size : DEFAULT_SIZE;

/** Bytes of secrets that take a millisecond to be made. */
const LARGE = 65_536;

/** Makes a secret that is not given. @param isAside whether a thread does that, as it does for keys in any case */
async function madeSecret(
  { name, kind, key_type, size }: Definition & { name: string },
  now: number,
  isAside: boolean,
): Promise<Secret | undefined> {
  const definition = { name, kind, key_type, size };
  if (!isAside && kind !== 'private-key' && kind !== 'pgp-key') return makeSecret(definition, now);
  const thread = isAside || key_type?.startsWith('RSA') ? 'long' : 'short';
  const bytes = await inThread(thread, 'makeSecret', { definition, now });
  return bytes && new Secret(bytes);
}

const WITHOUT_SALT: Problem = {
  severity: 'warning',
  line: 1,
  column: 1,
  path: 'salt',
  message:
    'an earlier version has a salt, so the hash is public; without one here, what is written in this version can be guessed at',
};

/** The text of a session, and the digests of the keys that signed it. */
async function openUpload(cas: Cas, body: string): Promise<{ text: string; signers: string[] }> {
  const isEncrypted = isEncryptedSession(body);
  const content = isEncrypted ? await decryptSession(body, cas.encryptionKey) : body;
  const signed = /^\s*\{/.test(content) ? await inThread(threadFor(content), 'readSigned', content) : null;
  if (signed) return signed;
  // Else whoever sees it on its way could upload it as his own, and read it then.
  if (isEncrypted) throw failure('ENCRYPTED_SESSION_INVALID', { detail: 'what is encrypted is not signed' });
  return { text: content, signers: [] };
}

/**
 * Who a session belongs to: whom it names, who must be here or have been its creator before, else whoever uploads it.
 * Who brings a signed session need not be its author, so that names its creator itself, or has none.
 */
function creatorOf(
  session: Uploaded,
  { certificate, signers }: Client,
  before: KeyHolder | null,
): KeyHolder | null {
  if (session.creator === undefined) {
    if (signers.length === 0 && certificate !== undefined) return { certificate };
    if (refersToCreator(session)) throw failure('CREATOR_UNKNOWN');
    return null;
  }
  const named = namedCreator(session);
  const isHere =
    named && ('signer' in named ? signers.includes(named.signer) : named.certificate === certificate);
  if (named && (isHere || isDeepStrictEqual(named, before))) return named;
  throw failure('CREATOR_MISMATCH');
}

/** A session is created by whoever may create sessions in its namespace; at the top by anyone, unless there is a root. */
async function authorizeCreation(cas: Cas, session: Uploaded, client: Client): Promise<Parent | undefined> {
  const { name, namespace_hash } = session;
  const namespace = namespaceOf(name);
  if (namespace === undefined) return undefined;
  const parent = await activeSession(cas, namespace);
  if (!parent && namespace !== ROOT) throw failure('NAMESPACE_NOT_FOUND', { namespace });
  if (parent) await authorize(cas, parent, 'create_sessions', client);
  if (namespace_hash !== undefined && namespace_hash !== parent?.hash)
    throw failure('NAMESPACE_CHANGED', { namespace });
  return { session: namespace, number: parent?.number ?? 0 };
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
  if (old.kind === 'pgp-key' && definition.kind === 'pgp-key') return kept;
  if ((old.kind === 'ascii' || old.kind === 'binary') && old.kind === definition.kind) {
    return sizeOf(old) === sizeOf(definition) ? kept : undefined;
  }
  return undefined;
}
