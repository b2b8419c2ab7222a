import { timingSafeEqual } from 'node:crypto';
import type { Claims } from '../attestation/claims.ts';
import { failure, reason } from '../errors.ts';
import { createAllowances } from '../platform/allowances.ts';
import { formatConfigId } from '../policy/names.ts';
import { accessTokenProof } from '../protocol/access-token.ts';
import type { ReceivedLaunchRequest } from '../protocol/launch.ts';
import { matchOneTimePassword, parseSharedSecret } from '../secrets/one-time-password.ts';
import type { Secret } from '../secrets/secret.ts';
import type { Admission, Factors } from './admission.ts';
import type { Cas } from './cas.ts';
import { metrics } from './observe/metrics.ts';
import type { Attempt, AttemptResult, Comer, Spent } from './store/store.ts';
import type { Interest } from './watch.ts';

/** The connection a request came on. */
export interface LaunchConnection {
  /** Its exporter value, 32 bytes. */
  channel: Buffer;
  /** Whom wrong one-time passwords are counted against. */
  source: string;
  /** The factors that requests before have shown on it; each names the process that it stays good for. */
  shown: Set<string>;
  /** Whether the launcher says when it has the answer. */
  confirms: boolean;
  /** What requests have spent: good for the same launch until it has an answer. */
  spent: Spent[];
  /** What Evidence about the machine was asked to be made over in this round of requests. */
  challenge?: Buffer;
}

/** Someone who asks for the configuration of a service. */
export interface LaunchAttempt {
  request: ReceivedLaunchRequest;
  connection: LaunchConnection;
  /** What the answer depends on, where that is watched. */
  interest?: Interest | undefined;
}

/** Milliseconds in which a launcher comes again that does not say when it has the answer. */
const PATIENCE_OF_FORMER = 10_000;

/**
 * Who spends what is good once: he may come again without an answer, as the same process where that is known. A code's own
 * time ends that for those who say when they have one.
 */
function comerOf(
  cas: Cas,
  { request, connection }: LaunchAttempt,
  claims: Claims | undefined,
): Comer | undefined {
  if (!request.attempt) return undefined;
  const process = claims?.process ?? '';
  const launch = Buffer.concat([request.attempt, Buffer.from(`${formatConfigId(request)} ${process}`)]);
  return {
    launch: cas.keyring.pseudonym(launch),
    source: connection.source,
    patience: connection.confirms ? Number.POSITIVE_INFINITY : PATIENCE_OF_FORMER,
  };
}

/** Notes that the launcher has its answer: nobody comes again with what it has spent, to whichever replica. */
export async function completeLaunch(cas: Cas, { spent, source }: LaunchConnection): Promise<void> {
  for (const each of spent.splice(0))
    await cas.store.complete(each).catch((error: unknown) => {
      // It has its secrets, and what is left to it is bounded.
      cas.log.warn({ source, error: reason(error) }, 'a launch cannot be noted as complete');
    });
}

/** Wrong ones of one source at once, and a second: each is remembered for a day. */
const WRONG = 1000;
const WRONG_A_SECOND = 1;
const wrong = createAllowances(WRONG, WRONG_A_SECOND);

/** Takes a code or a token for right or wrong, unless its source has shown too many wrong ones, whatever for. */
async function judge(cas: Cas, attempt: Attempt): Promise<AttemptResult> {
  const missing = 1 - wrong.left(attempt.source);
  if (missing > 0) return { outcome: 'throttled', seconds: Math.ceil(missing / WRONG_A_SECOND) };
  // Those that come at once count before they are judged.
  wrong.take(attempt.source, 1);
  const result = await cas.store.attempt(attempt).catch((error: unknown) => {
    wrong.take(attempt.source, -1);
    throw error;
  });
  if (result.outcome !== 'invalid') wrong.take(attempt.source, -1);
  return result;
}

/**
 * The service access token: the launcher shows that it knows it, and only then the CAS does.
 * @returns the CAS's own proof, where a token is asked for
 * @throws Failure ACCESS_TOKEN_MISSING, ACCESS_TOKEN_INVALID or ACCESS_TOKEN_THROTTLED
 */
