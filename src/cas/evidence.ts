import { emptyCollateral } from '../attestation/collateral.ts';
import { type VerifiedEvidence, verifyEvidence } from '../attestation/evidence.ts';
import { type Endorsements, needOf } from '../attestation/hardware.ts';
import type { HardwareEvidence } from '../attestation/hardware-evidence.ts';
import { reportData } from '../attestation/report-data.ts';
import { failure } from '../errors.ts';
import { formatConfigId } from '../policy/names.ts';
import type { Cas } from './cas.ts';
import type { LaunchAttempt } from './second-factors.ts';

/**
 * Claims of the Evidence of a launch, which must have been made over this very connection, for this very service.
 * @throws Failure as {@link verifyEvidence}, or EVIDENCE_STALE
 */
export async function verifyLaunchEvidence(
  cas: Cas,
  { request, connection: { channel } }: LaunchAttempt,
): Promise<VerifiedEvidence | undefined> {
  const { evidence, hardware } = request;
  if (evidence === undefined && hardware === undefined) return undefined;
  const claims = await verifyEvidence({ evidence, hardware }, (each) => endorse(cas, each), cas.clock());
  const configId = formatConfigId(request);
  const expected = reportData({ role: 'launcher', channel, casKey: cas.key, configId });
  if (!claims.reportData.equals(expected))
    throw failure('EVIDENCE_INVALID', { detail: 'it was made for another connection, CAS or service' });
  const { boot } = claims;
  if (boot && !(await cas.store.noteBoot(Buffer.from(boot.key, 'hex'), boot.resetCount, boot.restartCount)))
    throw failure('EVIDENCE_STALE', { detail: 'the TPM was reset or resumed since' });
  return claims;
}

/**
 * What hardware Evidence is checked with.
 * @throws Failure COLLATERAL_MISSING, or EVIDENCE_INVALID where it cannot be read
 */
export async function endorse(cas: Cas, hardware: HardwareEvidence): Promise<Endorsements> {
  const roots = cas.hardwareRoots && { roots: cas.hardwareRoots };
  const need = needOf(hardware, { roots: cas.hardwareRoots, at: cas.clock() });
  if (need.kind !== 'tpm') return { collateral: await cas.collateral.forQuote(need), ...roots };
  const enrolled = await cas.store.endorsementKey(Buffer.from(need.key, 'hex'));
  return { collateral: emptyCollateral, ...(enrolled && { platform: `TPM_EK:${enrolled.toString('hex')}` }) };
}

/**
 * What a CAS wants before it goes on: Evidence about the machine over the nonce.
 */
export class Challenge extends Error {
  readonly nonce: Buffer;
  constructor(nonce: Buffer) {
    super('Evidence about the machine is to be made anew');
    this.nonce = nonce;
  }
}

/**
 * Checks how old the Evidence about a machine is. What was made for a challenge on this very connection is fresh.
 * @throws Challenge where it is too old; Failure EVIDENCE_STALE where it still is, after a challenge
 */
export function checkAge(
  cas: Cas,
  { connection }: LaunchAttempt,
  claims: VerifiedEvidence | undefined,
  most: number,
): void {
  if (!claims?.nonce) return;
  const now = cas.clock();
  const { challenge } = connection;
  if (challenge?.equals(claims.nonce)) return;
  if ((cas.machineNonces.age(claims.nonce, now) ?? Number.POSITIVE_INFINITY) <= most) return;
  if (challenge)
    throw failure('EVIDENCE_STALE', { detail: 'it was asked for anew, and the same came again' });
  const nonce = cas.machineNonces.issue(now);
  connection.challenge = nonce;
  throw new Challenge(nonce);
}
