import { formatOf, formatSecret, type TypedSecret } from './kinds.ts';

/** A reference `$$SCONE::name:format$$` to a secret. */
export interface Reference {
  name: string;
  /** With its separator, such as `:hex`; empty for the kind's own form. */
  format: string;
}

/** A template taken apart: literal bytes and references in turn. */
export type Part = Buffer | Reference;

/** Why a template cannot be used. `at` is the offset in bytes. */
export class TemplateError extends Error {
  override name = 'TemplateError';
  readonly at: number;

  constructor(message: string, at: number) {
    super(message);
    this.at = at;
  }
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
    if (close < 0) throw new TemplateError('a $$SCONE:: reference is not closed by $$', open);
    const inner = template.toString('latin1', start, start + close);
    const match = reference.exec(inner);
    if (!match) throw new TemplateError(`${JSON.stringify(inner)} is not a reference to a secret`, open);
    if (open > from) parts.push(template.subarray(from, open));
    parts.push({ name: match[1] as string, format: match[2] as string });
    from = start + close + 2;
  }
  if (from < template.length) parts.push(template.subarray(from));
  return parts;
}

/**
 * Puts secrets in the place of references, once: what a secret contains is never looked at again.
 * @throws TemplateError at a reference to a secret or format that is not there
 */
export function substitute(template: Buffer, secrets: ReadonlyMap<string, TypedSecret>): Buffer {
  const parts = parseTemplate(template).map((part) => {
    if (Buffer.isBuffer(part)) return part;
    const secret = secrets.get(part.name);
    if (!secret) throw new TemplateError(`there is no secret ${part.name} to use here`, 0);
    if (!formatOf(secret.kind, part.format))
      throw new TemplateError(
        `the secret ${part.name} of kind ${secret.kind} has no format ${part.format}`,
        0,
      );
    return formatSecret(secret, part.format);
  });
  return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
}
