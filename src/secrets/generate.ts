import { randomBytes } from 'node:crypto';
import type { SecretKind } from './kinds.ts';
import {
  generatePrivateKey,
  type KeyType,
  keyTypeOf,
  parsePrivateKey,
  parsePublicKey,
} from './private-key.ts';
import { Secret } from './secret.ts';
import { parseCertificates } from './x509.ts';

/** What the language says of the value of a secret: its kind, and how it is made unless it is given. */
export interface Definition {
  kind: SecretKind;
  /** Characters of ascii, bytes of binary. */
  size?: number | undefined;
  key_type?: KeyType | undefined;
  value?: unknown;
}

/** Size of a secret whose definition names none. */
export const DEFAULT_SIZE = 20;
const FIRST_PRINTABLE = 0x21;
const LAST_PRINTABLE = 0x7e;

/**
 * Reads the explicit value of a definition.
 * @returns its bytes as {@link TypedSecret} has them, a message where it is malformed, undefined where there is none
 */
export function parseValue({ kind, value }: Definition): Buffer | string | undefined {
  if (kind === 'config-fragment') return Buffer.from(JSON.stringify(value));
  if (typeof value !== 'string') return undefined;
  if (kind === 'ascii') return Buffer.from(value);
  if (kind === 'binary')
    return /^([0-9A-Fa-f]{2})*$/.test(value)
      ? Buffer.from(value, 'hex')
      : 'the value of a binary secret is hexadecimal, two digits a byte';
  if (kind === 'public-key') return parsePublicKey(value);
  if (kind === 'private-key') {
    const parsed = parsePrivateKey(value);
    return typeof parsed === 'string' ? parsed : parsed.der;
  }
  if (kind === 'x509' || kind === 'x509-ca') {
    const parsed = parseCertificates(value);
    return typeof parsed === 'string' ? parsed : Buffer.concat(parsed.slice(0, 1));
  }
  return undefined;
}

/** What is wrong with the value of a definition, if anything. */
export function checkValue(definition: Definition): string | undefined {
  const parsed = parseValue(definition);
  if (typeof parsed === 'string') return parsed;
  if (parsed === undefined) return undefined;
  const { size = parsed.length, key_type } = definition;
  if (size !== parsed.length) return 'size and value disagree; give one of them';
  if (key_type !== undefined && key_type !== keyTypeOf(parsed))
    return 'key_type and value disagree; give one of them';
  return undefined;
}

/** Printable characters, each as likely as the others. */
function randomPrintable(size: number): Buffer {
  const count = LAST_PRINTABLE - FIRST_PRINTABLE + 1;
  // Bytes from there on would make some more likely than others.
  const end = 256 - (256 % count);
  const characters = Buffer.alloc(size);
  for (let filled = 0; filled < size; )
    for (const byte of randomBytes(2 * (size - filled))) {
      if (filled === size) break;
      if (byte < end) characters[filled++] = FIRST_PRINTABLE + (byte % count);
    }
  return characters;
}

/**
 * Takes the explicit value, or makes one from the system's randomness.
 * @param now milliseconds since 1970
 * @returns undefined for a kind that is made from other secrets when it is used
 */
export async function makeSecret(
  definition: Definition & { name: string },
  now: number,
): Promise<Secret | undefined> {
  const given = parseValue(definition);
  if (typeof given === 'string') throw new Error(given);
  if (given) return new Secret(given);
  const { name, kind, size = DEFAULT_SIZE, key_type = 'P-256' } = definition;
  if (kind === 'ascii') return new Secret(randomPrintable(size));
  if (kind === 'binary') return new Secret(randomBytes(size));
  if (kind === 'private-key') return new Secret(generatePrivateKey(key_type));
  if (kind === 'pgp-key') {
    const { generateOpenPgpKey } = await import('./openpgp-key.ts');
    return new Secret(await generateOpenPgpKey(name, now));
  }
  return undefined;
}
