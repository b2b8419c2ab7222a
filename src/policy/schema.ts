import * as v from 'valibot';
import { parseDuration } from '../secrets/duration.ts';
import { type SecretKind, secretKinds } from '../secrets/kinds.ts';
import { defaultPorts, parseAddress } from './address.ts';
import { parseKeyHash } from './key-hash.ts';
import { namePattern, sessionNamePattern } from './names.ts';
import { principalKey, principalProblem, roles } from './principals.ts';
import {
  boolean,
  choice,
  hex,
  integer,
  list,
  looseObject,
  object,
  oneOf,
  oneOrMany,
  pick,
  record,
  text,
  textOr,
} from './shapes.ts';
import { parseSharing } from './sharing.ts';
import { signerDigest } from './signed-session.ts';
import { splitWords } from './words.ts';
import type { Value } from './yaml.ts';

/**
 * The session language 0.3: the shape of every key, and its normal form. Input is a {@link Value}, in which all
 * scalars are text. Descriptions are shown by editors (see json-schema.ts).
 */

const described = <Schema extends v.GenericSchema>(schema: Schema, description: string) =>
  v.pipe(schema, v.description(description));

const invalidText = (problemOf: (value: string) => string | undefined) =>
  v.pipe(
    text,
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed) return;
      const message = problemOf(dataset.value);
      if (message !== undefined) addIssue({ message });
    }),
  );

/** `$$SCONE::name$$` in the place of a whole value: a secret, or a config-fragment with further structure. */
const referencePattern = /^\$\$(?:SCONE|PALAEMON)::(?:[^$]|\$(?!\$))+\$\$$/;
export const isReference = (input: unknown): input is string =>
  typeof input === 'string' && referencePattern.test(input);

const reference = v.pipe(text, v.regex(referencePattern, 'expected a variable $$SCONE::name$$'));

const referenceOr = <Schema extends v.GenericSchema>(schema: Schema) =>
  choice(isReference, reference, schema) as v.GenericSchema<
    string | v.InferInput<Schema>,
    string | v.InferOutput<Schema>
  >;

const anyValue = v.custom<Value>(() => true);

const name = v.pipe(text, v.regex(namePattern, 'a name has 1 to 512 of the characters A-Z a-z 0-9 _ . ~ -'));

const imageName = v.pipe(text, v.minLength(1, 'a name is needed'), v.maxLength(512, 'the name is too long'));

const sessionName = v.pipe(
  text,
  v.regex(sessionNamePattern, 'a session name has levels of A-Z a-z 0-9 _ . ~ - separated by /'),
);

/** A session named from within another: absolute, or beginning with ./ or ../ */
const sessionReference = v.pipe(
  text,
  v.regex(
    /^(\/|(\.\.?\/)*(\.\.?|[A-Za-z0-9_.~-]{1,512}(\/[A-Za-z0-9_.~-]{1,512})*))$/,
    'expected the name of a session, or a path relative to this one such as ../name',
  ),
);

const absolutePath = v.pipe(
  text,
  v.startsWith('/', 'expected an absolute path'),
  v.check((path) => !path.includes('\0'), 'a path holds no NUL byte'),
);

const withoutNul = v.pipe(
  text,
  v.check((value) => !value.includes('\0'), 'a NUL byte cannot be part of an argument or variable'),
);

const commandLine = v.pipe(
  withoutNul,
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const words = splitWords(dataset.value);
    if (words) return words;
    addIssue({ message: 'a quotation mark is not closed' });
    return NEVER;
  }),
);
const command = textOr(commandLine, list(withoutNul)) as v.GenericSchema<string | string[], string[]>;

const variableName = v.pipe(text, v.regex(/^[^=\0]+$/, 'a variable name is not empty and has no = or NUL'));

const duration = invalidText((value) =>
  parseDuration(value) === undefined ? 'expected a duration such as 90 days, 59d or 1 year' : undefined,
);

// --- access policy

/** Who may do something: one principal. */
export type Principal = string | { signer: string } | { [governance: string]: Principal[] };

const principalText = v.pipe(invalidText(principalProblem), v.examples([...roles]));
const signerKey = invalidText((value) => {
  const key = signerDigest(value);
  return typeof key === 'string' ? key : undefined;
});
const signer = object({
  signer: described(referenceOr(signerKey), 'Public key (PEM) of whoever signs the session'),
});

const GOVERNANCE = /^require-(all|at-least-([1-9][0-9]{0,3}))$/;

