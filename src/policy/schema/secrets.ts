import * as v from 'valibot';
import { parseDuration } from '../../secrets/duration.ts';
import { type SecretKind, secretKinds } from '../../secrets/kinds.ts';
import { boolean, integer, looseObject, object, oneOf, oneOrMany, pick, record, text } from '../shapes.ts';
import { exports, importSource } from './sharing.ts';
import { anyValue, described, hasKey, invalidText, name } from './values.ts';

/** `secrets`: made, given or imported. */

const duration = invalidText((value) =>
  parseDuration(value) === undefined ? 'expected a duration such as 90 days, 59d or 1 year' : undefined,
);

/** What is made anew is written, and told to whoever waits for it, so certificates are not made by the second. */
const SHORTEST_VALIDITY = 3_600_000;
const validity = v.pipe(
  duration,
  v.check(
    (value) => (parseDuration(value) ?? SHORTEST_VALIDITY) >= SHORTEST_VALIDITY,
    'a certificate is valid for an hour at least',
  ),
);

/** Largest generated secret, in characters or bytes. */
const largestSecret = 1024 * 1024;

const shared = {
  name: described(name, 'Used as $$SCONE::name$$'),
  export: v.optional(described(exports, 'Sessions and namespaces that may import the secret')),
  export_public: v.optional(described(boolean, 'Everybody may read it, at /v1/values'), false),
};
const size = v.optional(described(integer(1, largestSecret), 'Characters or bytes to make; default: 20'));
const keyType = described(
  oneOf('P-256', 'P-384', 'Ed25519', 'RSA-2048', 'RSA-3072'),
  'Type of key; default: P-256',
);
const kindOf = <Kind extends SecretKind>(kind: Kind, description: string) =>
  described(v.literal(kind), description);
const secretName = name;

const certificate = {
  ...shared,
  value: v.optional(described(text, 'Certificate (PEM), and those of its issuers')),
  private_key: v.optional(described(secretName, 'The private-key secret it is for')),
  issuer: v.optional(described(secretName, 'The x509-ca secret that signs it; absent: it signs itself')),
  common_name: v.optional(described(text, 'Common name; default: first DNS name, else the secret’s name')),
  valid_for: v.optional(
    described(validity, 'How long it is valid; it is made anew before. Absent: for ever'),
  ),
};

/** In a claim of a JWT: the measurement of the launcher that gets it. */
export const SOFTWARE_IDENTITY = '$$SCONE::self::software_identity$$';

const claimName = v.pipe(
  text,
  v.check((claim) => !['iat', 'nbf', 'exp'].includes(claim), 'the CAS sets iat, nbf and exp itself'),
);

const alternativeName = v.pipe(text, v.regex(/^(dns|ip):.+$/, 'expected "dns:NAME" or "ip:ADDRESS"'));

const kinds = {
  ascii: object({
    ...shared,
    kind: kindOf('ascii', 'Printable characters'),
    size,
    value: v.optional(described(text, 'The text; absent: made')),
  }),
  binary: object({
    ...shared,
    kind: kindOf('binary', 'Bytes'),
    size,
    value: v.optional(described(text, 'Hexadecimal, two digits a byte')),
  }),
  'private-key': object({
    ...shared,
    kind: kindOf('private-key', 'A key pair'),
    key_type: v.optional(keyType),
    migrate: v.optional(described(boolean, 'Keep the key when the session is updated'), false),
    value: v.optional(described(text, 'Private key (PEM, PKCS#8)')),
  }),
  'public-key': object({
    ...shared,
    kind: kindOf('public-key', 'The public half of a key pair'),
    private_key: v.optional(described(secretName, 'The private-key secret it belongs to')),
    value: v.optional(described(text, 'Public key (PEM)')),
  }),
  x509: object({
    ...certificate,
    kind: kindOf('x509', 'A certificate of a server or client'),
    endpoint: v.optional(described(oneOf('server', 'client'), 'What it is good for; absent: both')),
    dns: v.optional(described(oneOrMany(text), 'Host names; newer form: san')),
    san: v.optional(described(oneOrMany(alternativeName), 'Names: "dns:NAME" or "ip:ADDRESS"')),
  }),
  'x509-ca': object({ ...certificate, kind: kindOf('x509-ca', 'A certificate that signs others') }),
  'config-fragment': object({
    ...shared,
    kind: kindOf('config-fragment', 'A part of a session'),
    value: described(anyValue, 'Any part of a session, to be used as $$SCONE::name$$'),
  }),
  'pgp-key': object({ ...shared, kind: kindOf('pgp-key', 'An OpenPGP key') }),
  jwt: object({
    ...shared,
    kind: kindOf('jwt', 'A signed token'),
    signer: described(secretName, 'The P-384 private-key secret that signs it'),
    alg: described(v.literal('ES384', 'expected ES384'), 'How it is signed'),
    validity: described(
      object({ for: described(duration, 'From when it is made, such as 24h') }),
      'How long it is valid',
    ),
    payload: v.optional(described(record(claimName, text), 'Claims; a value is a text, or one variable'), {}),
  }),
  'aad-token': object({
    ...shared,
    kind: kindOf('aad-token', 'A token of Azure Active Directory'),
    tenant_id: described(text, 'Directory (tenant) id'),
    client_id: described(text, 'Application (client) id'),
    application_secret: v.optional(described(text, 'Client secret of the application')),
    private_key: v.optional(described(text, 'RSA key (PEM) of the application’s certificate')),
    certificate_thumbprint: v.optional(described(text, 'Thumbprint of the application’s certificate')),
  }),
} as const satisfies Record<SecretKind, v.GenericSchema>;

const anyKind = described(oneOf(...secretKinds), 'Kind that the secret must have');

const imported = object({
  ...shared,
  kind: v.optional(anyKind),
  size,
  key_type: v.optional(keyType),
  import: described(importSource, 'Where the secret comes from'),
});

const importedFromVault = object({
  ...shared,
  kind: v.optional(anyKind),
  import_akv: described(
    object({
      vault: described(text, 'Address of the vault'),
      secret_name: v.optional(described(text, 'Its name there; default: its name here')),
      token: v.optional(described(text, 'Token that opens the vault')),
      decryption_key: v.optional(described(text, 'Key that decrypts it')),
    }),
    'Azure Key Vault that the secret comes from',
  ),
});

/** What is said of a secret of no kind that there is. */
const noKind = looseObject({ name, kind: oneOf(...secretKinds) });

export const secret = pick([...Object.values(kinds), importedFromVault, imported], (input) => {
  if (hasKey('import')(input)) return imported;
  if (hasKey('import_akv')(input)) return importedFromVault;
  const kind = hasKey('kind')(input) && secretKinds.find((known) => known === input.kind);
  return kind ? kinds[kind] : noKind;
});
