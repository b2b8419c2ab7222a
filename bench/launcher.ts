import type { KeyObject } from 'node:crypto';
import { reportData } from '../src/attestation/report-data.ts';
import { signSoftwareEvidence } from '../src/attestation/software.ts';
import { formatConfigId } from '../src/policy/names.ts';
import { connectCas } from '../src/protocol/connect.ts';
import { frames } from '../src/protocol/frame.ts';
import {
  type ArrivedMessage,
  CONFIGURATION_LIMIT,
  channelBinding,
  LAUNCH_PROTOCOL,
  type LaunchRequest,
} from '../src/protocol/launch.ts';
import { MEASUREMENT, SERVICE } from './policy.ts';

const PATIENCE = 30_000;

/** The key of a LAS in this process, which vouches for anything. */
export interface Las {
  private: KeyObject;
  platform: string;
}

/**
 * Connects as a launcher does, and has its request ready, with Evidence over the connection.
 * @param protocols ALPN names
 */
export async function approach(
  session: string,
  port: number,
  las?: Las,
  protocols: string | string[] = LAUNCH_PROTOCOL,
) {
  const deadline = Date.now() + PATIENCE;
  const start = performance.now();
  const { socket, key } = await connectCas(
    { host: '127.0.0.1', port },
    { ALPNProtocols: [protocols].flat() },
    deadline,
  );
  const connecting = performance.now() - start;
  const request: LaunchRequest = { session, service: SERVICE };
  if (las) {
    const channel = channelBinding(socket);
    const data = reportData({ role: 'launcher', channel, casKey: key, configId: formatConfigId(request) });
    const measured = { measurement: MEASUREMENT, pid: 1, uid: 0, gid: 0, id: MEASUREMENT, properties: [] };
    request.evidence = await signSoftwareEvidence(measured, data, las, Date.now());
  }
  return { socket, request, deadline, connecting };
}

/**
 * Asks a CAS for the configuration of a session as a launcher does.
 * @returns what it answered, and the milliseconds that connecting and asking took, making Evidence not included
 */
export async function askFor(
  session: string,
  port: number,
  las?: Las,
  protocols?: string[],
): Promise<{ answer: unknown; took: number }> {
  const { socket, request, deadline, connecting } = await approach(session, port, las, protocols);
  try {
    const ready = performance.now();
    const channel = frames(socket, CONFIGURATION_LIMIT);
    channel.write(request);
    const answer = await channel.read(deadline);
    const took = performance.now() - ready + connecting;
    if (socket.alpnProtocol === LAUNCH_PROTOCOL) channel.write({ arrived: true } satisfies ArrivedMessage);
    return { answer, took };
  } finally {
    socket.destroy();
  }
}
