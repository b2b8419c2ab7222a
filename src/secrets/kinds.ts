import { randomBytes, randomInt } from 'node:crypto';
import { base32, base32nopad } from '@scure/base';
import { Secret } from './secret.ts';

/** What the language says of a secret: its kind, and its size in characters (ascii) or bytes (binary). */
export interface Definition {
  kind: 'ascii' | 'binary';
  size?: number | undefined;
  value?: string | undefined;
}

/** A secret of a known kind, ready to be formatted. */
export interface TypedSecret {
  kind: Definition['kind'];
  secret: Secret;
}

/** Size of a secret whose definition names none. */
export const DEFAULT_SIZE = 20;
const FIRST_PRINTABLE = 0x21;
const LAST_PRINTABLE = 0x7e;

interface Kind {
  generate(size: number): Buffer;
  /** Reads an explicit value, or says what is wrong with it. */
  parse(value: string): Buffer | string;
  /** Formats by the suffix a reference has; '' is no suffix. `raw` ones may not stand in text. */
  formats: Record<string, { raw?: boolean; encode(bytes: Buffer): Uint8Array | string }>;
}

const raw = { raw: true, encode: (bytes: Buffer) => bytes };
const hex = { encode: (bytes: Buffer) => bytes.toString('hex') };

const kinds: Record<Definition['kind'], Kind> = {
  ascii: {
    generate: (size) =>
      Buffer.from(Array.from({ length: size }, () => randomInt(FIRST_PRINTABLE, LAST_PRINTABLE + 1))),
    parse: (value) => Buffer.from(value),
    formats: { '': { encode: (bytes) => bytes } },
  },
  binary: {
    generate: (size) => randomBytes(size),
    parse: (value) =>
      /^([0-9A-Fa-f]{2})*$/.test(value)
        ? Buffer.from(value, 'hex')
        : 'the value of a binary secret is hexadecimal, two digits a byte',
    formats: {
      '': raw,
      ':bin': raw,
      ':hex': hex,
      '.hex': hex,
      ':base64': { encode: (bytes) => bytes.toString('base64') },
      ':base64url': { encode: (bytes) => bytes.toString('base64url') },
      ':base32': { encode: (bytes) => base32.encode(bytes) },
      ':base32nopad': { encode: (bytes) => base32nopad.encode(bytes) },
    },
  },
};

/** What is wrong with a definition, if anything. */
export function checkDefinition(definition: Definition): string | undefined {
  const { kind, size, value } = definition;
  if (value === undefined) return undefined;
  const parsed = kinds[kind].parse(value);
  if (typeof parsed === 'string') return parsed;
  return size === undefined || size === parsed.length
    ? undefined
    : 'size and value disagree; give one of them';
}

/** Takes the explicit value, or generates one from the system's randomness. */
export function makeSecret({ kind, size = DEFAULT_SIZE, value }: Definition): TypedSecret {
  const bytes = value === undefined ? kinds[kind].generate(size) : kinds[kind].parse(value);
  if (typeof bytes === 'string') throw new Error(bytes);
  return { kind, secret: new Secret(bytes) };
}

/** Whether a kind has a format, and whether that gives text without NUL. */
export function formatOf(kind: Definition['kind'], format: string): { raw: boolean } | undefined {
  const found = Object.hasOwn(kinds[kind].formats, format) ? kinds[kind].formats[format] : undefined;
  return found && { raw: found.raw ?? false };
}

export function formatsOf(kind: Definition['kind']): string[] {
  return Object.keys(kinds[kind].formats);
}

/** The bytes that stand in the place of a reference. */
export function formatSecret({ kind, secret }: TypedSecret, format: string): Buffer {
  const found = formatOf(kind, format) && kinds[kind].formats[format];
  if (!found) throw new Error(`no format ${format} of kind ${kind}`);
  return Buffer.from(found.encode(secret.reveal()));
}
