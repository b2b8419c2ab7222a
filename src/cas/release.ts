import { appraise } from '../attestation/appraise.ts';
import type { Claims } from '../attestation/claims.ts';
import { reportData } from '../attestation/report-data.ts';
import { verifySoftwareEvidence } from '../attestation/software.ts';
import { type Failure, failure } from '../errors.ts';
import { hostVariable, parseHostArguments } from '../policy/host.ts';
import { LAUNCHER_CONFIGURATION_PATH, parseLauncherConfiguration } from '../policy/launcher-configuration.ts';
import { formatConfigId } from '../policy/names.ts';
import { admittedMeasurements, oneTimePasswordReference } from '../policy/service.ts';
import type { Service, Session } from '../policy/session.ts';
import type { ConfigurationMessage, LaunchRequest } from '../protocol/launch.ts';
import type { TypedSecret } from '../secrets/kinds.ts';
import { matchOneTimePassword, parseSharedSecret } from '../secrets/one-time-password.ts';
import { Secret } from '../secrets/secret.ts';
import { parseTemplate, substitute, TooLarge } from '../secrets/substitute.ts';
import type { Cas } from './cas.ts';
import { activeSession, type SessionVersion } from './sessions.ts';

/** The connection a request came on. */
export interface LaunchConnection {
  /** Its exporter value, 32 bytes. */
  channel: Buffer;
  /** Whom wrong one-time passwords are counted against. */
  source: string;
}

/**
 * Decides one launch, in the order: is there such a service; does the Evidence verify; is the launcher
 * admitted; is the one-time password right. Nobody who would not be admitted anyway can guess a one-time
 * password, or use one up. Only then are secrets touched.
 *
 * @throws Failure with the reason of a refusal
 */
export async function release(
  cas: Cas,
  request: LaunchRequest,
  connection: LaunchConnection,
): Promise<ConfigurationMessage> {
  const { session: sessionName, service: serviceName } = request;
  const version = await activeSession(cas, sessionName);
  if (!version) throw failure('SESSION_NOT_FOUND', { session: sessionName });
  const { session } = version;
  const service = session.services.find(({ name }) => name === serviceName);
  if (!service) throw failure('SERVICE_NOT_FOUND', { session: sessionName, service: serviceName });

  const claims = await verifyEvidence(cas, request, connection);
  admit(cas, session, service, claims);
  await checkOneTimePassword(cas, version, service, request, connection);

  const configuration = configurationOf(version, service);
  cas.log.info(
    {
      session: sessionName,
      service: serviceName,
      version: version.number,
      measurement: claims?.measurement,
      platform: claims?.platform,
      source: connection.source,
    },
    'released',
  );
  return configuration;
}

/** Claims of the Evidence, which must have been made over this very connection, for this very service. */
async function verifyEvidence(
  cas: Cas,
  request: LaunchRequest,
  { channel }: LaunchConnection,
): Promise<Claims | undefined> {
  if (request.evidence === undefined) return undefined;
  const claims = await verifySoftwareEvidence(request.evidence);
  const configId = formatConfigId(request);
  const expected = reportData({ role: 'launcher', channel, casKey: cas.key, configId });
  if (!claims.reportData.equals(expected))
    throw failure('EVIDENCE_INVALID', { detail: 'it was made for another connection, CAS or service' });
  return claims;
}

/** @throws Failure of the first factor that failed, the others as its causes */
function admit(cas: Cas, session: Session, service: Service, claims: Claims | undefined): void {
  const { mode, tolerate, trusted_scone_qe_pubkeys } = session.security.attestation;
  const refusals = appraise(
    {
      mode,
      tolerate,
      measurements: admittedMeasurements(service),
      platforms: service.platforms,
      trustedPlatforms: [...cas.trustedPlatforms, ...trusted_scone_qe_pubkeys],
    },
    claims,
  );
  const chain = refusals.reduceRight<Failure | undefined>((inner, refusal) => {
    if (inner) refusal.cause = inner;
    return refusal;
  }, undefined);
  if (chain) throw chain;
}

