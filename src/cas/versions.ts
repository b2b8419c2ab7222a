import * as v from 'valibot';
import { failure } from '../errors.ts';
import type { ServiceName } from '../policy/names.ts';
import type { LauncherConfiguration } from '../policy/schema/launcher.ts';
import type { KeyHolder, Service, Session } from '../policy/session.ts';
import { Secret } from '../secrets/secret.ts';
import type { Cas } from './cas.ts';
import type { Keyring } from './keyring.ts';
import { createRecent, type Recent } from './recent.ts';
import type { StoredVersion, VersionHead } from './store/store.ts';
import { inThread } from './threads.ts';
import {
  keyHolder,
  type LargeParts,
  openWritten,
  sealWritten,
  type WrittenVersion,
} from './written-version.ts';

/** A version of a session as the CAS works with it. */
export interface SessionVersion {
  number: number;
  hash: string;
  /** Bytes that it has in the store. */
  size: number;
  /** The text as it was uploaded. */
  text: string;
  session: Session;
  creator: KeyHolder | null;
  /** This version, or one before, has a salt. */
  isHashPublic: boolean;
  /** What the launcher does, by the name of the image whose files say so. */
  launchers: ReadonlyMap<string, LauncherConfiguration>;
  /** Secrets that are kept; the others are imported, or made from these when they are used. */
  secrets: ReadonlyMap<string, Secret>;
}

/** What is kept of an upload beside the session, sealed too. */
const sealedUpload = v.object({
  hash: v.string(),
  /** Milliseconds since 1970. */
  created: v.number(),
  by: v.array(keyHolder),
  /** Absent where an older version of this program took it: only the session tells. */
  isHashPublic: v.optional(v.boolean()),
});

/** When a version was uploaded (milliseconds since 1970), and by whom. */
interface Upload {
  created: number;
  by: KeyHolder[];
}

/** A version that is to be stored; what its parts say of it is not looked at again. */
export type NewVersion = Omit<SessionVersion, 'session' | 'size' | 'text' | 'launchers'>;

/** A version as it goes into the store. */
export async function sealVersion(
  cas: Pick<Cas, 'keyring'>,
  session: string,
  { number, secrets, ...rest }: NewVersion,
  upload: Upload,
  large: LargeParts,
): Promise<StoredVersion> {
  const { hash: own, isHashPublic } = rest;
  const hash = cas.keyring.pseudonym(Buffer.from(own));
  const place = placeOf({ session, number, hash });
  const kept = [...secrets].map(([name, secret]) => ({ name, value: secret.reveal() }));
  const toWrite = { small: { ...rest, secrets: kept }, large, place, ...cas.keyring.makeKey(place) };
  const sizes = [...Object.values(large), ...kept.map(({ value }) => value)].map(({ length }) => length);
  const size = sizes.reduce((sum, size) => sum + size, 0);
  const sealed =
    size > LARGE
      ? Buffer.from(await inThread(threadFor(size), 'sealWritten', toWrite))
      : sealWritten(toWrite);
  const record: v.InferInput<typeof sealedUpload> = { hash: own, ...upload, isHashPublic };
  return {
    ...{ session, number, hash, sealed },
    upload: cas.keyring.seal(Buffer.from(JSON.stringify(record)), `upload of ${place}`),
  };
}

/** The newest version of a session, decrypted, or undefined. */
export async function activeSession(cas: Cas, name: string): Promise<SessionVersion | undefined> {
  const stored = await cas.store.activeVersion(name);
  return stored && openVersion(cas, stored);
}

/** Bytes of a version; more take milliseconds to be read or written, so a thread does that. */
const LARGE = 256 * 1024;
/** Bytes that take tens of them, for which keys of others need not wait. */
const LARGEST = 1024 * 1024;
const threadFor = (size: number) => (size > LARGEST ? 'long' : 'short');
/** Bytes of ciphertext of versions that are kept decrypted: of small ones, and of large ones, which would take their room. */
const SMALL_VERSIONS = 16 * 1024 * 1024;
const LARGE_VERSIONS = 32 * 1024 * 1024;

/** Versions that were decrypted lately. */
export interface OpenedVersions {
  small: Recent<SessionVersion>;
  large: Recent<SessionVersion>;
}

export const createOpenedVersions = (): OpenedVersions => ({
  small: createRecent(SMALL_VERSIONS),
  large: createRecent(LARGE_VERSIONS),
});

/** Decrypts a version. */
export async function openVersion(cas: Cas, stored: StoredVersion): Promise<SessionVersion> {
  const { sealed } = stored;
  const place = placeOf(stored);
  const isLarge = sealed.length > LARGE;
  const opened = cas.opened[isLarge ? 'large' : 'small'];
  const known = opened.find(place, sealed);
  if (known) return known;
  const written = { ...cas.keyring.keyOf(sealed, place), place };
  const read = isLarge
    ? await inThread(threadFor(sealed.length), 'openWritten', written)
    : openWritten(written);
  const version = versionOf(stored, read);
  opened.keep(place, sealed, version);
  return version;
}

function versionOf(
  { number, sealed }: StoredVersion,
  { launchers, secrets, ...rest }: WrittenVersion,
): SessionVersion {
  return {
    ...rest,
    number,
    size: sealed.length,
    launchers: new Map(launchers),
    secrets: new Map(secrets.map(({ name, value }) => [name, new Secret(value)])),
  };
}

/** Where a version is kept; its ciphertext decrypts only there. */
function placeOf({ session, number, hash }: Omit<VersionHead, 'upload'>): string {
  return `version/${session}/${number}/${hash.toString('hex')}`;
}

/** The newest version of a session. @throws Failure SESSION_NOT_FOUND */
export async function requireSession(cas: Cas, name: string): Promise<SessionVersion> {
  const active = await activeSession(cas, name);
  if (!active) throw failure('SESSION_NOT_FOUND', { session: name });
  return active;
}

/** A service of the newest version of a session. @throws Failure SESSION_NOT_FOUND or SERVICE_NOT_FOUND */
export async function requireService(
  cas: Cas,
  { session, service: name }: ServiceName,
): Promise<{ version: SessionVersion; service: Service }> {
  const version = await requireSession(cas, session);
  const service = version.session.services.find((it) => it.name === name);
  if (!service) throw failure('SERVICE_NOT_FOUND', { session, service: name });
  return { version, service };
}

/** What the sessions of a client are counted by. */
export function countedCreator(keyring: Keyring, holder: KeyHolder): Buffer {
  return keyring.pseudonym(Buffer.from(`creator ${JSON.stringify(holder)}`));
}

/**
 * What is kept of an upload beside the session.
 * @returns undefined where an older version of this program kept nothing
 */
export function openUpload(
  { keyring }: Pick<Cas, 'keyring'>,
  head: VersionHead,
): v.InferOutput<typeof sealedUpload> | undefined {
  if (!head.upload) return undefined;
  const plaintext = keyring.open(head.upload, `upload of ${placeOf(head)}`);
  return v.parse(sealedUpload, JSON.parse(plaintext.toString()));
}
