import * as v from 'valibot';
import { choice, hex, list, looseObject, object, text, textOr } from '../shapes.ts';
import { accessPolicy, signerKey } from './access-policy.ts';
import { image, volume } from './images.ts';
import { secret } from './secrets.ts';
import { security } from './security.ts';
import { service } from './services.ts';
import { anyValue, described, hasKey, referenceOr, sessionName } from './values.ts';

/**
 * The session language 0.3: the shape of a whole session, and its normal form. Input is a {@link Value}, in which all
 * scalars are text.
 */

export const session = v.pipe(
  object({
    name: described(sessionName, 'Name of the session; / separates namespaces'),
    version: described(
      v.pipe(
        text,
        v.regex(
          /^0\.3(\.([0-9]|1[0-2]))?$/,
          ({ input }) =>
            `expected a version of the session language from "0.3" to "0.3.12"${/^0\.[12](\.|$)/.test(input) ? '; an older one was written otherwise, and is not understood' : ''}`,
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
