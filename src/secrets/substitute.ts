import { formatOf, formatSecret, type TypedSecret } from './kinds.ts';

/** A reference `$$SCONE::name:format$$` to a secret. */
export interface Reference {
  name: string;
  /** With its separator, such as `:hex`; empty for the kind's own form. */
  format: string;
}

/** A template taken apart: literal bytes and references in turn. */
export type Part = Buffer | Reference;

/** Why a template cannot be used. */
export class TemplateError extends Error {
  override name = 'TemplateError';
}

const OPEN = '$$SCONE::';
const reference = /^([A-Za-z0-9_.~-]+?)(\.hex|(?::[a-z0-9-]+)*)$/;
/** A name and its format together are no longer than this; a longer one was never closed. */
const longest = 1024;

/**
 * Takes a template apart. What stands between the references may be any bytes.
 * @throws TemplateError at a reference that is not closed or not well formed
 */
export function parseTemplate(template: Buffer): Part[] {
  const parts: Part[] = [];
  let from = 0;
  for (;;) {
    const open = template.indexOf(OPEN, from);
    if (open < 0) break;
    const start = open + OPEN.length;
    const close = template.subarray(start, start + longest).indexOf('$$');
    if (close < 0) throw new TemplateError('a $$SCONE:: reference is not closed by $$');
    const inner = template.toString('latin1', start, start + close);
    const match = reference.exec(inner);
    if (!match) throw new TemplateError(`${JSON.stringify(inner)} is not a reference to a secret`);
    if (open > from) parts.push(template.subarray(from, open));
    parts.push({ name: match[1] as string, format: match[2] as string });
    from = start + close + 2;
  }
  if (from < template.length) parts.push(template.subarray(from));
  return parts;
}

/**
 * Puts secrets in the place of references, once: what a secret contains is never looked at again.
 * @param limit largest result, in bytes
 * @throws TemplateError at a reference to a secret or format that is not there
 * @throws TooLarge
 */
export function substitute(
  template: Buffer,
  secrets: ReadonlyMap<string, TypedSecret>,
  limit: number,
): Buffer {
  let size = 0;
  const parts: Buffer[] = [];
  for (const part of parseTemplate(template)) {
    const bytes = Buffer.isBuffer(part) ? part : resolve(part, secrets);
    size += bytes.length;
    if (size > limit) throw new TooLarge();
    parts.push(bytes);
  }
  return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
}

/** The result would be larger than is allowed. */
export class TooLarge extends Error {
  override name = 'TooLarge';
}

function resolve({ name, format }: Reference, secrets: ReadonlyMap<string, TypedSecret>): Buffer {
  const secret = secrets.get(name);
  if (!secret) throw new TemplateError(`there is no secret ${name} to use here`);
  if (!formatOf(secret.kind, format))
    throw new TemplateError(`the secret ${name} of kind ${secret.kind} has no format ${format}`);
  return formatSecret(secret, format);
}
