import * as v from 'valibot';
import { properties } from '../../attestation/claims.ts';
import { boolean, choice, hex, integer, list, object, oneOf, oneOrMany, text } from '../shapes.ts';
import { described, duration, oneTimePassword, referenceOr } from './values.ts';

/** `security`: attestation and second factors. */

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
          require: v.optional(
            described(
              referenceOr(list(referenceOr(oneOf(...properties)))),
              'What the LAS must have found in the process of a launcher; an addition to the language',
            ),
          ),
          ignore_advisories: v.optional(
            described(referenceOr(oneOrMany(referenceOr(advisory))), 'Advisories that are accepted'),
            [],
          ),
          trusted_scone_qe_pubkeys: v.optional(
            described(referenceOr(list(referenceOr(hex(64)), 20_000)), 'LAS keys that the policy trusts'),
            [],
          ),
          max_quote_age: v.optional(
            described(
              referenceOr(duration),
              'How old the Evidence of a LAS about its machine may be; default: 10m; an addition to the language',
            ),
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
    described(
      v.pipe(text, v.minLength(1, 'an empty token is none')),
      'Token that the host gives in SCONE_SERVICE_ACCESS_TOKEN',
    ),
  ),
});
