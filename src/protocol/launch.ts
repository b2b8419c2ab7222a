import * as v from 'valibot';
import { hardwareEvidence } from '../attestation/hardware-evidence.ts';
import { launcherConfiguration } from '../policy/schema/launcher.ts';

/**
 * What travels between a launcher and the CAS's enclave port. The connection is TLS 1.3, the launcher knows the CAS by
 * its public key, and Evidence is made over the exporter value of the connection.
 *
 *     request  ->  granted, or a refusal
 *              ->  arrived
 *
 * Until `arrived`, a launch that was cut off may come again with what is good once; afterwards that is spent. The CAS sends
 * nothing in between: a launcher that ends with something unread has its system reset the connection. That might drop
 * `arrived`. The version before has no such message, and a launch may come again for ten seconds.
 *
 * Where the Evidence about the launcher's machine is too old, the CAS first wants it made anew, at most once a round:
 *
 *              <-  challenge
 *     request  ->  granted, or a refusal
 *              ->  arrived
 *
 * A launcher that supervises its program asks to `watch`. Then the connection stays open after an answer, and:
 *
 *              <-  changed           what was granted would be another now; sent once for each answer
 *     request  ->  granted, or a refusal
 *              ->  arrived
 *
 * A refusal of the first request ends the connection. After that of a later one the launcher may also ask again before
 * it is told to; `changed` and its request can cross then, and the answer comes after `changed`.
 *
 * Each further request is a new round: it carries new Evidence, over an exporter value of its own, and the second
 * factors that the connection has shown stay good for it.
 */

/** ALPN names of the protocol and its version (RFC 7301): the present one, and that of 0.1.0, which has no `arrived`. */
export const LAUNCH_PROTOCOL = 'envcas-launch/2';
export const FORMER_LAUNCH_PROTOCOL = 'envcas-launch/1';
/** In the order of preference. */
export const LAUNCH_PROTOCOLS = [LAUNCH_PROTOCOL, FORMER_LAUNCH_PROTOCOL];

/** Exporter label (RFC 8446 §7.5); RFC 5705 §4 gives unregistered ones the prefix EXPERIMENTAL. */
const EXPORTER_LABEL = 'EXPERIMENTAL-envcas-launch';

/** Bytes of a request, and of a configuration, at most. */
export const LAUNCH_REQUEST_LIMIT = 256 * 1024;
export const CONFIGURATION_LIMIT = 64 * 1024 * 1024;

/**
 * The 32 bytes that both ends of a connection, and nobody else, can compute.
 * @param round of requests on this connection, counted from 0; each has bytes of its own
 */
export function channelBinding(
  socket: { exportKeyingMaterial(length: number, label: string, context: Buffer): Buffer },
  round = 0,
): Buffer {
  return socket.exportKeyingMaterial(32, EXPORTER_LABEL, Buffer.from(round === 0 ? '' : `round ${round}`));
}

const name = v.pipe(v.string(), v.maxLength(512));
const base64 = v.transform((text: string) => Buffer.from(text, 'base64'));
const bytes = v.pipe(v.string(), base64);

export const launchRequest = v.strictObject({
  session: name,
  service: name,
  oneTimePassword: v.optional(v.pipe(v.string(), v.maxLength(64))),
  evidence: v.optional(v.pipe(v.string(), v.maxLength(128 * 1024))),
  /** Evidence from hardware: of this process, or of the machine of its LAS. */
  hardware: v.optional(hardwareEvidence),
  /** Proof that the launcher knows the service access token (access-token.ts). */
  accessToken: v.optional(v.pipe(v.string(), v.maxLength(64), base64, v.length(32))),
  /** Random bytes of one launch, which comes again where its connection was cut before it had the answer. */
  attempt: v.optional(v.pipe(v.string(), v.maxLength(64), base64, v.length(32))),
  /** Keep the connection, and tell when the answer would be another. */
  watch: v.optional(v.boolean()),
});
export type LaunchRequest = v.InferInput<typeof launchRequest>;
export type ReceivedLaunchRequest = v.InferOutput<typeof launchRequest>;

/** A piece of an argument: text, or the place of a host argument counted from 1. */
const argumentPart = v.union([
  v.string(),
  v.strictObject({ argument: v.pipe(v.number(), v.integer(), v.minValue(1)) }),
]);

/** What a service is started with. Secrets are in their places already. */
export const configuration = v.strictObject({
  /** Arguments as a list of pieces each; the first is the launcher's own name. */
  command: v.array(v.array(argumentPart)),
  environment: v.record(v.string(), v.string()),
  /** Variables that are taken from the host. */
  hostEnvironment: v.array(v.string()),
  pwd: v.optional(v.string()),
  /** What /etc/envcas/config.yaml says; absent where that is a template on the launcher's own file system. */
  launcher: v.optional(launcherConfiguration),
  /** Injected files that are needed; one without content is a template on the launcher's own file system. */
  files: v.array(v.strictObject({ path: v.string(), content: v.optional(bytes) })),
  /** What templates on the launcher's file system may refer to, by the text of the reference. */
  secrets: v.array(v.strictObject({ reference: v.string(), value: bytes })),
  /** Released secrets in the forms that stand in the rest, where the launcher keeps them out of the program's output. */
  redact: v.optional(v.array(bytes)),
});
export type Configuration = v.InferOutput<typeof configuration>;
export type ConfigurationMessage = v.InferInput<typeof configuration>;

/** The answer where the request is granted. */
export const granted = v.strictObject({
  configuration,
  /** Proof that the CAS knows the service access token, where the session has one. */
  accessToken: v.optional(v.pipe(v.string(), base64)),
});
export type GrantedMessage = v.InferInput<typeof granted>;

/** What the launcher sends when it has the answer. */
export const arrived = v.strictObject({ arrived: v.literal(true) });
export type ArrivedMessage = v.InferInput<typeof arrived>;

/** What the CAS sends where it wants Evidence about the machine over these bytes, in base64. */
export const challenge = v.strictObject({ challenge: v.pipe(v.string(), v.maxLength(88)) });

/** What the CAS sends on a watched connection when it is time for the next request. */
export const changed = v.strictObject({ changed: v.literal(true) });
