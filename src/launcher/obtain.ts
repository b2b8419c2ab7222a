import { randomBytes, timingSafeEqual } from 'node:crypto';
import * as v from 'valibot';
import type { Evidence } from '../attestation/hardware-evidence.ts';
import { reportData } from '../attestation/report-data.ts';
import { failure, reason } from '../errors.ts';
import { enclaveQuote, isInEnclave } from '../platform/gramine.ts';
import { hide, isHidden, seenBy } from '../platform/hidden.ts';
import { closeOthersOnExec, lockMemory, prepareCalls } from '../platform/libc.ts';
import { hasSwap } from '../platform/process.ts';
import { noteBlocking } from '../platform/standard-streams.ts';
import { formatAddress } from '../policy/address.ts';
import { parseKeyHash } from '../policy/key-hash.ts';
import { formatConfigId } from '../policy/names.ts';
import { accessTokenProof } from '../protocol/access-token.ts';
import { PINNED_BY_ATTEST, pinnedKey } from '../protocol/client-state.ts';
import { checkKey, connectCas } from '../protocol/connect.ts';
import { frames, MalformedFrame } from '../protocol/frame.ts';
import { connectLas, type LasConnection } from '../protocol/las.ts';
import {
  type ArrivedMessage,
  CONFIGURATION_LIMIT,
  type Configuration,
  challenge,
  changed,
  channelBinding,
  granted,
  LAUNCH_PROTOCOL,
  LAUNCH_PROTOCOLS,
  type LaunchRequest,
} from '../protocol/launch.ts';
import { Refused, refusal } from '../protocol/refusal.ts';
import type { Settings } from './settings.ts';

/** How long CAS and LAS together may take for one answer. */
const PATIENCE = 10_000;
/** How long the LAS may take of it, so that a launch that needs no Evidence can go on without. */
const LAS_PATIENCE = 6_000;

/** A connection to a CAS that has proven the expected key. */
export interface CasSession {
  /**
   * Asks for the configuration of the service: has the LAS vouch for this process on this connection, and sends one
   * request. Every call is attested anew.
   *
   * Evidence comes first, then this process makes itself unreadable, then it asks: no secret is here before.
   *
   * @throws Failure of CAS or LAS, LAUNCH_REFUSED with the CAS's reasons as causes, or ACCESS_TOKEN_UNPROVEN
   */
  ask(): Promise<Configuration>;
  /** Waits until the CAS says that the configuration has changed. @throws Failure when the connection ends */
  changed(): Promise<void>;
  close(): void;
}

/** One launch, which may take several connections. */
export interface Launch {
  /** 32 random bytes in base64, by which the CAS knows it again where it was cut off. */
  attempt?: string;
}

/** Made as late as can be: by then Node has loaded its cryptography while it waited for others. */
function attemptOf(launch: Launch): string {
  launch.attempt ??= randomBytes(32).toString('base64');
  return launch.attempt;
}

type Las = LasConnection | { error: unknown };

/**
 * Connects to CAS and LAS at once, and checks the CAS's key.
 * @param launch for each of the connections that are made for it
 * @throws Failure CAS_UNREACHABLE, CAS_PROTOCOL, CAS_KEY_UNKNOWN or CAS_KEY_MISMATCH
 */
