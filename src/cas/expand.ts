import { failure } from '../errors.ts';
import { isReference } from '../policy/schema/values.ts';
import { checkSection, type Section, type SectionOf } from '../policy/sections.ts';
import { SecretUnusable, type TypedSecret } from '../secrets/kinds.ts';
import { parseTemplate, partsOf, substitution, TemplateError, TooLarge } from '../secrets/substitute.ts';
import { formatted } from './format.ts';
import { inPieces } from './limits/pace.ts';
import { MOST_VALUES, nameOf, type Resolver, tooManyValues } from './secrets.ts';
import { inThread } from './threads.ts';
import type { SessionVersion } from './versions.ts';

/** Bytes of one value of a policy. */
const LARGEST_VALUE = 256 * 1024;
const DEEPEST = 64;

/** Secrets in the forms that templates refer to, by the text of the reference. */
export type Forms = Map<string, Buffer>;

/** Adds the forms that a template needs. */
export async function collectForms(
  resolver: Resolver,
  version: SessionVersion,
  template: string,
  forms: Forms,
): Promise<void> {
  if (!template.includes('$$')) return;
  for (const part of partsOf(Buffer.from(template))) {
    const turn = resolver.pace();
    if (turn) await turn;
    if (!Buffer.isBuffer(part) && !forms.has(part.text))
      forms.set(part.text, await formOf(resolver, version, part.text));
  }
}

/** What a reference in a session stands for. */
async function formOf(resolver: Resolver, version: SessionVersion, text: string): Promise<Buffer> {
  const { name, format } = nameOf(version, text);
  const { secret } = await resolver.find(version, name);
  try {
    const form = await formatted(secret, format);
    await resolver.hold(form.length);
    return form;
  } catch (error) {
    if (!(error instanceof SecretUnusable)) throw error;
    throw failure('SECRET_UNAVAILABLE', {
      secret: name,
      session: version.session.name,
      detail: error.message,
    });
  }
}

/** What config-fragments hold, each of which is read once in a request. */
const contents = new WeakMap<TypedSecret, unknown>();
/** Values of a fragment that are read, or gone through, in a step. */
const VALUES_OF_STEP = 10;

/** @throws Failure POLICY_UNUSABLE or CAS_BUSY */
async function contentOf(resolver: Resolver, fragment: TypedSecret): Promise<unknown> {
  if (contents.has(fragment)) return contents.get(fragment);
  const json = fragment.secret.reveal();
  resolver.spend(1, json.length);
  const values = countValues(json);
  if (values > MOST_VALUES) throw tooManyValues();
  await resolver.pace(values / VALUES_OF_STEP);
  const content: unknown = JSON.parse(json.toString());
  contents.set(fragment, content);
  await resolver.pace(values / VALUES_OF_STEP);
  return content;
}

const [QUOTE, BACKSLASH, ...SEPARATORS] = Buffer.from('"\\,[{');

/** Values that a JSON text has, however deep; each empty list or map counts as two. */
function countValues(json: Buffer): number {
  let values = 1;
  let isWithin = false;
  for (let at = 0; at < json.length; at++) {
    const byte = json[at] as number;
    if (byte === BACKSLASH) at++;
    else if (byte === QUOTE) isWithin = !isWithin;
    else if (!isWithin && SEPARATORS.includes(byte)) values++;
  }
  return values;
}

/**
 * A part of a policy with its variables filled in. A variable that is a whole value and names a config-fragment
 * becomes what that holds, a list within a list becoming part of it; what the fragment refers to is seen from the
 * session that wrote it.
 */
async function expand(
  resolver: Resolver,
  version: SessionVersion,
  value: unknown,
  key: string,
  wants: (key: string) => boolean,
  depth: number,
): Promise<unknown> {
  if (depth > DEEPEST) throw failure('POLICY_UNUSABLE', { section: key, detail: 'it is nested too deeply' });
  resolver.spend(1, typeof value === 'string' ? value.length : 0);
  await resolver.pace();
  if (typeof value === 'string') {
    if (!value.includes('$$')) return value;
    if (isReference(value)) {
      const [part] = parseTemplate(Buffer.from(value));
      if (part && !Buffer.isBuffer(part)) {
        const { name, format } = nameOf(version, part.text);
        const { secret, home } = await resolver.find(version, name);
        if (secret.kind === 'config-fragment')
          return expand(resolver, home, await contentOf(resolver, secret), key, wants, depth + 1);
        // Bytes are no text; base32 is what a shared secret is written in.
        if (secret.kind === 'binary' && format === '' && key === 'one_time_password_shared_secret')
          return (await formatted(secret, ':base32nopad')).toString();
      }
    }
    const forms: Forms = new Map();
    await collectForms(resolver, version, value, forms);
    const filled = await inPieces(resolver.pace, substitution(Buffer.from(value), forms, LARGEST_VALUE));
    resolver.spend(1, filled.length);
    return filled.toString();
  }
  if (Array.isArray(value)) {
    const items: unknown[] = [];
    for (const item of value) {
      const expanded = await expand(resolver, version, item, key, wants, depth + 1);
      if (Array.isArray(expanded) && typeof item === 'string') for (const each of expanded) items.push(each);
      else items.push(expanded);
    }
    return items;
  }
  if (typeof value !== 'object' || value === null) return value;
  const map: Record<string, unknown> = {};
  for (const [name, item] of Object.entries(value))
    if (wants(name)) map[name] = await expand(resolver, version, item, name, wants, depth + 1);
  return map;
}

/** Values of a section that are checked here; a thread checks more, which takes milliseconds. */
const LARGE = 1024;

/**
 * A section of a policy, its variables filled in, checked again.
 * @param wants whether a key is looked at, wherever it stands; what is not is left out, and nothing in it filled in
 * @throws Failure POLICY_UNUSABLE, SECRET_UNAVAILABLE or CAS_BUSY
 */
export async function expandSection<Name extends Section>(
  resolver: Resolver,
  version: SessionVersion,
  name: Name,
  value: unknown,
  wants: (key: string) => boolean = () => true,
): Promise<SectionOf<Name>> {
  const before = resolver.spent();
  let expanded: unknown;
  try {
    expanded = await expand(resolver, version, value, name, wants, 0);
  } catch (error) {
    if (!(error instanceof TemplateError || error instanceof TooLarge)) throw error;
    throw failure('POLICY_UNUSABLE', { section: name, detail: error.message });
  }
  const isLarge = resolver.spent() - before > LARGE;
  const checked = isLarge
    ? await inThread('short', 'checkSection', { name, value: expanded })
    : checkSection(name, expanded);
  if ('section' in checked) return checked.section as SectionOf<Name>;
  const { wrong, at } = checked;
  throw failure('POLICY_UNUSABLE', { section: at ? `${name}.${at}` : name, detail: wrong });
}

/** What is left where a reference might have been: never one, once all are filled in. */
export function literal<Value>(value: Value): Exclude<Value, string> {
  if (typeof value === 'string')
    throw failure('POLICY_UNUSABLE', {
      section: 'a variable',
      detail: 'it stands for the wrong kind of value',
    });
  return value as Exclude<Value, string>;
}
