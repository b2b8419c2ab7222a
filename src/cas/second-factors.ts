import { timingSafeEqual } from 'node:crypto';
import type { Claims } from '../attestation/claims.ts';
import { failure } from '../errors.ts';
import { formatConfigId } from '../policy/names.ts';
import { accessTokenProof } from '../protocol/access-token.ts';
import type { ReceivedLaunchRequest } from '../protocol/launch.ts';
import { matchOneTimePassword, parseSharedSecret } from '../secrets/one-time-password.ts';
import type { Secret } from '../secrets/secret.ts';
import type { Cas } from './cas.ts';

/** The connection a request came on. */
export interface LaunchConnection {
  /** Its exporter value, 32 bytes. */
  channel: Buffer;
  /** Whom wrong one-time passwords are counted against. */
  source: string;
}

/** Someone who asks for the configuration of a service. */
export interface LaunchAttempt {
  request: ReceivedLaunchRequest;
  connection: LaunchConnection;
}

/**
 * The service access token: the launcher shows that it knows it, and only then the CAS does.
 * @returns the CAS's own proof, where a token is asked for
 * @throws Failure ACCESS_TOKEN_MISSING, ACCESS_TOKEN_INVALID or ACCESS_TOKEN_THROTTLED
 */
export async function checkAccessToken(
  cas: Cas,
  token: string | undefined,
  { request, connection }: LaunchAttempt,
): Promise<Buffer | undefined> {
  if (token === undefined) return undefined;
  if (request.accessToken === undefined) throw failure('ACCESS_TOKEN_MISSING');
  const configId = formatConfigId(request);
  const context = { channel: connection.channel, casKey: cas.key, configId };
  const result = await cas.store.attempt({
    account: `token ${cas.keyring.pseudonym(Buffer.from(token)).toString('hex')}`,
    source: connection.source,
    right: timingSafeEqual(accessTokenProof(token, { role: 'launcher', ...context }), request.accessToken),
    now: cas.clock(),
  });
  if (result.outcome === 'throttled') throw failure('ACCESS_TOKEN_THROTTLED', { seconds: result.seconds });
  if (result.outcome !== 'accepted') throw failure('ACCESS_TOKEN_INVALID');
  return accessTokenProof(token, { role: 'cas', ...context });
}

/**
 * `singleton_enclaves`: a process is given a configuration of a session once, whatever else comes of it.
 * @throws Failure PROCESS_SEEN, or EVIDENCE_MISSING and EVIDENCE_INVALID where the process is not known
 */
export async function checkSingleton(
  cas: Cas,
  singleton: boolean,
  session: string,
  claims: Claims | undefined,
): Promise<void> {
  if (!singleton) return;
  if (!claims) throw failure('EVIDENCE_MISSING');
  if (claims.process === undefined)
    throw failure('EVIDENCE_INVALID', {
      detail: 'it does not name the process, which singleton_enclaves needs',
    });
  if (!(await cas.store.admitProcess(session, Buffer.from(claims.process, 'hex'))))
    throw failure('PROCESS_SEEN', { session });
}

/** A shared secret, once variables are filled in. @throws Failure POLICY_UNUSABLE where it is none */
export function usableSharedSecret(text: string): Secret {
  const secret = parseSharedSecret(text);
  if (typeof secret !== 'string') return secret;
  throw failure('POLICY_UNUSABLE', { section: 'one_time_password_shared_secret', detail: secret });
}

/** @throws Failure OTP_MISSING, OTP_INVALID, OTP_USED or OTP_THROTTLED */
export async function checkOneTimePassword(
  cas: Cas,
  sharedSecret: string | undefined,
  { request, connection }: LaunchAttempt,
): Promise<void> {
  if (sharedSecret === undefined) return;
  const { oneTimePassword: code } = request;
  if (code === undefined) throw failure('OTP_MISSING');
  const now = cas.clock();
  const secret = usableSharedSecret(sharedSecret);
  const step = matchOneTimePassword(secret, code, now);
  const pseudonym = cas.keyring.pseudonym(secret.reveal());
  const result = await cas.store.attempt({
    // Guesses at one secret count together, however many services ask for it.
    account: `code ${pseudonym.toString('hex')}`,
    source: connection.source,
    right: step !== undefined,
    ...(step !== undefined && { once: { secret: pseudonym, step } }),
    now,
  });
  if (result.outcome === 'invalid') throw failure('OTP_INVALID');
  if (result.outcome === 'used') throw failure('OTP_USED');
  if (result.outcome === 'throttled') throw failure('OTP_THROTTLED', { seconds: result.seconds });
}