/** How many of its principals an entry `require-…` asks for. */
export function quorumOf(key: string, among: number): number | undefined {
  const match = GOVERNANCE.exec(key);
  if (!match) return undefined;
  return match[2] === undefined ? among : Number(match[2]);
}

const isGovernance = (input: unknown) =>
  typeof input === 'object' && input !== null && Object.keys(input).some((key) => key.startsWith('require-'));

const standsAlone = (principal: Principal) => principal === 'ANY' || principal === 'NONE';

/** The same for the same key, however it is written: nobody counts twice. */
function keyOf(principal: Principal): unknown {
  if (typeof principal === 'string') return principalKey(principal) ?? principal;
  if (!('signer' in principal)) return principal;
  const key = signerDigest(String(principal.signer));
  return `signer ${typeof key === 'string' ? principal.signer : key.toString('hex')}`;
}

const governed: v.GenericSchema<Principal> = v.lazy(() => principal);

const governance = v.pipe(
  record(
    v.pipe(text, v.regex(GOVERNANCE, 'expected require-all or require-at-least-N')),
    v.pipe(
      list(governed),
      v.minLength(1, 'expected at least one principal'),
      v.check((members) => !members.some(standsAlone), 'ANY and NONE stand alone'),
      v.check((members) => new Set(members.map(keyOf)).size === members.length, 'somebody is there twice'),
    ),
  ),
  v.entries(1, 'expected one of require-all or require-at-least-N'),
  v.check(
    (entry) =>
      Object.entries(entry).every(([key, members]) => (quorumOf(key, members.length) ?? 0) <= members.length),
    'more are required than are listed',
  ),
);

/** One principal, or a rule that asks for several. */
export const principal = textOr(
  principalText,
  choice(isGovernance, governance, signer),
) as v.GenericSchema<Principal>;

const principals = <Item extends v.GenericSchema<Principal>>(item: Item, explanation: string) =>
  described(
    referenceOr(
      v.pipe(
        oneOrMany(item as v.GenericSchema<Principal>),
        v.check((entries) => entries.length <= 1 || !entries.some(standsAlone), 'ANY and NONE stand alone'),
      ),
    ),
    explanation,
  );

const plain = principalText as v.GenericSchema<Principal>;

export const accessPolicy = object({
  read: v.optional(principals(plain, 'Who may read the session; default: its creator'), 'CREATOR'),
  update: v.optional(principals(governed, 'Who may replace the session; default: its creator'), 'CREATOR'),
  create_sessions: v.optional(
    principals(governed, 'Who may create sessions below this one; default: as update'),
  ),
  list_sessions: v.optional(principals(plain, 'Who may list the sessions below this one; default: as read')),
});

// --- services

const oneTimePassword = described(
  text,
  'Shared secret of one-time passwords: base32, or $$SCONE::name:base32nopad$$ of a binary secret',
);

const measurements = referenceOr(oneOrMany(referenceOr(hex(64))));

const signerVariant = v.pipe(
  object({
    mrsigner: described(referenceOr(hex(64)), 'MRSIGNER: digest of the key that signed the enclave'),
    isvprodid: described(referenceOr(integer(0, 65535)), 'Product id of the enclave'),
    isvsvn: v.optional(described(referenceOr(integer(0, 65535)), 'Security version, exactly')),
    isvsvn_min: v.optional(described(referenceOr(integer(0, 65535)), 'Security version, at least')),
    isvsvn_max: v.optional(described(referenceOr(integer(0, 65535)), 'Security version, at most')),
  }),
  v.check(
    ({ isvsvn, isvsvn_min, isvsvn_max }) =>
      isvsvn === undefined || (isvsvn_min === undefined && isvsvn_max === undefined),
    'isvsvn excludes isvsvn_min and isvsvn_max',
  ),
);

const attestationVariant = v.pipe(
  object({
    mrenclave: v.optional(described(measurements, 'Measurement of the launcher, or a list of them')),
    signer: v.optional(described(referenceOr(signerVariant), 'Who signed the launcher, and its version')),
    one_time_password_shared_secret: v.optional(oneTimePassword),
  }),
  v.check(
    ({ mrenclave, signer }) => mrenclave !== undefined || signer !== undefined,
    'expected mrenclave or signer',
  ),
);

/** What a launcher must be to be admitted to a service: any one of these. */
export const attestationVariants = referenceOr(oneOrMany(referenceOr(attestationVariant)));
export const mrenclaves = list(referenceOr(hex(64)));

