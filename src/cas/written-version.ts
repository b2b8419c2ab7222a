import * as v from 'valibot';
import { parseLauncherConfiguration } from '../policy/launcher-configuration.ts';
import { InvalidText } from '../policy/problem.ts';
import type { LauncherConfiguration } from '../policy/schema/launcher.ts';
import { LAUNCHER_CONFIGURATION_PATH } from '../policy/schema/launcher.ts';
import { type KeyHolder, normalForm, type Session } from '../policy/session.ts';
import { type DataKey, openWith, sealWith } from './keyring.ts';

/** How a version of a session is written before it is sealed. Pure, so that a thread does it where that takes long. */

/** Counts the normal forms that sessions were stored in; one that was stored in an older one is read anew. */
const FORM = 4;

export const keyHolder = v.union([
  // Older versions knew only certificates.
  v.pipe(
    v.string(),
    v.transform((certificate): KeyHolder => ({ certificate })),
  ),
  v.strictObject({ certificate: v.string() }),
  v.strictObject({ signer: v.string() }),
]);

/** The session is in the normal form that parseSession gave. */
const writtenVersion = v.object({
  form: v.optional(v.number(), 1),
  hash: v.string(),
  text: v.string(),
  creator: v.nullable(keyHolder),
  isHashPublic: v.optional(v.boolean(), false),
  session: v.custom<Session>((value) => typeof value === 'object'),
  launchers: v.optional(v.custom<Launchers>(Array.isArray)),
  secrets: v.array(
    v.object({
      name: v.string(),
      value: v.pipe(
        v.string(),
        v.transform((text): Uint8Array => Buffer.from(text, 'base64')),
      ),
    }),
  ),
});

/** What the launcher does, by the name of the image whose files say so. */
export type Launchers = [string, LauncherConfiguration][];

export type WrittenVersion = Omit<v.InferOutput<typeof writtenVersion>, 'form' | 'launchers'> & {
  launchers: Launchers;
};

/** @throws Failure STATE_SEALED */
export function openWritten({ key, content, place }: Written): WrittenVersion {
  const { form, ...version } = v.parse(
    writtenVersion,
    JSON.parse(new TextDecoder().decode(openWith(key, content, place))),
  );
  if (form === FORM && version.launchers) return { ...version, launchers: version.launchers };
  const session = form === FORM ? version.session : (normalForm(version.text) ?? version.session);
  return { ...version, session, launchers: launchersOf(session) };
}

/** A ciphertext of a version, with what opens it there. */
interface Written {
  key: Uint8Array;
  content: Uint8Array;
  place: string;
}

/** The largest parts of a version, as JSON. */
export type LargeParts = Record<'session' | 'text' | 'launchers', Uint8Array>;

export const largeParts = (session: Session, text: string): LargeParts => ({
  session: Buffer.from(JSON.stringify(session)),
  text: Buffer.from(JSON.stringify(text)),
  launchers: Buffer.from(JSON.stringify(launchersOf(session))),
});

/** A version that is to be written, without its large parts. */
export type SmallParts = Omit<WrittenVersion, keyof LargeParts>;

export function sealWritten({ small, large, place, ...key }: ToWrite): Buffer {
  const secrets = small.secrets.map(({ name, value }) => ({
    name,
    value: Buffer.from(value).toString('base64'),
  }));
  const rest = JSON.stringify({ form: FORM, ...small, secrets }).slice(0, -1);
  const parts = Object.entries(large).flatMap(([name, json]) => [Buffer.from(`,"${name}":`), json]);
  return sealWith(key, Buffer.concat([Buffer.from(rest), ...parts, Buffer.from('}')]), place);
}

/** A version, and what seals it at its place. */
interface ToWrite extends DataKey {
  small: SmallParts;
  large: LargeParts;
  place: string;
}

/** What the launcher does with each image; kept, since reading YAML would be a good part of every release. */
export function launchersOf({ images }: Session): Launchers {
  const launchers: Launchers = [];
  for (const { name, injection_files } of images) {
    const own = injection_files.find(({ path }) => path === LAUNCHER_CONFIGURATION_PATH)?.content;
    if (own === undefined) continue;
    try {
      launchers.push([name, parseLauncherConfiguration(own)]);
    } catch (error) {
      // Older versions of this program accepted more; a release that needs it is refused.
      if (!(error instanceof InvalidText)) throw error;
    }
  }
  return launchers;
}