/** @throws Failure OTP_MISSING, OTP_INVALID, OTP_USED or OTP_THROTTLED */
async function checkOneTimePassword(
  cas: Cas,
  version: SessionVersion,
  service: Service,
  request: LaunchRequest,
  { source }: LaunchConnection,
): Promise<void> {
  const reference = oneTimePasswordReference(version.session, service);
  if (reference === undefined) return;
  const { oneTimePassword: code } = request;
  if (code === undefined) throw failure('OTP_MISSING');
  const now = cas.clock();
  const secret = sharedSecret(reference, version.secrets);
  const result = await cas.store.spendOneTimePassword({
    secret: cas.keyring.pseudonym(secret.reveal()),
    step: matchOneTimePassword(secret, code, now),
    account: formatConfigId(request),
    source,
    now,
  });
  if (result.outcome === 'invalid') throw failure('OTP_INVALID');
  if (result.outcome === 'used') throw failure('OTP_USED');
  if (result.outcome === 'throttled') throw failure('OTP_THROTTLED', { seconds: result.seconds });
}

/** The key of a service's one-time passwords: base32 text, or the bytes of a binary secret. */
function sharedSecret(reference: string, secrets: SessionVersion['secrets']): Secret {
  const [part] = parseTemplate(Buffer.from(reference));
  const named = part && !Buffer.isBuffer(part) ? secrets.get(part.name) : undefined;
  if (named?.kind === 'binary') return named.secret;
  const parsed = parseSharedSecret(named ? named.secret.reveal().toString() : reference);
  if (parsed instanceof Secret) return parsed;
  throw failure('INTERNAL', { detail: parsed });
}

/** Bytes of one configuration, secrets included. */
const LARGEST_CONFIGURATION = 8 * 1024 * 1024;

/**
 * The service's configuration with secrets in their places.
 * @throws Failure CONFIGURATION_TOO_LARGE
 */
function configurationOf({ session, secrets }: SessionVersion, service: Service): ConfigurationMessage {
  let room = LARGEST_CONFIGURATION;
  const fill = (template: string) => {
    const filled = substitute(Buffer.from(template), secrets, room);
    room -= filled.length;
    return filled;
  };
  const environment: Record<string, string> = {};
  const hostEnvironment: string[] = [];
  try {
    for (const [key, value] of Object.entries(service.environment ?? {})) {
      const host = hostVariable(key);
      if (host !== undefined) hostEnvironment.push(host);
      else environment[key] = fill(value ?? '').toString();
    }
    const image = session.images.find(({ name }) => name === service.image_name);
    const injected = image?.injection_files ?? [];
    const own = injected.find(({ path }) => path === LAUNCHER_CONFIGURATION_PATH)?.content;
    const launcher = own === undefined ? undefined : parseLauncherConfiguration(own);
    // A file that the launcher will not write is not sent, and so neither are the secrets in it.
    const written = new Set(launcher?.files.map(({ from }) => from));
    const files = launcher ? injected.filter(({ path }) => written.has(path)) : injected;
    return {
      // Host arguments are found in the policy's text, before any secret stands in it.
      command: service.command.map((word) =>
        parseHostArguments(word).map((part) => (typeof part === 'string' ? fill(part).toString() : part)),
      ),
      environment,
      hostEnvironment,
      ...(service.pwd === undefined ? {} : { pwd: service.pwd }),
      ...(launcher && { launcher }),
      files: files.map(({ path, content }) =>
        content === undefined ? { path } : { path, content: fill(content).toString('base64') },
      ),
      secrets: files.some(({ content }) => content === undefined)
        ? provided(session, secrets, image?.provide_secrets)
        : [],
    };
  } catch (error) {
    if (!(error instanceof TooLarge)) throw error;
    throw failure('CONFIGURATION_TOO_LARGE', { limit: LARGEST_CONFIGURATION });
  }
}

/**
 * Secrets that a template on the launcher's file system may use: those the image provides; by default all but
 * the keys of one-time passwords, which no program needs.
 */
function provided(session: Session, secrets: ReadonlyMap<string, TypedSecret>, names: string[] | undefined) {
  const factors = new Set(
    session.services.flatMap((service) => {
      const [part] = parseTemplate(Buffer.from(oneTimePasswordReference(session, service) ?? ''));
      return part && !Buffer.isBuffer(part) ? [part.name] : [];
    }),
  );
  return [...secrets]
    .filter(([name]) => (names ? names.includes(name) : !factors.has(name)))
    .map(([name, { kind, secret }]) => ({ name, kind, value: secret.reveal().toString('base64') }));
}
