import { isUtf8 } from 'node:buffer';

/** A variable `$$SCONE::name:format|escape(json)$$`. */
export interface Reference {
  /** Name and format as they were written, such as `cert:chain`. */
  text: string;
  /** How what stands there is encoded, after it was formatted. */
  escape: 'json' | undefined;
}

/** A template taken apart: literal bytes and references in turn. */
export type Part = Buffer | Reference;

/** Why a template cannot be used. */
export class TemplateError extends Error {
  override name = 'TemplateError';
}

/** The second is an older spelling. */
const opening = /\$\$(?:SCONE|PALAEMON)::/g;
const reference = /^([A-Za-z0-9_.~-]+(?::[a-z0-9-]+)*)(\|escape\(json\))?$/;
/** A reference is no longer than this; a longer one was never closed. */
const longest = 1024;

/**
 * Takes a template apart. What stands between the references may be any bytes.
 * @throws TemplateError at a reference that is not closed or not well formed
 */
export const parseTemplate = (template: Buffer): Part[] => [...partsOf(template)];

/** The parts that {@link parseTemplate} gives, one at a time. */
export function* partsOf(template: Buffer): Generator<Part, void> {
  // A character for each byte: places in it are places in the template.
  const text = template.toString('latin1');
  let from = 0;
  for (;;) {
    opening.lastIndex = from;
    const open = opening.exec(text);
    if (!open) break;
    const start = opening.lastIndex;
    const close = text.slice(start, start + longest).indexOf('$$');
    if (close < 0) throw new TemplateError('a $$SCONE:: reference is not closed by $$');
    const inner = text.slice(start, start + close);
    const match = reference.exec(inner);
    if (!match) throw new TemplateError(`${JSON.stringify(inner)} is not a reference to a secret`);
    if (open.index > from) yield template.subarray(from, open.index);
    yield { text: match[1] as string, escape: match[2] ? 'json' : undefined };
    from = start + close + 2;
  }
  if (from < template.length) yield template.subarray(from);
}

/**
 * Takes the name and the format of a reference apart. Formats begin with a colon; older ones with a dot, which
 * names may hold as well, so a secret whose name is the whole text comes first.
 * @param isSecret whether there is a secret of a name
 */
export function splitReference(
  text: string,
  isSecret: (name: string) => boolean,
): { name: string; format: string } {
  const colon = text.indexOf(':');
  if (colon >= 0) return { name: text.slice(0, colon), format: text.slice(colon) };
  const legacy = /^(.+)(\.(?:hex|crt|key|chain))$/.exec(text);
  if (!legacy || isSecret(text)) return { name: text, format: '' };
  return { name: legacy[1] as string, format: legacy[2] as string };
}

/**
 * Puts secrets in the place of references, once: what a secret contains is never looked at again.
 * @param forms what stands for each reference, by its text
 * @param limit largest result, in bytes
 * @throws TemplateError at a reference that stands for nothing, or for bytes that JSON cannot hold
 * @throws TooLarge
 */
export function substitute(template: Buffer, forms: ReadonlyMap<string, Buffer>, limit: number): Buffer {
  const work = substitution(template, forms, limit);
  for (;;) {
    const { done, value } = work.next();
    if (done) return value;
  }
}

const A_STEP = 4096;
/** Parts that are joined at once. */
const JOINED = 1000;

/** The work of {@link substitute}. It yields the steps of each part, of which some kilobytes are one more. */
export function* substitution(
  template: Buffer,
  forms: ReadonlyMap<string, Buffer>,
  limit: number,
): Generator<number, Buffer> {
  let size = 0;
  const joined: Buffer[] = [];
  let parts: Buffer[] = [];
  for (const part of partsOf(template)) {
    const bytes = Buffer.isBuffer(part) ? part : placed(part, forms);
    size += bytes.length;
    if (size > limit) throw new TooLarge();
    if (parts.push(bytes) === JOINED) {
      joined.push(Buffer.concat(parts));
      parts = [];
    }
    yield 1 + bytes.length / A_STEP;
  }
  const all = [...joined, ...parts];
  return all.length === 1 ? (all[0] as Buffer) : Buffer.concat(all);
}

/** The result would be larger than is allowed. */
export class TooLarge extends Error {
  override name = 'TooLarge';
}

/**
 * What stands in the place of one reference.
 * @throws TemplateError as {@link substitute}
 */
export function placed({ text, escape: encoding }: Reference, forms: ReadonlyMap<string, Buffer>): Buffer {
  const form = forms.get(text);
  if (!form) throw new TemplateError(`there is no secret ${text} to use here`);
  if (encoding === undefined) return form;
  if (!isUtf8(form)) throw new TemplateError(`${text} is no text, so JSON cannot hold it`);
  // RFC 8259 §7, without the quotation marks around it.
  return Buffer.from(JSON.stringify(form.toString()).slice(1, -1));
}
