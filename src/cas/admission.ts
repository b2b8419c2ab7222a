import * as v from 'valibot';
import type { Expectation, Variant } from '../attestation/appraise.ts';
import { failure } from '../errors.ts';
import { security as securitySection } from '../policy/schema/security.ts';
import { attestationVariants, mrenclaves, platforms } from '../policy/schema/services.ts';
import type { Service } from '../policy/session.ts';
import { expandSection, literal } from './expand.ts';
import type { Resolver } from './secrets.ts';
import type { SessionVersion } from './versions.ts';

/** Who may be given a service's configuration, all variables filled in. */
export interface Admission extends Expectation {
  /** Base32. */
  oneTimePassword: string | undefined;
  accessToken: string | undefined;
  /** A process is given a configuration once. */
  singleton: boolean;
}

/**
 * The parts of a policy that decide over a launch.
 * @throws Failure POLICY_UNUSABLE or SECRET_UNAVAILABLE
 */
export async function admissionOf(
  resolver: Resolver,
  version: SessionVersion,
  service: Service,
): Promise<Admission> {
  const get = <Schema extends v.GenericSchema>(section: string, value: unknown, shape: Schema) =>
    expandSection(resolver, version, section, value, shape);
  const security = literal(await get('security', version.session.security, securitySection));
  const attestation = literal(security.attestation);
  // A variable can bring in what is refused at upload.
  if (attestation.mode === 'maa' || attestation.must_be_sgx_local)
    throw failure('POLICY_UNUSABLE', {
      section: 'security.attestation',
      detail: 'mode maa and must_be_sgx_local are not supported',
    });
  const written = literal(await get('attestation', service.attestation, attestationVariants));
  const inVariants = written.map(literal);
  const variants = inVariants.map(
    ({ mrenclave, signer }): Variant => ({
      ...(mrenclave !== undefined && { measurements: literal(mrenclave) }),
      ...(signer !== undefined && { signer: literal(signer) as NonNullable<Variant['signer']> }),
    }),
  );
  const measurements = await get('mrenclaves', service.mrenclaves, mrenclaves);
  if (measurements.length > 0) variants.push({ measurements });
  return {
    mode: attestation.mode === 'none' ? 'none' : 'hardware',
    tolerate: literal(attestation.tolerate),
    ignoreAdvisories: literal(attestation.ignore_advisories),
    variants,
    platforms: literal(await get('platforms', service.platforms, platforms)),
    trustedPlatforms: literal(attestation.trusted_scone_qe_pubkeys),
    oneTimePassword:
      (await ownSharedSecret(service, inVariants, get)) ?? attestation.one_time_password_shared_secret,
    accessToken: security.service_access_token,
    singleton: literal(security.singleton_enclaves) === true,
  };
}

/** The shared secret that the service names itself, which goes before that of the session. */
async function ownSharedSecret(
  service: Service,
  variants: { one_time_password_shared_secret?: string | undefined }[],
  get: <Schema extends v.GenericSchema>(
    section: string,
    value: unknown,
    shape: Schema,
  ) => Promise<v.InferOutput<Schema>>,
): Promise<string | undefined> {
  const key = 'one_time_password_shared_secret';
  const own = service[key] ?? variants.find((variant) => variant[key] !== undefined)?.[key];
  if (own === undefined) return undefined;
  return (await get(key, { [key]: own }, v.object({ [key]: v.string() })))[key];
}
