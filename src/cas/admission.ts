import type { Expectation, Variant } from '../attestation/appraise.ts';
import { failure } from '../errors.ts';
import { expectedMachines } from '../policy/machines.ts';
import type { Section } from '../policy/sections.ts';
import { variantsOf } from '../policy/service.ts';
import type { Service } from '../policy/session.ts';
import { parseDuration } from '../secrets/duration.ts';
import { expandSection, literal } from './expand.ts';
import { NoFragment, type Resolver } from './secrets.ts';
import type { SessionVersion } from './versions.ts';

/** What Evidence a launcher is asked for. */
export interface EvidenceDemand {
  mode: Expectation['mode'];
  /** How old what a LAS shows of its machine may be, in milliseconds. */
  maxQuoteAge: number;
}

/** Which launchers may be given a service's configuration, all variables filled in. */
export interface Admission extends Expectation, EvidenceDemand {
  /** A process is given a configuration once. */
  singleton: boolean;
}

/** What a launcher has to know beside. */
export interface Factors {
  /** Base32. */
  oneTimePassword: string | undefined;
  accessToken: string | undefined;
}

const MAX_QUOTE_AGE = 600_000;
const OTP = 'one_time_password_shared_secret';
const TOKEN = 'service_access_token';
const isDemand = (key: string) => ['attestation', 'mode', 'max_quote_age'].includes(key);
const isNoFactor = (key: string) => key !== OTP && key !== TOKEN;

type Of<Result> = (resolver: Resolver, version: SessionVersion, service: Service) => Promise<Result>;

async function attestationOf(
  ...[resolver, version, wants]: [Resolver, SessionVersion, (key: string) => boolean]
) {
  const section = await expandSection(resolver, version, 'security', version.session.security, wants);
  const security = literal(section);
  const attestation = literal(security.attestation);
  // A variable can bring in what is refused at upload.
  if (attestation.mode === 'maa' || attestation.must_be_sgx_local)
    throw failure('POLICY_UNUSABLE', {
      section: 'security.attestation',
      detail: 'mode maa and must_be_sgx_local are not supported',
    });
  const demand: EvidenceDemand = {
    mode: attestation.mode === 'none' ? 'none' : 'hardware',
    maxQuoteAge: parseDuration(attestation.max_quote_age ?? '') ?? MAX_QUOTE_AGE,
  };
  return { security, attestation, demand };
}

/**
 * What decides before anything else is looked at, and nothing else: config-fragments of this CAS alone are read for it. Where
 * more would have to be known, Evidence is asked for first.
 * @throws Failure POLICY_UNUSABLE or SECRET_UNAVAILABLE
 */
export const evidenceDemandOf: Of<EvidenceDemand> = async (resolver, version) => {
  try {
    const reading = { ...resolver, find: resolver.findFragment };
    return (await attestationOf(reading, version, isDemand)).demand;
  } catch (error) {
    if (!(error instanceof NoFragment)) throw error;
    return { mode: 'hardware', maxQuoteAge: MAX_QUOTE_AGE };
  }
};

/**
 * The parts of a policy that decide over a launcher by its Evidence.
 * @throws Failure POLICY_UNUSABLE or SECRET_UNAVAILABLE
 */
export const admissionOf: Of<Admission> = async (resolver, version, service) => {
  const get = <Name extends Section>(name: Name, value: unknown) =>
    expandSection(resolver, version, name, value, isNoFactor);
  const { security, attestation, demand } = await attestationOf(resolver, version, isNoFactor);
  const isSingleton = literal(security.singleton_enclaves) === true;
  if (isSingleton && demand.mode === 'none')
    throw failure('POLICY_UNUSABLE', {
      section: 'security.singleton_enclaves',
      detail: 'a process is known by Evidence alone, which attestation mode none does not ask for',
    });
  const require = literal(attestation.require ?? []);
  if (require.length > 0 && demand.mode === 'none')
    throw failure('POLICY_UNUSABLE', {
      section: 'security.attestation.require',
      detail: 'properties are known by Evidence alone, which attestation mode none does not ask for',
    });
  const written = literal(await get('attestation', service.attestation));
  const inVariants = written.map(literal);
  const variants = inVariants.map(
    ({ mrenclave, signer, run_as, ...machines }): Variant => ({
      ...(mrenclave !== undefined && { measurements: literal(mrenclave) }),
      ...(signer !== undefined && { signer: literal(signer) as NonNullable<Variant['signer']> }),
      ...expectedMachines(machines),
      ...(run_as !== undefined && { runAs: literal(run_as) }),
    }),
  );
  const measurements = await get('mrenclaves', service.mrenclaves);
  if (measurements.length > 0) variants.push({ measurements });
  return {
    ...demand,
    tolerate: literal(attestation.tolerate),
    require,
    ignoreAdvisories: literal(attestation.ignore_advisories),
    variants,
    platforms: literal(await get('platforms', service.platforms)),
    trustedPlatforms: literal(attestation.trusted_scone_qe_pubkeys),
    singleton: isSingleton,
  };
};

/**
 * What a launcher has to know beside its Evidence; a secret, so it is looked at once that was right.
 * @throws Failure POLICY_UNUSABLE or SECRET_UNAVAILABLE
 */
export const factorsOf: Of<Factors> = async (resolver, version, service) => {
  const { security } = version.session;
  const isToken = (key: string) => key === TOKEN;
  // One after the other: of two that fail at once, the second would be an error that nobody handles.
  const oneTimePassword = await sharedSecretOf(resolver, version, service);
  const section = await expandSection(resolver, version, 'security', security, isToken);
  return { oneTimePassword, accessToken: literal(section).service_access_token };
};

/**
 * The shared secret of a service's one-time passwords: its own, which goes before that of the session.
 * @throws Failure POLICY_UNUSABLE or SECRET_UNAVAILABLE
 */
export async function sharedSecretOf(
  resolver: Resolver,
  version: SessionVersion,
  service: Service,
): Promise<string | undefined> {
  const { attestation } = service;
  let written = service[OTP] ?? variantsOf(service).find((variant) => variant[OTP] !== undefined)?.[OTP];
  // It may come with a variable that stands for a variant, or for a whole section.
  const isVariable = typeof attestation === 'string' || attestation.some((it) => typeof it === 'string');
  if (written === undefined && isVariable) {
    const section = expandSection(resolver, version, 'attestation', attestation);
    const found = literal(await section)
      .map(literal)
      .find((variant) => variant[OTP] !== undefined)?.[OTP];
    if (found !== undefined) return found;
  }
  if (written === undefined) {
    const { security } = version.session;
    if (typeof security === 'string' || typeof security.attestation === 'string') {
      const section = literal(await expandSection(resolver, version, 'security', security));
      return literal(section.attestation)[OTP];
    }
    written = security.attestation[OTP];
  }
  if (written === undefined) return undefined;
  return (await expandSection(resolver, version, OTP, { [OTP]: written }))[OTP];
}
