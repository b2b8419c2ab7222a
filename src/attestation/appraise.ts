import { type Failure, failure } from '../errors.ts';
import type { Claims } from './claims.ts';
import { runAsRefusal } from './credentials.ts';
import { describeMachine, differences, type ExpectedMachines, isOutdated, type Machine } from './machine.ts';
import { explainWeakness } from './weaknesses.ts';

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
  /** Machines that it may run on; with any, on no others, so not where software alone vouches. */
  machines?: ExpectedMachines;
  /** As whom it may run, in the words of credentials.ts; any one suffices. */
  runAs?: readonly string[];
}

/** What a policy and the CAS's operator expect (RFC 9334: Reference Values and Appraisal Policy). */
export interface Expectation {
  mode: 'hardware' | 'none';
  tolerate: readonly string[];
  /** Properties that the LAS must have found in the process. */
  require: readonly string[];
  /** Security advisories that may apply to the platform; `*` is any, where debug-mode is tolerated too. */
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
  const { platform, root } = claims;
  // Who is vouched for by nobody that counts learns nothing of what would be expected.
  const isTrusted = expected.trustedPlatforms.includes(platform) || expected.platforms.includes(platform);
  if (root === 'software' && !isTrusted) return [failure('PLATFORM_UNTRUSTED', { platform })];
  if (claims.unchecked !== undefined) return [failure('COLLATERAL_MISSING', { what: claims.unchecked })];

  const launchers = expected.variants.filter(
    (variant) => isMeasured(variant, claims) && isSigned(variant, claims),
  );
  // Each variant may ask for another machine; the one that comes nearest says what is missing.
  const [nearest] = launchers
    .map((variant) => [
      ...machineRefusals(variant, claims),
      ...runAsRefusals(variant, claims),
      ...weaknessRefusals(expected, variant, claims),
    ])
    .toSorted((a, b) => a.length - b.length);
  const refusals = nearest ?? [
    launcherRefusal(expected.variants, claims),
    ...weaknessRefusals(expected, undefined, claims),
  ];
  for (const property of expected.require)
    if (!claims.properties?.includes(property)) refusals.push(failure('PROPERTY_MISSING', { property }));
  if (expected.platforms.length > 0 && !expected.platforms.includes(platform))
    refusals.push(failure('PLATFORM_NOT_ALLOWED', { platform }));
  return refusals;
}

/** Refusals as one, each the cause of the one before. */
export function chained(refusals: readonly Failure[]): Failure | undefined {
  return refusals.reduceRight<Failure | undefined>((inner, refusal) => {
    if (inner) refusal.cause = inner;
    return refusal;
  }, undefined);
}

const isMeasured = ({ measurements }: Variant, { measurement }: Claims) =>
  measurements?.includes(measurement) ?? true;

const isSigned = ({ signer: expected }: Variant, { signer }: Claims) =>
  expected === undefined ||
  (signer !== undefined &&
    expected.mrsigner === signer.mrsigner &&
    expected.isvprodid === signer.isvprodid &&
    (expected.isvsvn ?? signer.isvsvn) === signer.isvsvn &&
    (expected.isvsvn_min ?? 0) <= signer.isvsvn &&
    (expected.isvsvn_max ?? Number.POSITIVE_INFINITY) >= signer.isvsvn);

/** Why no variant admits the launcher. */
function launcherRefusal(variants: readonly Variant[], claims: Claims): Failure {
  const { measurement, signer } = claims;
  if (variants.some((variant) => isMeasured(variant, claims))) {
    const actual = signer
      ? `MRSIGNER ${signer.mrsigner}, product ${signer.isvprodid}, version ${signer.isvsvn}`
      : 'the Evidence names no signer';
    return failure('SIGNER_UNEXPECTED', { actual });
  }
  const expected = shorten(variants.flatMap(({ measurements = [] }) => measurements)) || 'none';
  return failure('MEASUREMENT_UNEXPECTED', { actual: measurement, expected });
}

