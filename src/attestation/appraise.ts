import { type Failure, failure } from '../errors.ts';
import type { Claims } from './claims.ts';

/** A launcher that is admitted: every property that is given must be as expected. */
export interface Variant {
  measurements?: readonly string[];
  signer?: {
    mrsigner: string;
    isvprodid: number;
    isvsvn?: number | undefined;
    isvsvn_min?: number | undefined;
    isvsvn_max?: number | undefined;
  };
}

/** What a policy and the CAS's operator expect (RFC 9334: Reference Values and Appraisal Policy). */
export interface Expectation {
  mode: 'hardware' | 'none';
  tolerate: readonly string[];
  /** Properties that the LAS must have found in the process. */
  require: readonly string[];
  /** What a security advisory may say of the platform; `*` is anything. */
  ignoreAdvisories: readonly string[];
  /** Launchers that are admitted; any one suffices. */
  variants: readonly Variant[];
  /** Where the service may run; empty is anywhere. */
  platforms: readonly string[];
  /** LAS keys that the operator or the policy trusts. */
  trustedPlatforms: readonly string[];
}

/** The first few, so that a message stays one that can be read. */
function shorten(measurements: readonly string[]): string {
  const others = measurements.length - 4;
  return [...measurements.slice(0, 4), ...(others > 0 ? [`one of ${others} others`] : [])].join(' or ');
}

/**
 * Decides whether a launcher is admitted.
 * @param claims of verified Evidence, or undefined where none was sent
 * @returns one refusal for each factor that failed; none when it is admitted
 */
export function appraise(expected: Expectation, claims: Claims | undefined): Failure[] {
  if (expected.mode === 'none') return [];
  if (!claims) return [failure('EVIDENCE_MISSING')];
  const { platform, debug } = claims;
  // Who is vouched for by nobody that counts learns nothing of what would be expected.
  if (!expected.trustedPlatforms.includes(platform) && !expected.platforms.includes(platform))
    return [failure('PLATFORM_UNTRUSTED', { platform })];
  const refusals = [...launcherRefusals(expected.variants, claims)];
  if (debug && !expected.tolerate.includes('debug-mode')) refusals.push(failure('DEBUG_NOT_TOLERATED'));
  for (const property of expected.require)
    if (!claims.properties?.includes(property)) refusals.push(failure('PROPERTY_MISSING', { property }));
  for (const weakness of claims.weaknesses ?? [])
    if (!expected.tolerate.includes(weakness)) refusals.push(failure('WEAKNESS_NOT_TOLERATED', { weakness }));
  for (const advisory of claims.advisories ?? [])
    if (!expected.ignoreAdvisories.some((ignored) => ignored === '*' || ignored === advisory))
      refusals.push(failure('ADVISORY_NOT_IGNORED', { advisory }));
  if (expected.platforms.length > 0 && !expected.platforms.includes(platform))
    refusals.push(failure('PLATFORM_NOT_ALLOWED', { platform }));
  return refusals;
}

function launcherRefusals(variants: readonly Variant[], { measurement, signer }: Claims): Failure[] {
  const isMeasured = ({ measurements }: Variant) => measurements?.includes(measurement) ?? true;
  const isSigned = ({ signer: expected }: Variant) =>
    expected === undefined ||
    (signer !== undefined &&
      expected.mrsigner === signer.mrsigner &&
      expected.isvprodid === signer.isvprodid &&
      (expected.isvsvn ?? signer.isvsvn) === signer.isvsvn &&
      (expected.isvsvn_min ?? 0) <= signer.isvsvn &&
      (expected.isvsvn_max ?? Number.POSITIVE_INFINITY) >= signer.isvsvn);
  if (variants.some((variant) => isMeasured(variant) && isSigned(variant))) return [];
  const measured = variants.filter(isMeasured);
  if (measured.length > 0) {
    const actual = signer
      ? `MRSIGNER ${signer.mrsigner}, product ${signer.isvprodid}, version ${signer.isvsvn}`
      : 'the Evidence names no signer';
    return [failure('SIGNER_UNEXPECTED', { actual })];
  }
  const expected = shorten(variants.flatMap(({ measurements = [] }) => measurements)) || 'none';
  return [failure('MEASUREMENT_UNEXPECTED', { actual: measurement, expected })];
}
