import { timingSafeEqual } from 'node:crypto';
import * as v from 'valibot';
import { reportData } from '../attestation/report-data.ts';
import { failure, reason } from '../errors.ts';
import { makeNonDumpable } from '../platform/libc.ts';
import { formatAddress } from '../policy/address.ts';
import { parseKeyHash } from '../policy/key-hash.ts';
import { formatConfigId } from '../policy/names.ts';
import { accessTokenProof } from '../protocol/access-token.ts';
import { PINNED_BY_ATTEST, pinnedKey } from '../protocol/client-state.ts';
import { checkKey, connectCas } from '../protocol/connect.ts';
import { frames, MalformedFrame } from '../protocol/frame.ts';
import { connectLas, type LasConnection } from '../protocol/las.ts';
import {
  CONFIGURATION_LIMIT,
  type Configuration,
  channelBinding,
  granted,
  LAUNCH_PROTOCOL,
  type LaunchRequest,
} from '../protocol/launch.ts';
import { Refused, refusal } from '../protocol/refusal.ts';
import type { Settings } from './settings.ts';

/** How long CAS and LAS together may take. */
const PATIENCE = 10_000;
/** How long the LAS may take of it, so that a launch that needs no Evidence can go on without. */
const LAS_PATIENCE = 6_000;

/**
 * Gets the configuration of a service from the CAS: connects to CAS and LAS, checks the CAS's key, has the
 * LAS vouch for this process on this connection, and asks.
 *
 * Evidence comes first, then this process makes itself unreadable, then it asks: a LAS of the same user could
 * not look at it any more otherwise, and no secret is here before.
 *
 * @throws Failure of either, LAUNCH_REFUSED with the CAS's reasons as causes, or ACCESS_TOKEN_UNPROVEN
 */
export async function obtain(settings: Settings): Promise<Configuration> {
  const { configId } = settings;
  const now = Date.now();
  const deadline = now + PATIENCE;
  const address = formatAddress(settings.cas);
  const [cas, las] = await Promise.all([
    connectCas(settings.cas, { minVersion: 'TLSv1.3', ALPNProtocols: [LAUNCH_PROTOCOL] }, deadline),
    connectLas(settings.las, address, now + LAS_PATIENCE).catch((error: unknown) => ({ error })),
  ]);
  const { key, source } = expectedKey(settings, las);
  checkKey(cas, key, source);

  const channel = channelBinding(cas.socket);
  const context = { channel, casKey: key, configId: formatConfigId(configId) };
  const proof = (role: 'launcher' | 'cas') =>
    settings.accessToken === undefined
      ? undefined
      : accessTokenProof(settings.accessToken, { role, ...context });
  let evidence: string | undefined;
  // Whether Evidence is needed is for the CAS to say; if it is, this says why there is none.
  let without: unknown;
  try {
    if ('error' in las) throw las.error;
    evidence = await las.evidence(reportData({ role: 'launcher', ...context }));
    las.close();
  } catch (error) {
    without = error;
  }
  makeNonDumpable();

  const accessToken = proof('launcher')?.toString('base64');
  const request: LaunchRequest = {
    ...configId,
    ...(evidence !== undefined && { evidence }),
    ...(accessToken !== undefined && { accessToken }),
  };
  const stream = frames(cas.socket, CONFIGURATION_LIMIT);
  let answer: unknown;
  try {
    stream.write(request);
    answer = await stream.read(deadline);
  } catch (error) {
    if (error instanceof MalformedFrame) throw failure('CAS_PROTOCOL', { address, detail: error.message });
    throw failure('CAS_UNREACHABLE', { address, detail: reason(error) });
  }
  cas.socket.destroy();
  const refused = v.safeParse(refusal, answer);
  if (refused.success) throw launchRefused(new Refused(refused.output), without);
  const parsed = v.safeParse(granted, answer);
  // The issue's own text may quote what was received, so only its place is named.
  if (!parsed.success)
    throw failure('CAS_PROTOCOL', { address, detail: `at ${v.getDotPath(parsed.issues[0]) ?? 'the top'}` });
  const expected = proof('cas');
  if (expected && !isEqual(parsed.output.accessToken, expected))
    throw failure('ACCESS_TOKEN_UNPROVEN', { address });
  return parsed.output.configuration;
}

function isEqual(actual: Buffer | undefined, expected: Buffer): boolean {
  return actual?.length === expected.length && timingSafeEqual(actual, expected);
}

/** The key that the CAS must have, and who says so. There is no trust on first use. */
function expectedKey({ cas, casKey, hostEnvironment }: Settings, las: LasConnection | { error: unknown }) {
  if (casKey) return { key: casKey, source: 'by SCONE_CAS_KEY' };
  if ('casKey' in las && las.casKey)
    return { key: parseKeyHash(las.casKey, "the LAS's answer"), source: 'by the LAS' };
  const key = pinnedKey(hostEnvironment, cas);
  if (key) return { key, source: PINNED_BY_ATTEST };
  // Told along, but what decides is that no key is known: not every launch needs a LAS.
  const aside = 'error' in las ? new Error(reason(las.error)) : undefined;
  throw failure('CAS_KEY_UNKNOWN', { address: formatAddress(cas), host: cas.host }, aside);
}

function launchRefused(refused: Refused, without: unknown): Error {
  if (refused.code === 'EVIDENCE_MISSING' && without !== undefined) refused.cause = without;
  return failure(
    'LAUNCH_REFUSED',
    failure(
      'CAS_ANSWER_REFUSAL',
      { detail: 'Failed to retrieve service attestation configuration' },
      refused,
    ),
  );
}
