import * as v from 'valibot';
import { failure } from '../errors.ts';
import { LAUNCHER_CONFIGURATION_PATH, parseLauncherConfiguration } from '../policy/launcher-configuration.ts';
import type { ServiceName } from '../policy/names.ts';
import { InvalidText } from '../policy/problem.ts';
import type { LauncherConfiguration } from '../policy/schema/launcher.ts';
import { type KeyHolder, normalForm, type Service, type Session } from '../policy/session.ts';
import { Secret } from '../secrets/secret.ts';
import type { Cas } from './cas.ts';
import type { Keyring } from './keyring.ts';
import type { StoredVersion } from './store/store.ts';

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
  /** What the launcher does, by the name of the image whose files say so. */
  launchers: ReadonlyMap<string, LauncherConfiguration>;
  /** Secrets that are kept; the others are imported, or made from these when they are used. */
  secrets: ReadonlyMap<string, Secret>;
}

/** Counts the normal forms that sessions were stored in; one that was stored in an older one is read anew. */
const FORM = 4;

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
  launchers: v.optional(v.custom<[string, LauncherConfiguration][]>(Array.isArray)),
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
  cas: Pick<Cas, 'keyring'>,
  version: SessionVersion,
  upload: { created: number; by: KeyHolder[] },
): StoredVersion {
  const { number, launchers, secrets, ...rest } = version;
  const hash = cas.keyring.pseudonym(Buffer.from(version.hash));
  const place = placeOf({ session: version.session.name, number, hash });
  const form: v.InferInput<typeof sealedVersion> = {
    form: FORM,
    ...rest,
    launchers: [...launchers],
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

/** Decrypts a version. */
export function openVersion(cas: Cas, stored: StoredVersion): SessionVersion {
  return cas.opened.get(placeOf(stored), stored.sealed, () => decryptVersion(cas, stored));
}

function decryptVersion(cas: Cas, stored: StoredVersion): SessionVersion {
  const plaintext = cas.keyring.open(stored.sealed, placeOf(stored));
  const form = v.parse(sealedVersion, JSON.parse(plaintext.toString()));
  const isPresentForm = form.form === FORM;
  const session = isPresentForm ? form.session : (normalForm(form.text) ?? form.session);
  return {
    ...form,
    session,
    number: stored.number,
    launchers: isPresentForm && form.launchers ? new Map(form.launchers) : launchersOf(session),
    secrets: new Map(form.secrets.map(({ name, value }) => [name, new Secret(Buffer.from(value, 'base64'))])),
  };
}

/** What the launcher does with each image; kept, since reading YAML would be a good part of every release. */
export function launchersOf({ images }: Session): Map<string, LauncherConfiguration> {
  const launchers = new Map<string, LauncherConfiguration>();
  for (const { name, injection_files } of images) {
    const own = injection_files.find(({ path }) => path === LAUNCHER_CONFIGURATION_PATH)?.content;
    if (own === undefined) continue;
    try {
      launchers.set(name, parseLauncherConfiguration(own));
    } catch (error) {
      // Older versions of this program accepted more; a release that needs it is refused.
      if (!(error instanceof InvalidText)) throw error;
    }
  }
  return launchers;
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

/** Hash of a version, and when and by whom it was uploaded, which older versions of this program did not keep. */
export function openUpload(
  cas: Pick<Cas, 'keyring'>,
  stored: StoredVersion,
): { hash: string; created?: number; by: KeyHolder[] } {
  if (!stored.upload) {
    const version = cas.keyring.open(stored.sealed, placeOf(stored));
    return { hash: v.parse(v.object({ hash: v.string() }), JSON.parse(version.toString())).hash, by: [] };
  }
  const plaintext = cas.keyring.open(stored.upload, `upload of ${placeOf(stored)}`);
  return v.parse(sealedUpload, JSON.parse(plaintext.toString()));
}
