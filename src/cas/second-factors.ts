import { timingSafeEqual } from 'node:crypto';
import type { Claims } from '../attestation/claims.ts';
import { failure } from '../errors.ts';
import { formatConfigId } from '../policy/names.ts';
import { accessTokenProof } from '../protocol/access-token.ts';
import type { ReceivedLaunchRequest } from '../protocol/launch.ts';
import { matchOneTimePassword, parseSharedSecret } from '../secrets/one-time-password.ts';
import type { Secret } from '../secrets/secret.ts';
import type { Admission, Factors } from './admission.ts';
import type { Cas } from './cas.ts';
import { metrics } from './observe/metrics.ts';
import type { Interest } from './watch.ts';

/** The connection a request came on. */
export interface LaunchConnection {
  /** Its exporter value, 32 bytes. */
  channel: Buffer;
  /** Whom wrong one-time passwords are counted against. */
  source: string;
  /** The factors that requests before have shown on it; each names the process that it stays good for. */
  shown: Set<string>;
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

/** Names the launch, for what is used up by it: who is cut off may come again, as the same process where that is known. */
function launchOf(cas: Cas, { request }: LaunchAttempt, claims: Claims | undefined): Buffer | undefined {
  if (!request.attempt) return undefined;
  const process = claims?.process ?? '';
  return cas.keyring.pseudonym(
    Buffer.concat([request.attempt, Buffer.from(`${formatConfigId(request)} ${process}`)]),
  );
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
  const result = await cas.store.attempt({
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
 * @throws Failure PROCESS_SEEN, or EVIDENCE_MISSING and EVIDENCE_INVALID where the process is not known
 */
export async function checkSingleton(
  cas: Cas,
  singleton: boolean,
  attempt: LaunchAttempt,
  claims: Claims | undefined,
): Promise<void> {
  const { session } = attempt.request;
  const { shown } = attempt.connection;
  if (!singleton) return;
  if (!claims) throw failure('EVIDENCE_MISSING');
  if (claims.process === undefined)
    throw failure('EVIDENCE_INVALID', {
      detail: 'it does not name the process, which singleton_enclaves needs',
    });
  const factor = `first of ${claims.process}`;
  if (shown.has(factor)) return;
  const launch = launchOf(cas, attempt, claims);
  if (!(await cas.store.admitProcess(session, Buffer.from(claims.process, 'hex'), launch)))
    throw failure('PROCESS_SEEN', { session });
  shown.add(factor);
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
 * @throws Failure OTP_MISSING, OTP_INVALID, OTP_USED or OTP_THROTTLED
 */
export async function checkOneTimePassword(
  cas: Cas,
  { oneTimePassword: sharedSecret, mode }: Pick<Admission & Factors, 'oneTimePassword' | 'mode'>,
  attempt: LaunchAttempt,
  claims: Claims | undefined,
): Promise<void> {
  if (sharedSecret === undefined) return;
  const { request, connection } = attempt;
  // Without Evidence nothing but the connection tells whose request it is.
  const holder = mode === 'none' ? 'the connection' : claims?.process;
  const secret = usableSharedSecret(sharedSecret);
  const pseudonym = cas.keyring.pseudonym(secret.reveal());
  const factor = holder && `code ${pseudonym.toString('hex')} of ${holder}`;
  if (factor && connection.shown.has(factor)) return;
  const { oneTimePassword: code } = request;
  if (code === undefined) throw failure('OTP_MISSING');
  const now = cas.clock();
  const step = matchOneTimePassword(secret, code, now);
  const result = await cas.store.attempt({
    // Guesses at one secret count together, however many services ask for it.
    account: `code ${pseudonym.toString('hex')}`,
    source: connection.source,
    right: step !== undefined,
    ...(step !== undefined && { once: { secret: pseudonym, step } }),
    attempt: launchOf(cas, attempt, claims),
    now,
  });
  metrics.attempted({ factor: 'one-time-password', outcome: result.outcome });
  if (result.outcome === 'invalid') throw failure('OTP_INVALID');
  if (result.outcome === 'used') throw failure('OTP_USED');
  if (result.outcome === 'throttled') throw failure('OTP_THROTTLED', { seconds: result.seconds });
  if (factor) connection.shown.add(factor);
}
