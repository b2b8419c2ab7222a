import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { check } from './check/check.ts';
import { principalKey } from './principals.ts';
import { InvalidText, MOST_PROBLEMS, type Problem } from './problem.ts';
import { remainderOf } from './remainder.ts';
import * as schema from './schema/session.ts';
import { signerDigest } from './signed-session.ts';
import type { Variables } from './template.ts';
import { invalid, pathOf, readYaml, type YamlText } from './yaml.ts';

export {
  type Image,
  isImported,
  type SecretDefinition,
  type Service,
  type Session,
} from './schema/session.ts';

/** A session that was understood. */
export interface ParsedSession {
  /** In normal form. */
  session: schema.Session;
  /** The text, template variables filled in. */
  text: string;
  /** What its author may not have meant. */
  warnings: Problem[];
  /** What the language has and a CAS of this version does not do: it takes no such session. */
  unsupported: Problem[];
}

/**
 * Reads a session text.
 * @param variables fills in template variables; without it there are none
 * @param allowReferences see {@link readYaml}
 * @throws InvalidText with what is wrong, and where
 */
export function parseSession(text: string, variables?: Variables, allowReferences = false): ParsedSession {
  const yaml = readYaml(text, variables, allowReferences);
  if (yaml.value === null) throw new InvalidText([yaml.problem([], 'the session is empty')]);
  const result = v.safeParse(schema.session, yaml.value);
  if (!result.success) throw new InvalidText(allProblems(yaml, result.issues));
  const session = result.output;
  const { errors, warnings, unsupported } = check(session, yaml);
  if (errors.length > 0) throw new InvalidText(errors);
  return {
    session,
    text: yaml.text,
    warnings: [...yaml.warnings, ...warnings, ...unsupported.map(asWarning)],
    unsupported,
  };
}

/**
 * The normal form of a text that was accepted once, perhaps when less was checked.
 * @returns undefined where it has not even the shape of a session any more
 */
export function normalForm(text: string): schema.Session | undefined {
  const result = v.safeParse(schema.session, readYaml(text).value);
  return result.success ? result.output : undefined;
}

/** What has the wrong shape, and what is wrong in the rest; in the order of the text. */
function allProblems(yaml: YamlText, issues: readonly v.BaseIssue<unknown>[]): Problem[] {
  const problems = [...invalid(yaml, issues).problems];
  const remainder = remainderOf(yaml.value, issues.map(pathOf));
  const rest = remainder && v.safeParse(schema.session, remainder.value);
  if (rest?.success)
    for (const problem of check(rest.output, yaml).errors)
      if (!remainder?.isAside(problem)) problems.push(problem);
  problems.sort((a, b) => a.line - b.line || a.column - b.column);
  return problems.slice(0, MOST_PROBLEMS);
}

/** Who holds a key, by its digest (hexadecimal): whoever showed a certificate for it, or signed with it. */
export type KeyHolder = { certificate: string } | { signer: string };

/** Whom a session names as its creator; undefined where it names nobody, or nobody who can be known. */
export function namedCreator({ creator }: Pick<schema.Session, 'creator'>): KeyHolder | undefined {
  if (creator === undefined) return undefined;
  if (typeof creator === 'string') {
    const certificate = principalKey(creator);
    return certificate === undefined ? undefined : { certificate };
  }
  const key = signerDigest(creator.signer);
  return typeof key === 'string' ? undefined : { signer: key.toString('hex') };
}

/**
 * The 32 bytes, in hexadecimal, that name this version of a session: SHA-256 of its normal form and of its
 * creator's key, as JSON with sorted keys. Whether the text names its creator makes no difference.
 */
export function sessionHash(session: schema.Session, creator: KeyHolder | null): string {
  return hashOf(hashedPart(session), creator);
}

/** What counts of a session for its hash, as JSON with sorted keys. */
export function hashedPart({ creator: _, ...session }: schema.Session): string {
  return JSON.stringify(session, sortKeys);
}

/** The session hash, where what counts of the session is there already. */
export function hashOf(part: string | Uint8Array, creator: KeyHolder | null): string {
  return createHash('sha256')
    .update(`{"creator":${JSON.stringify(creator, sortKeys)},"session":`)
    .update(part)
    .update('}')
    .digest('hex');
}

/** Whether an access policy speaks of the CREATOR, as it does by default. One that is a variable is not seen into. */
export function refersToCreator({ access_policy }: Pick<schema.Session, 'access_policy'>): boolean {
  return JSON.stringify(access_policy).includes('"CREATOR"');
}

function asWarning(problem: Problem): Problem {
  return { ...problem, severity: 'warning' };
}

function sortKeys(_: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}
