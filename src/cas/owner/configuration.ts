import * as v from 'valibot';
import { parseKeyHash } from '../../policy/key-hash.ts';

/**
 * What the owner of a CAS says about it, as TOML, JSON or YAML: all that security rests on. What a host needs to run it is in
 * another file, which its administrator writes (cas-configuration.ts).
 */
const text = (most: number) => v.pipe(v.string(), v.minLength(1), v.maxLength(most));
const noKeyHash = 'is no key hash, as `scone self show-key-hash` prints it';
/** As people write it, or as 64 hexadecimal digits. */
const keyHash = v.pipe(
  v.string(noKeyHash),
  v.rawTransform(({ dataset: { value }, addIssue, NEVER }) => {
    if (/^[0-9a-f]{64}$/i.test(value)) return value.toLowerCase();
    try {
      return parseKeyHash(value, 'a key hash').toString('hex');
    } catch {
      addIssue({ message: noKeyHash });
      return NEVER;
    }
  }),
);
const digest = v.pipe(v.string(), v.regex(/^([0-9a-f]{64})$/i, 'has 64 hexadecimal digits'), v.toLowerCase());

export const ownerConfiguration = v.strictObject({
  /** What the certificate of the CAS says. */
  api_identity: v.optional(
    v.strictObject({
      common_name: text(64),
      alt_names: v.optional(v.pipe(v.array(text(253)), v.maxLength(64)), []),
      country_name: v.optional(text(2)),
      org_name: v.optional(text(64)),
      state_or_province: v.optional(text(64)),
      locality: v.optional(text(64)),
      email: v.optional(text(254)),
    }),
  ),
  /** Further owners, by the hashes of their keys. */
  owners: v.optional(v.pipe(v.array(keyHash), v.maxLength(64)), []),
  /** LAS keys that are trusted for all sessions. */
  trusted_platforms: v.optional(v.pipe(v.array(digest), v.maxLength(4096)), []),
  /** An audit log is always kept, and always signed. */
  audit_log: v.optional(
    v.strictObject({
      mode: v.literal('signed', 'is always signed'),
      sink: v.optional(v.literal('file', 'is the store; `scone cas read-audit-log` brings it elsewhere')),
    }),
  ),
  // What other implementations need, and this one does not.
  enclave_reconnect_timeout: v.optional(text(32)),
  ias: v.optional(v.unknown()),
  dcap: v.optional(v.unknown()),
});
export type OwnerConfiguration = v.InferOutput<typeof ownerConfiguration>;

/** Parts that are accepted and change nothing. */
export function unusedParts(configuration: OwnerConfiguration): string[] {
  const { api_identity, ...rest } = configuration;
  const subject = ['country_name', 'org_name', 'state_or_province', 'locality', 'email'] as const;
  return [
    ...(['enclave_reconnect_timeout', 'ias', 'dcap'] as const).filter((name) => rest[name] !== undefined),
    ...subject.filter((name) => api_identity?.[name] !== undefined).map((name) => `api_identity.${name}`),
  ];
}
