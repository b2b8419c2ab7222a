import { base32, base32nopad } from '@scure/base';
import { toPem } from './private-key.ts';
import type { Secret } from './secret.ts';

/** Kinds of secrets that the language knows. */
export const secretKinds = [
  'ascii',
  'binary',
  'private-key',
  'public-key',
  'x509',
  'x509-ca',
  'config-fragment',
  'pgp-key',
  'jwt',
  'aad-token',
] as const;
export type SecretKind = (typeof secretKinds)[number];

/** A secret as it is used: of a known kind, whatever it was made or imported from. */
export interface TypedSecret {
  kind: SecretKind;
  /**
   * Its bytes: PKCS#8 in DER of a private-key, SubjectPublicKeyInfo in DER of a public-key, certificate in DER of
   * x509 and x509-ca, transferable secret key of a pgp-key, compact form of a jwt, JSON of a config-fragment.
   */
  secret: Secret;
  /** Certificates of the issuers in DER, from the nearest to the root; of a certificate only. */
  chain?: Buffer[];
  /** PKCS#8 in DER of the certificate's key, where it may be used. */
  privateKey?: Secret;
}

/** A form that a kind of secret can be had in. `raw` ones may hold any bytes, so they stand in files alone. */
interface Format {
  raw?: true;
  /** From how many bytes on it takes milliseconds. */
  slow?: number;
  encode(secret: TypedSecret): Promise<Uint8Array | string> | Uint8Array | string;
}

/** Bytes of which base32 takes a millisecond. */
const LARGE = 16 * 1024;

const bytesOf = ({ secret }: TypedSecret) => secret.reveal();

const certificatePem = (der: Buffer) => toPem('CERTIFICATE', der);

/** The same format under each of its names. */
const named = (names: string[], format: Format) =>
  Object.fromEntries(names.map((name): [string, Format] => [name, format]));

const asIs = { '': { encode: bytesOf } };

const hex: Format = { encode: (it) => bytesOf(it).toString('hex') };

const certificateKey = ({ privateKey }: TypedSecret): Buffer => {
  if (!privateKey) throw new SecretUnusable('its private key is not exported with the certificate');
  return privateKey.reveal();
};

const isSelfSigned = ({ chain }: TypedSecret) => chain?.length === 0;

const certificateFormats: Record<string, Format> = {
  ...named(['', ':crt', ':crt:pem', '.crt'], { encode: (it) => certificatePem(bytesOf(it)) }),
  ':crt:der': { raw: true, encode: bytesOf },
  ...named([':privatekey', ':privatekey:pem', ':privatekey:pkcs8:pem', '.key'], {
    encode: (it) => toPem('PRIVATE KEY', certificateKey(it)),
  }),
  ...named([':privatekey:der', ':privatekey:pkcs8:der'], { raw: true, encode: certificateKey }),
  ':chain': { encode: (it) => (it.chain ?? []).map(certificatePem).join('') },
  // Older order: root first, then down, the certificate itself last and included.
  '.chain': {
    encode: (it) =>
      [...(isSelfSigned(it) ? [] : [...(it.chain ?? [])].reverse()), bytesOf(it)]
        .map(certificatePem)
        .join(''),
  },
  ':pkcs12-with-private-key': {
    raw: true,
    slow: 0,
    encode: async (it) => {
      const { pkcs12 } = await import('./pkcs12.ts');
      return pkcs12({ certificate: bytesOf(it), chain: it.chain ?? [], privateKey: certificateKey(it) });
    },
  },
};

const openPgpFormats = Object.fromEntries(
  (['privatekey', 'publickey'] as const).flatMap((part) =>
    (['asciiarmored', 'binary', 'base64'] as const).map((encoding): [string, Format] => [
      `:${part}:${encoding}`,
      {
        ...(encoding === 'binary' && { raw: true }),
        slow: 0,
        encode: async (it) => {
          const { formatOpenPgpKey } = await import('./openpgp-key.ts');
          return formatOpenPgpKey(bytesOf(it), part, encoding);
        },
      },
    ]),
  ),
);

/** Formats of each kind, by the suffix that a reference has; '' is none. */
const formats: Record<SecretKind, Record<string, Format>> = {
  ascii: asIs,
  binary: {
    ...named(['', ':bin'], { raw: true, encode: bytesOf }),
    ...named([':hex', '.hex'], hex),
    ':base64': { encode: (it) => bytesOf(it).toString('base64') },
    ':base64url': { encode: (it) => bytesOf(it).toString('base64url') },
    ':base32': { slow: LARGE, encode: (it) => base32.encode(bytesOf(it)) },
    ':base32nopad': { slow: LARGE, encode: (it) => base32nopad.encode(bytesOf(it)) },
  },
  'private-key': {
    ...named(['', ':pem', ':pkcs8:pem'], { encode: (it) => toPem('PRIVATE KEY', bytesOf(it)) }),
    ...named([':der', ':pkcs8:der'], { raw: true, encode: bytesOf }),
  },
  'public-key': {
    ...named(['', ':pem', ':spki:pem'], { encode: (it) => toPem('PUBLIC KEY', bytesOf(it)) }),
    ...named([':der', ':spki:der'], { raw: true, encode: bytesOf }),
  },
  x509: certificateFormats,
  'x509-ca': certificateFormats,
  'config-fragment': asIs,
  'pgp-key': openPgpFormats,
  jwt: asIs,
  'aad-token': asIs,
};

/** Why a secret that is there cannot be had in a form. */
export class SecretUnusable extends Error {
  override name = 'SecretUnusable';
}

/** Whether a kind has a format, and whether that gives bytes that may be no text. */
export function formatOf(kind: SecretKind, format: string): { raw: boolean } | undefined {
  const found = Object.hasOwn(formats[kind], format) ? formats[kind][format] : undefined;
  return found && { raw: found.raw ?? false };
}

/** Whether a form takes long to make, so that a server does it aside. */
export function isSlow({ kind, secret }: TypedSecret, format: string): boolean {
  const slow = Object.hasOwn(formats[kind], format) ? formats[kind][format]?.slow : undefined;
  return slow !== undefined && secret.reveal().length >= slow;
}

export function formatsOf(kind: SecretKind): string[] {
  return Object.keys(formats[kind]);
}

/**
 * The bytes that stand in the place of a reference.
 * @throws SecretUnusable
 */
export async function formatSecret(secret: TypedSecret, format: string): Promise<Buffer> {
  const found = formatOf(secret.kind, format) && formats[secret.kind][format];
  if (!found) {
    const known = formatsOf(secret.kind).map((name) => name || '(none)');
    throw new SecretUnusable(
      `a secret of kind ${secret.kind} has no format ${format || '(none)'}; it has: ${known.join(' ')}`,
    );
  }
  return Buffer.from(await found.encode(secret));
}