export const platforms = referenceOr(
  list(
    referenceOr(
      v.pipe(
        text,
        v.regex(
          /^([0-9A-Fa-f]{64}|INTEL_QE_ID:[0-9A-Fa-f]{32})$/,
          'expected the 64 hexadecimal digits of a LAS key, or INTEL_QE_ID: and 32',
        ),
        v.transform((value) => value.replace(/[0-9A-Fa-f]+$/, (digits) => digits.toLowerCase())),
      ),
    ),
  ),
);

const service = object({
  name: described(name, 'Name of the service: launched as SESSION/NAME'),
  image_name: v.optional(described(imageName, 'Name of the image with its files')),
  command: v.optional(
    described(command, 'Arguments, the launcher’s own name first; @@N admits a host argument'),
    [],
  ),
  environment: v.optional(
    described(
      v.nullable(record(variableName, v.nullable(withoutNul)), {}),
      'The only environment the program sees; \\@\\@NAME admits a variable of the host',
    ),
    {},
  ),
  pwd: v.optional(described(absolutePath, 'Working directory, which must exist')),
  attestation: v.optional(described(attestationVariants, 'Launchers that are admitted'), []),
  mrenclaves: v.optional(described(mrenclaves, 'Older form of attestation: {mrenclave: […]}'), []),
  platforms: v.optional(described(platforms, 'Hosts that are allowed, by LAS key'), []),
  one_time_password_shared_secret: v.optional(oneTimePassword),
  fspf_path: v.optional(described(text, 'File system protection file')),
  fspf_key: v.optional(described(referenceOr(hex(64)), 'Key of the file system protection file')),
  fspf_tag: v.optional(described(hex(32), 'Tag of the file system protection file')),
  fspf_update_policy: v.optional(
    described(
      oneOf('rollback_protected_reinitializable', 'no_rollback_protection'),
      'Whether an older state of the file system is refused',
    ),
  ),
  persistency: v.optional(described(text, 'Kept, without a meaning')),
});

// --- images and volumes

const volumePolicy = described(
  oneOf('rollback_protected', 'ephemeral', 'no_rollback_protection'),
  'Whether an older state is refused, or changes are not kept',
);

const permission = v.pipe(
  text,
  v.regex(/^0?o?[0-7]{3,4}$/, 'expected a mode such as 0o700'),
  v.transform((mode) => `0o${mode.replace(/^0?o?/, '')}`),
);

const fileWithContent = object({
  path: described(absolutePath, 'Path under which the file is injected'),
  content: v.optional(described(text, 'Content, with variables; absent: a template on the launcher’s host')),
  permission: v.optional(described(permission, 'Mode of the injected file, such as 0o700')),
});
const filePath = v.pipe(
  absolutePath,
  v.transform((path): v.InferOutput<typeof fileWithContent> => ({ path })),
);

const image = object({
  name: described(imageName, 'Named by image_name of services'),
  volumes: v.optional(
    described(
      list(
        object({
          name: described(name, 'Name of the volume, below in volumes'),
          path: described(absolutePath, 'Where it is mounted'),
          update_policy: v.optional(volumePolicy),
        }),
      ),
      'Volumes of the service',
    ),
    [],
  ),
  injection_files: v.optional(
    described(
      list(
        textOr(filePath, fileWithContent) as v.GenericSchema<unknown, v.InferOutput<typeof fileWithContent>>,
      ),
      'Files that the launcher is given',
    ),
    [],
  ),
  provide_secrets: v.optional(described(list(name), 'Secrets that templates on the launcher’s host may use')),
});

// --- sharing

const sharingProblem = v.pipe(
  text,
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const parsed = parseSharing(dataset.value);
    if (typeof parsed !== 'string') return parsed;
    addIssue({ message: parsed });
    return NEVER;
  }),
);

const remote = {
  cas_url: v.optional(described(text, 'Address of another CAS: HOST or HOST:PORT')),
  cas_key: v.optional(described(text, 'Key hash of the other CAS')),
  cas_software_key: v.optional(described(text, 'Key hash of the software of the other CAS')),
};