export async function openSession(settings: Settings, launch?: Launch): Promise<CasSession> {
  const { configId, log, mode } = settings;
  const now = Date.now();
  const address = formatAddress(settings.cas);
  const reachLas = (deadline: number): Promise<Las> => {
    const reach = () => connectLas(settings.las, address, deadline);
    return (isHidden() ? seenBy(settings.las, reach) : reach()).catch((error: unknown) => ({ error }));
  };
  log('TRACE', `connecting to the CAS at ${address} and the LAS at ${settings.las}`);
  // Done while the others are at work on what they were sent.
  setImmediate(() => {
    prepareCalls();
    closeOthersOnExec();
    noteBlocking();
  });
  const [cas, firstLas] = await Promise.all([
    connectCas(settings.cas, { ALPNProtocols: LAUNCH_PROTOCOLS }, now + PATIENCE),
    reachLas(now + LAS_PATIENCE),
  ]);
  const { key, source } = expectedKey(settings, firstLas);
  checkKey(cas, key, source);
  log('DEBUG', `the CAS at ${address} has the key that is pinned ${source}`);
  cas.socket.setKeepAlive(true, 30_000);
  const stream = frames(cas.socket, CONFIGURATION_LIMIT);
  let round = 0;
  let reached: Las | undefined = firstLas;

  const exchange = async (message: LaunchRequest | undefined, deadline: number | undefined) => {
    try {
      if (message) {
        stream.write(message);
        // Takes milliseconds, in some of which the CAS is at work.
        if (round === 0 && hasSwap()) lockMemory();
      }
      return await stream.read(deadline);
    } catch (error) {
      if (error instanceof MalformedFrame) throw failure('CAS_PROTOCOL', { address, detail: error.message });
      throw failure('CAS_UNREACHABLE', { address, detail: reason(error) });
    }
  };

  /** Waits until the system has it, which delivers it whatever becomes of this process; not for an answer. */
  const confirm = () =>
    new Promise<void>((resolve) => {
      if (cas.socket.alpnProtocol !== LAUNCH_PROTOCOL) return resolve();
      stream.write({ arrived: true } satisfies ArrivedMessage, resolve);
    });

  /** @throws Failure of the LAS or the hardware */
  const evidenceOver = async (
    data: Buffer,
    machineNonce: string | undefined,
    deadline: number,
  ): Promise<Evidence> => {
    if (mode !== 'sim' && isInEnclave()) {
      log('DEBUG', 'the enclave that this process runs in vouches for it');
      return { hardware: { type: 'sgx', quote: enclaveQuote(data).toString('base64') } };
    }
    const las = reached ?? (await reachLas(deadline));
    reached = undefined;
    if ('error' in las) throw las.error;
    const vouched = await seenBy(settings.las, () => las.evidence(data, machineNonce));
    las.close();
    if (mode === 'sim' && vouched.hardware) throw failure('HARDWARE_UNWANTED', { socket: settings.las });
    log('DEBUG', `the LAS vouches for this process by ${vouched.hardware?.type ?? 'software'}`);
    return vouched;
  };

  return {
    async ask() {
      const started = Date.now();
      const channel = channelBinding(cas.socket, round);
      const context = { channel, casKey: key, configId: formatConfigId(configId) };
      const proof = (role: 'launcher' | 'cas') =>
        settings.accessToken === undefined
          ? undefined
          : accessTokenProof(settings.accessToken, { role, ...context });
      const data = reportData({ role: 'launcher', ...context });
      let evidence: Evidence = {};
      // Whether Evidence is needed is for the CAS to say; if it is, this says why there is none.
      let without: unknown;
      const gather = async (machineNonce?: string) => {
        try {
          evidence = await evidenceOver(data, machineNonce, Date.now() + LAS_PATIENCE);
        } catch (error) {
          without = error;
          log('DEBUG', `no Evidence: ${reason(error)}`);
        }
      };
      await gather();
      if (mode === 'hw' && !evidence.hardware) throw hardwareMissing(without);
      // Also where no LAS was there to look.
      if (!isHidden()) hide();
      const accessToken = proof('launcher')?.toString('base64');
      const { oneTimePassword, ...named } = configId;
      const request = () => ({
        ...named,
        // A code is good once; later rounds go on from the first.
        ...(round === 0 && oneTimePassword !== undefined && { oneTimePassword }),
        ...evidence,
        ...(accessToken !== undefined && { accessToken }),
        ...(launch && { attempt: attemptOf(launch) }),
        watch: true,
      });
      let answer = await exchange(request(), started + PATIENCE);
      const passOverChanges = async () => {
        // A change may have been told before the request came.
        while (v.is(changed, answer)) answer = await exchange(undefined, Date.now() + PATIENCE);
      };
      await passOverChanges();
      const challenged = v.safeParse(challenge, answer);
      if (challenged.success) {
        log('DEBUG', 'the CAS wants Evidence about this machine made anew');
        await gather(challenged.output.challenge);
        answer = await exchange(request(), Date.now() + PATIENCE);
        await passOverChanges();
      }
      round++;
      const refused = v.safeParse(refusal, answer);
      if (refused.success) throw launchRefused(new Refused(refused.output), without);
      const parsed = v.safeParse(granted, answer);
      // The issue's own text may quote what was received, so only its place is named.
      if (!parsed.success)
        throw failure('CAS_PROTOCOL', {
          address,
          detail: `at ${v.getDotPath(parsed.issues[0]) ?? 'the top'}`,
        });
      const expected = proof('cas');
      if (expected && !isEqual(parsed.output.accessToken, expected))
        throw failure('ACCESS_TOKEN_UNPROVEN', { address });
      await confirm();
      log('DEBUG', `the CAS has released the configuration of ${formatConfigId(configId)}`);
      return parsed.output.configuration;
    },
    async changed() {
      if (v.is(changed, await exchange(undefined, undefined))) return;
      throw failure('CAS_PROTOCOL', { address, detail: 'something else than a change' });
    },
    close: () => cas.socket.destroy(),
  };
}

function isEqual(actual: Buffer | undefined, expected: Buffer): boolean {
  return actual?.length === expected.length && timingSafeEqual(actual, expected);
}

/** The key that the CAS must have, and who says so. There is no trust on first use. */
function expectedKey({ cas, casKey, hostEnvironment }: Settings, las: Las) {
  if (casKey) return { key: casKey, source: 'by SCONE_CAS_KEY' };
  if ('casKey' in las && las.casKey)
    return { key: parseKeyHash(las.casKey, "the LAS's answer"), source: 'by the LAS' };
  const key = pinnedKey(hostEnvironment, cas);
  if (key) return { key, source: PINNED_BY_ATTEST };
  // Told along, but what decides is that no key is known: not every launch needs a LAS.
  const aside = 'error' in las ? new Error(reason(las.error)) : undefined;
  throw failure('CAS_KEY_UNKNOWN', { address: formatAddress(cas), host: cas.host }, aside);
}

function hardwareMissing(without: unknown): Error {
  const detail = without === undefined ? 'the LAS vouches by software alone' : 'there is no Evidence at all';
  return failure('HARDWARE_MISSING', { detail }, without);
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
