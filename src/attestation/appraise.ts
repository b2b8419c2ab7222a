import { type Failure, failure } from '../errors.ts';
import type { Claims } from './claims.ts';

/** What a policy and the CAS's operator expect (RFC 9334: Reference Values and Appraisal Policy). */
export interface Expectation {
  mode: 'hardware' | 'none';
  tolerate: readonly string[];
  /** Admitted measurements; any one suffices. */
  measurements: readonly string[];
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
  const { measurement, platform, debug } = claims;
  // Who is vouched for by nobody that counts learns nothing of what would be expected.
  if (!expected.trustedPlatforms.includes(platform) && !expected.platforms.includes(platform))
    return [failure('PLATFORM_UNTRUSTED', { platform })];
  const refusals: Failure[] = [];
  if (!expected.measurements.includes(measurement))
    refusals.push(
      failure('MEASUREMENT_UNEXPECTED', {
        actual: measurement,
        expected: shorten(expected.measurements) || 'none',
      }),
    );
  if (debug && !expected.tolerate.includes('debug-mode')) refusals.push(failure('DEBUG_NOT_TOLERATED'));
  if (expected.platforms.length > 0 && !expected.platforms.includes(platform))
    refusals.push(failure('PLATFORM_NOT_ALLOWED', { platform }));
  return refusals;
}