export async function checkAccessToken(
  cas: Cas,
  token: string | undefined,
  { request, connection, interest }: LaunchAttempt,
): Promise<Buffer | undefined> {
  if (token === undefined) return undefined;
  if (request.accessToken === undefined) throw failure('ACCESS_TOKEN_MISSING');
  const configId = formatConfigId(request);
  const context = { channel: connection.channel, casKey: cas.key, configId };
  const now = cas.clock();
  const result = await judge(cas, {
    account: `token ${cas.keyring.pseudonym(Buffer.from(token)).toString('hex')}`,
    source: connection.source,
    right: timingSafeEqual(accessTokenProof(token, { role: 'launcher', ...context }), request.accessToken),
    now,
  });
  metrics.attempted({ factor: 'access-token', outcome: result.outcome });
  if (result.outcome === 'throttled') {
    interest?.time(now + result.seconds * 1000);
    throw failure('ACCESS_TOKEN_THROTTLED', { seconds: result.seconds });
  }
  if (result.outcome !== 'accepted') throw failure('ACCESS_TOKEN_INVALID');
  return accessTokenProof(token, { role: 'cas', ...context });
}

/**
 * `singleton_enclaves`: a process is given a configuration of a session once, whatever else comes of it; on the
 * connection that it came on, again when that changes.
 * @returns how often the same launch came before
 * @throws Failure PROCESS_SEEN, or EVIDENCE_MISSING and EVIDENCE_INVALID where the process is not known
 */
export async function checkSingleton(
  cas: Cas,
  singleton: boolean,
  attempt: LaunchAttempt,
  claims: Claims | undefined,
): Promise<number> {
  const { session } = attempt.request;
  const { shown, spent } = attempt.connection;
  if (!singleton) return 0;
  if (!claims) throw failure('EVIDENCE_MISSING');
  if (claims.process === undefined)
    throw failure('EVIDENCE_INVALID', {
      detail: 'it does not name the process, which singleton_enclaves needs',
    });
  const factor = `first of ${claims.process}`;
  if (shown.has(factor)) return 0;
  const comer = comerOf(cas, attempt, claims);
  const process = Buffer.from(claims.process, 'hex');
  const repetition = await cas.store.admitProcess(session, process, cas.clock(), comer);
  if (repetition === undefined) throw failure('PROCESS_SEEN', { session });
  shown.add(factor);
  if (comer) spent.push({ table: 'process', key: { session, process } });
  return repetition;
}

/** A shared secret, once variables are filled in. @throws Failure POLICY_UNUSABLE where it is none */
export function usableSharedSecret(text: string): Secret {
  const secret = parseSharedSecret(text);
  if (typeof secret !== 'string') return secret;
  throw failure('POLICY_UNUSABLE', { section: 'one_time_password_shared_secret', detail: secret });
}

/**
 * A one-time password, which stays good on its connection for whoever gave it, and for a launch that was cut off.
 * @param claims of the process, where Evidence is asked for
 * @returns how often the same launch came before
 * @throws Failure OTP_MISSING, OTP_INVALID, OTP_USED or OTP_THROTTLED
 */
export async function checkOneTimePassword(
  cas: Cas,
  { oneTimePassword: sharedSecret, mode }: Pick<Admission & Factors, 'oneTimePassword' | 'mode'>,
  attempt: LaunchAttempt,
  claims: Claims | undefined,
): Promise<number> {
  if (sharedSecret === undefined) return 0;
  const { request, connection } = attempt;
  // Without Evidence nothing but the connection tells whose request it is.
  const holder = mode === 'none' ? 'the connection' : claims?.process;
  const secret = usableSharedSecret(sharedSecret);
  const pseudonym = cas.keyring.pseudonym(secret.reveal());
  const factor = holder && `code ${pseudonym.toString('hex')} of ${holder}`;
  if (factor && connection.shown.has(factor)) return 0;
  const { oneTimePassword: code } = request;
  if (code === undefined) throw failure('OTP_MISSING');
  const now = cas.clock();
  const step = matchOneTimePassword(secret, code, now);
  const once = step === undefined ? undefined : { secret: pseudonym, step };
  const comer = comerOf(cas, attempt, claims);
  const result = await judge(cas, {
    // Guesses at one secret count together, however many services ask for it.
    account: `code ${pseudonym.toString('hex')}`,
    source: connection.source,
    right: once !== undefined,
    ...(once && { once }),
    comer,
    now,
  });
  metrics.attempted({ factor: 'one-time-password', outcome: result.outcome });
  if (result.outcome === 'invalid') throw failure('OTP_INVALID');
  if (result.outcome === 'used') throw failure('OTP_USED');
  if (result.outcome === 'throttled') throw failure('OTP_THROTTLED', { seconds: result.seconds });
  if (factor) connection.shown.add(factor);
  if (once && comer) connection.spent.push({ table: 'one_time_password', key: once });
  return result.repetition ?? 0;
}
