import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { check } from './check.ts';
import { InvalidText, type Problem } from './problem.ts';
import * as schema from './schema.ts';
import type { Variables } from './template.ts';
import { invalid, readYaml } from './yaml.ts';

export { type Image, isImported, type SecretDefinition, type Service, type Session } from './schema.ts';

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
 * @throws InvalidText with what is wrong, and where
 */
export function parseSession(text: string, variables?: Variables): ParsedSession {
  const yaml = readYaml(text, variables);
  if (yaml.value === null) throw new InvalidText([yaml.problem([], 'the session is empty')]);
  const result = v.safeParse(schema.session, yaml.value);
  if (!result.success) throw invalid(yaml, result.issues);
  const session = result.output;
  const { errors, warnings, unsupported } = check(session, yaml);
  if (errors.length > 0) throw new InvalidText(errors);
  return { session, text: yaml.text, warnings: [...warnings, ...unsupported.map(asWarning)], unsupported };
}

/**
 * The 32 bytes, in hexadecimal, that name this version of a session: SHA-256 of its normal form and of its
 * creator's key, as JSON with sorted keys.
 * @param creator digest of the creator's public key, hexadecimal
 */
export function sessionHash(session: schema.Session, creator: string): string {
  return createHash('sha256').update(JSON.stringify({ session, creator }, sortKeys)).digest('hex');
}

function asWarning(problem: Problem): Problem {
  return { ...problem, severity: 'warning' };
}

function sortKeys(_: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}
