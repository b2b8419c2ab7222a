import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { type Secret, TOTP } from 'otpauth';
import * as v from 'valibot';
import { reportData } from '../../src/attestation/report-data.ts';
import { platformOf, signSoftwareEvidence } from '../../src/attestation/software.ts';
import { failure, reason } from '../../src/errors.ts';
import { formatConfigId } from '../../src/policy/names.ts';
import { callApi, connectApi } from '../../src/protocol/api-client.ts';
import { type Identity, selfSignedCertificate } from '../../src/protocol/certificate.ts';
import { connectCas } from '../../src/protocol/connect.ts';
import { frames } from '../../src/protocol/frame.ts';
import {
  type ArrivedMessage,
  CONFIGURATION_LIMIT,
  type Configuration,
  channelBinding,
  granted,
  LAUNCH_PROTOCOL,
  LAUNCH_PROTOCOLS,
  type LaunchRequest,
} from '../../src/protocol/launch.ts';
import { Refused, refusal } from '../../src/protocol/refusal.ts';
import { PATIENCE } from './until.ts';

/** People and launchers that speak to a CAS by its protocols, in this process: hundreds of them a second. */

/** The ports of a CAS on this host. */
export interface Ports {
  apiPort: string | number;
  enclavePort: string | number;
}

/** The key of a LAS in this process, which vouches for anything. */
export interface TestLas {
  private: KeyObject;
  platform: string;
}

export function makeLas(): TestLas {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  return { private: privateKey, platform: platformOf(publicKey) };
}

/** Somebody who uploads sessions. */
export async function makeIdentity(name: string): Promise<Identity> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    certificate: await selfSignedCertificate({
      key: privateKey,
      commonName: name,
      names: [],
      notBefore: new Date(Date.now() - 86_400_000),
      notAfter: new Date(Date.now() + 86_400_000),
    }),
  };
}

/** Makes one request to the REST interface. @throws Refused, or Failure CAS_UNREACHABLE */
export async function ask<Schema extends v.GenericSchema>(
  { apiPort }: Ports,
  who: Identity | undefined,
  call: Parameters<typeof callApi>[1],
  answer: Schema,
): Promise<v.InferOutput<Schema>> {
  const connection = await connectApi({ host: '127.0.0.1', port: Number(apiPort) }, who);
  return callApi(connection, call, answer);
}

/** @returns its hash */
export async function upload(cas: Ports, who: Identity, body: string): Promise<string> {
  const call = { method: 'POST', path: '/session', body } as const;
  return (await ask(cas, who, call, v.object({ hash: v.string() }))).hash;
}

/** @returns its text */
export async function read(cas: Ports, who: Identity, name: string): Promise<string> {
  const call = { method: 'GET', path: `/session/${name}` } as const;
  return (await ask(cas, who, call, v.object({ session: v.string() }))).session;
}

/** A session with one service that gives out a secret, for a code each time. @param secret base32 */
export const sessionWithCodes = (name: string, secret: string) => `name: ${name}
version: "0.3.10"
security: {attestation: {tolerate: [debug-mode]}}
services:
  - name: s
    image_name: i
    mrenclaves: [${'ab'.repeat(32)}]
    command: [envcas, $$SCONE::token:hex$$]
    one_time_password_shared_secret: ${secret}
images: [{name: i, injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/echo"}]}]
secrets: [{name: token, kind: binary, size: 16}]
`;

/** A code of the next step: it is good for a minute, however far this step is. */
export const codeFrom = (secret: Secret) => new TOTP({ secret }).generate({ timestamp: Date.now() + 30_000 });

/** When a code that is made now is too old: two steps after its own. */
export const codeEnd = () => (Math.floor(Date.now() / 30_000) + 3) * 30_000;

export interface Launch extends Omit<LaunchRequest, 'evidence'> {
  las?: TestLas;
  measurement?: string;
  /** Of the process, 64 hexadecimal digits. */
  process?: string;
  /** Whether it says that it has the answer, and waits until that is noted. */
  confirms?: boolean;
}

/** Asks for a configuration as a launcher does that does not watch. @throws Refused, or Failure CAS_UNREACHABLE */
export async function launch({ enclavePort }: Ports, request: Launch): Promise<Configuration> {
  const {
    las,
    measurement = 'ab'.repeat(32),
    process = 'cd'.repeat(32),
    confirms = true,
    ...message
  } = request;
  const deadline = Date.now() + PATIENCE;
  const { socket, key } = await connectCas(
    { host: '127.0.0.1', port: Number(enclavePort) },
    { ALPNProtocols: LAUNCH_PROTOCOLS },
    deadline,
  );
  try {
    const channel = channelBinding(socket);
    const data = reportData({ role: 'launcher', channel, casKey: key, configId: formatConfigId(message) });
    const measured = { measurement, pid: 1, uid: 0, gid: 0, id: process, properties: [] };
    const evidence = las && (await signSoftwareEvidence(measured, data, las, Date.now()));
    const stream = frames(socket, CONFIGURATION_LIMIT);
    stream.write({ ...message, ...(evidence !== undefined && { evidence }) });
    const answer = await stream.read(deadline).catch((error: unknown) => {
      throw failure('CAS_UNREACHABLE', { address: `port ${enclavePort}`, detail: reason(error) });
    });
    const refused = v.safeParse(refusal, answer);
    if (refused.success) throw new Refused(refused.output);
    const { configuration } = v.parse(granted, answer);
    if (confirms && socket.alpnProtocol === LAUNCH_PROTOCOL) {
      // A CAS that is killed meanwhile has given its answer.
      const ended = new Promise((resolve) => socket.once('close', resolve));
      stream.write({ arrived: true } satisfies ArrivedMessage);
      await ended;
    }
    return configuration;
  } finally {
    socket.destroy();
  }
}