/** What is wrong with the way another CAS is named, if anything. */
function otherCasProblem(it: {
  cas_url?: string | undefined;
  cas_key?: string | undefined;
  cas_software_key?: string | undefined;
  session?: string | undefined;
}): string | undefined {
  if (it.cas_software_key !== undefined) return 'a CAS is known by cas_key; it has no other key';
  if (it.cas_key === undefined)
    return it.cas_url === undefined ? undefined : 'the key of the other CAS is missing: cas_key';
  if (it.session !== undefined && !sessionNamePattern.test(it.session))
    return 'a session on another CAS has no relative name';
  try {
    parseKeyHash(it.cas_key, 'cas_key');
    if (it.cas_url !== undefined) parseAddress(it.cas_url, defaultPorts.api, 'cas_url');
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

const importerHash = described(hex(64), 'The version that session must have');

const exportTarget = v.pipe(
  object({
    session: v.optional(described(sessionReference, 'The session that may import it')),
    session_hash: v.optional(importerHash),
    namespace: v.optional(described(sessionReference, 'This session, and everything below it')),
    ...remote,
  }),
  v.check(
    ({ session, namespace }) => (session === undefined) !== (namespace === undefined),
    'expected one of session and namespace',
  ),
  v.check(
    ({ namespace, session_hash, cas_key, cas_url }) =>
      namespace === undefined ||
      (session_hash === undefined && cas_key === undefined && cas_url === undefined),
    'a namespace is exported to without session_hash, and on this CAS alone',
  ),
  v.rawCheck(({ dataset, addIssue }) => {
    const message = dataset.typed ? otherCasProblem(dataset.value) : undefined;
    if (message !== undefined) addIssue({ message });
  }),
);
/** To whom a secret is exported. */
export type ExportTarget = v.InferOutput<typeof exportTarget>;

const exports = oneOrMany(textOr(sharingProblem, exportTarget) as v.GenericSchema<unknown, ExportTarget>);

const importSource = v.pipe(
  object({
    session: described(sessionReference, 'The session that exports the secret'),
    secret: described(name, 'Its name there'),
    session_hash: v.optional(described(hex(64), 'The version that the other session must have')),
    ...remote,
  }),
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed) return;
    const { cas_url, cas_key } = dataset.value;
    const message =
      otherCasProblem(dataset.value) ??
      (cas_key !== undefined && cas_url === undefined
        ? 'where is the other CAS? cas_url is missing'
        : undefined);
    if (message !== undefined) addIssue({ message });
  }),
);
/** Where a secret is imported from. */
export type ImportSource = v.InferOutput<typeof importSource>;

const volume = v.pipe(
  object({
    name: described(name, 'Named by the volumes of images'),
    fspf_key: v.optional(described(referenceOr(hex(64)), 'Key of the volume; absent: made at first use')),
    fspf_tag: v.optional(described(hex(32), 'Tag of the state that the volume must have')),
    files: v.optional(
      described(oneOf('encrypted', 'authenticated-only'), 'How its files are kept; default: encrypted'),
    ),
    export: v.optional(
      described(
        oneOrMany(
          textOr(
            sharingProblem,
            object({
              to: v.optional(
                described(textOr(sharingProblem, exportTarget), 'The session that may import it'),
              ),
              session: v.optional(described(sessionReference, 'The session that may import it')),
              session_hash: v.optional(importerHash),
              update_policy: v.optional(volumePolicy),
              volume_alias: v.optional(described(name, 'Its name for the importer')),
            }),
          ),
        ),
        'Sessions that may import the volume',
      ),
    ),
    import: v.optional(
      described(
        object({
          session: described(sessionReference, 'The session that exports the volume'),
          volume: described(name, 'Its name there'),
          session_hash: v.optional(described(hex(64), 'The version that the other session must have')),
        }),
        'Where the volume comes from',
      ),
    ),
  }),
  v.check(
    (it) =>
      it.import === undefined ||
      (it.fspf_key === undefined && it.fspf_tag === undefined && it.export === undefined),
    'an imported volume has no key, tag or export of its own',
  ),
);

// --- secrets

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
    described(duration, 'How long it is valid; it is made anew before. Absent: for ever'),
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

const hasKey =
  <Key extends string>(key: Key) =>
  (input: unknown): input is { [K in Key]: unknown } =>
    typeof input === 'object' && input !== null && Object.hasOwn(input, key);

const secret = pick([...Object.values(kinds), importedFromVault, imported], (input) => {
  if (hasKey('import')(input)) return imported;
  if (hasKey('import_akv')(input)) return importedFromVault;
  const kind = hasKey('kind')(input) && secretKinds.find((known) => known === input.kind);
  return kind ? kinds[kind] : noKind;
});

// --- security

const tolerable = choice(
  (input) => input === 'debug',
  v.pipe(
    v.literal('debug'),
    v.transform(() => 'debug-mode' as const),
  ),
  oneOf(
    'debug-mode',
    'hyperthreading',
    'insecure-igpu',
    'software-hardening-needed',
    'aepic-leak',
    'insecure-configuration',
    'outdated-tcb',
    'maa-managed-tcb',
    'local-attestation-trust-cas-tcb',
  ),
) as v.GenericSchema<string, string>;

