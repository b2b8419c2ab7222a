import * as v from 'valibot';
import { LAUNCHER_CONFIGURATION_PATH, parseLauncherConfiguration } from '../policy/launcher-configuration.ts';
import { InvalidText } from '../policy/problem.ts';
import type { LauncherConfiguration } from '../policy/schema/launcher.ts';
import { type KeyHolder, normalForm, type Session } from '../policy/session.ts';

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
  /** Values are in base64. */
  secrets: v.array(v.object({ name: v.string(), value: v.string() })),
});

/** What the launcher does, by the name of the image whose files say so. */
export type Launchers = [string, LauncherConfiguration][];

export type WrittenVersion = Omit<v.InferOutput<typeof writtenVersion>, 'form' | 'launchers'> & {
  launchers: Launchers;
};

export function readVersion(written: Uint8Array): WrittenVersion {
  const { form, ...version } = v.parse(writtenVersion, JSON.parse(new TextDecoder().decode(written)));
  if (form === FORM && version.launchers) return { ...version, launchers: version.launchers };
  const session = form === FORM ? version.session : (normalForm(version.text) ?? version.session);
  return { ...version, session, launchers: launchersOf(session) };
}

/** The largest parts of a version, as JSON. */
export interface LargeParts {
  session: Uint8Array;
  text: Uint8Array;
}

export const largeParts = ({ session, text }: Pick<WrittenVersion, 'session' | 'text'>): LargeParts => ({
  session: Buffer.from(JSON.stringify(session)),
  text: Buffer.from(JSON.stringify(text)),
});

export function writeVersion(
  { session: _, text: __, ...version }: WrittenVersion,
  { session, text }: LargeParts,
): Buffer {
  const rest = JSON.stringify({ form: FORM, ...version }).slice(0, -1);
  const texts = [Buffer.from(`${rest},"session":`), session, Buffer.from(',"text":'), text, Buffer.from('}')];
  return Buffer.concat(texts);
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