/**
 * A LAS under hardware made its key itself and can be any program, so only the measurements of its machine say that it
 * measures as it should. An enclave is its own proof.
 */
function machineRefusals({ machines }: Variant, { root, machine }: Claims): Failure[] {
  if (!machine) {
    const wanted = Object.keys(machines ?? {});
    return wanted.length > 0 ? [failure('MACHINE_MISSING', { root, wanted: wanted.join(' or ') })] : [];
  }
  const expected = machines?.[machine.kind];
  if (!expected)
    return [failure('MACHINE_UNNAMED', { kind: machine.kind, machine: describeMachine(machine) })];
  return differences(machine, expected).map((name) =>
    failure('MACHINE_UNEXPECTED', {
      kind: machine.kind,
      name,
      actual: machine.values[name] ?? 'not told',
      expected: shorten(expected.values[name] ?? []),
    }),
  );
}

/** An enclave keeps its user out by itself. */
function runAsRefusals({ runAs }: Variant, { root, credentials }: Claims): Failure[] {
  const refusal = runAs && root !== 'sgx' && runAsRefusal(runAs, credentials);
  return refusal ? [refusal] : [];
}

function weaknessRefusals(expected: Expectation, variant: Variant | undefined, claims: Claims): Failure[] {
  const { root, debug, machine, advisories = [] } = claims;
  const minimum = machine && variant?.machines?.[machine.kind];
  const outdated = machine && isOutdated(machine, minimum) ? ['outdated-tcb'] : [];
  const all = new Set([...(debug ? ['debug-mode'] : []), ...(claims.weaknesses ?? []), ...outdated]);
  const tolerate = [...all].filter((weakness) => !expected.tolerate.includes(weakness));
  const implied = expected.tolerate.flatMap((weakness) => advisoryOf[weakness] ?? []);
  const ignored = [...expected.ignoreAdvisories, ...implied];
  const ignoresAll = ignored.includes('*') && expected.tolerate.includes('debug-mode');
  const ignore = advisories.filter((advisory) => !ignoresAll && !ignored.includes(advisory));
  const refusals = tolerate.map((weakness) =>
    weakness === 'debug-mode'
      ? failure('DEBUG_NOT_TOLERATED', { detail: root === 'software' ? SOFTWARE : DEBUG })
      : failure('WEAKNESS_NOT_TOLERATED', { weakness: explain(weakness, machine, outdated.length > 0) }),
  );
  if (ignore.length > 0) refusals.push(failure('ADVISORIES_NOT_IGNORED', { advisories: ignore.join(', ') }));
  if (refusals.length > 0 && root !== 'software') {
    const entries = [
      ...(tolerate.length > 0 ? [`tolerate: [${tolerate.join(', ')}]`] : []),
      ...(ignore.length > 0 ? [`ignore_advisories: [${ignore.join(', ')}]`] : []),
    ];
    refusals.push(failure('TOLERANCE_MISSING', { entries: entries.join(', ') }));
  }
  return refusals;
}

const SOFTWARE =
  'the Evidence is vouched for by software alone (debug): whoever administers the host could have made it';
const DEBUG =
  'the enclave or virtual machine is in debug mode: whoever administers the host can look into it';

/** Weaknesses that are one advisory under another name. */
export const advisoryOf: Readonly<Record<string, string>> = {
  hyperthreading: 'INTEL-SA-00233',
  'insecure-igpu': 'INTEL-SA-00219',
  'aepic-leak': 'INTEL-SA-00657',
};

function explain(weakness: string, machine: Machine | undefined, isBelowMinimum: boolean): string {
  const meaning = explainWeakness(weakness);
  if (weakness !== 'outdated-tcb' || !isBelowMinimum || !machine?.tcb) return meaning;
  const versions = Object.entries(machine.tcb).map(([part, version]) => `${part} ${version}`);
  return `${meaning}, or the policy names no minimum_tcb: it is ${versions.join(', ')}`;
}