const advisory = v.pipe(text, v.regex(/^(\*|INTEL-SA-\d{5})$/, 'expected "*" or INTEL-SA- and five digits'));

export const security = object({
  attestation: v.optional(
    described(
      referenceOr(
        object({
          mode: v.optional(
            described(referenceOr(oneOf('hardware', 'none', 'maa')), 'Default: hardware'),
            'hardware',
          ),
          tolerate: v.optional(
            described(referenceOr(list(referenceOr(tolerable))), 'Weaknesses that are accepted'),
            [],
          ),
          ignore_advisories: v.optional(
            described(referenceOr(oneOrMany(referenceOr(advisory))), 'Advisories that are accepted'),
            [],
          ),
          trusted_scone_qe_pubkeys: v.optional(
            described(referenceOr(list(referenceOr(hex(64)))), 'LAS keys that the policy trusts'),
            [],
          ),
          must_be_sgx_local: v.optional(described(boolean, 'Launchers run on the host of the CAS')),
          one_time_password_shared_secret: v.optional(oneTimePassword),
          url: v.optional(described(v.nullable(text), 'For mode maa')),
          certificates: v.optional(described(list(text), 'For mode maa')),
          min_rsa_signing_key_size: v.optional(described(integer(1024, 65536), 'For mode maa')),
        }),
      ),
      'How launchers are attested',
    ),
    {},
  ),
  singleton_enclaves: v.optional(
    described(referenceOr(boolean), 'Each process is given its configuration once'),
    false,
  ),
  service_access_token: v.optional(
    described(text, 'Token that the host gives in SCONE_SERVICE_ACCESS_TOKEN'),
  ),
});

// --- the document

export const session = v.pipe(
  object({
    name: described(sessionName, 'Name of the session; / separates namespaces'),
    version: described(
      v.pipe(
        text,
        v.regex(
          /^0\.3(\.([0-9]|1[0-2]))?$/,
          'expected a version of the session language from "0.3" to "0.3.12"',
        ),
      ),
      'Version of the session language',
    ),
    predecessor: v.optional(
      described(v.nullable(hex(64)), 'Hash of the version that this one replaces; none for a first version'),
      null,
    ),
    namespace_hash: v.optional(described(hex(64), 'Hash that the namespace must have when this is created')),
    salt: v.optional(described(hex(32), 'Once given, the session hash counts as public')),
    creator: v.optional(
      described(
        textOr(text, object({ signer: described(signerKey, 'Public key (PEM) that signs the session') })),
        'Who uploads the session: certificate, or public key that signs. Filled in by the CAS',
      ),
    ),
    access_policy: v.optional(described(referenceOr(accessPolicy), 'Who may do what'), {}),
    security: v.optional(described(referenceOr(security), 'Attestation and second factors'), {}),
    images: v.optional(described(list(image), 'Files of services'), []),
    services: v.optional(described(list(service), 'What may be launched'), []),
    secrets: v.optional(described(list(secret), 'Secrets, made, given or imported'), []),
    volumes: v.optional(described(list(volume), 'Volumes; stored, but not mounted by this launcher'), []),
    secret_config: v.optional(
      described(
        object({
          store_in: v.optional(
            described(
              choice(
                hasKey('!akv'),
                object({ '!akv': looseObject({}) }),
                object({ '!cas': v.optional(v.nullable(anyValue)) }),
              ),
              '!cas (default), or !akv {token, vault}',
            ),
          ),
        }),
        'Where secrets are kept',
      ),
    ),
  }),
  v.check(
    ({ predecessor, namespace_hash }) => predecessor === null || namespace_hash === undefined,
    'namespace_hash is for a first version, which has no predecessor',
  ),
);

/** A session as it was written, in normal form. */
export type Session = v.InferOutput<typeof session>;
export type Service = Session['services'][number];
export type Image = Session['images'][number];
export type SecretDefinition = Session['secrets'][number];
export type Security = v.InferOutput<typeof security>;
export type AccessPolicy = v.InferOutput<typeof accessPolicy>;

type Imported = Extract<SecretDefinition, { import: unknown } | { import_akv: unknown }>;

/** Whether a secret comes from another session, or another service. */
export function isImported(definition: SecretDefinition): definition is Imported {
  return 'import' in definition || 'import_akv' in definition;
}
