import * as v from 'valibot';
import { accessPolicy } from './schema/access-policy.ts';
import { security } from './schema/security.ts';
import { attestationVariants, mrenclaves, platforms } from './schema/services.ts';

/** Parts of a session that variables can bring in, by the names that errors have for them. */
const sections = {
  security,
  attestation: attestationVariants,
  mrenclaves,
  platforms,
  one_time_password_shared_secret: v.object({ one_time_password_shared_secret: v.string() }),
  access_policy: accessPolicy,
  ...accessPolicy.entries,
  principal: accessPolicy.entries.update,
  signer: v.string(),
};

export type Section = keyof typeof sections;
export type SectionOf<Name extends Section> = v.InferOutput<(typeof sections)[Name]>;

/** A section in normal form, or the first thing that is wrong in it. */
export type CheckedSection = { section: SectionOf<Section> } | { wrong: string; at: string | null };

/** Checks a section once its variables are filled in. */
export function checkSection(name: Section, value: unknown): CheckedSection {
  const schema: v.GenericSchema<unknown, SectionOf<Section>> = sections[name];
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return { section: result.output };
  const [issue] = result.issues;
  return { wrong: issue.message, at: v.getDotPath(issue) };
}
