import { createPrivateKey, createPublicKey, randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { reportData } from '../src/attestation/report-data.ts';
import { platformOf, signSoftwareEvidence } from '../src/attestation/software.ts';
import { formatConfigId } from '../src/policy/names.ts';
import { connectCas } from '../src/protocol/connect.ts';
import { frames } from '../src/protocol/frame.ts';
import { CONFIGURATION_LIMIT, channelBinding, LAUNCH_PROTOCOL } from '../src/protocol/launch.ts';
import { MEASUREMENT, SERVICE } from './policy.ts';

/** What many launchers at once do, each with a connection of its own for each launch. */
export interface Load {
  /** Whom they come to: a CAS, or an HTTPS server that is sent the same. */
  to: 'cas' | 'https';
  port: number;
  /** How many are under way at a time. */
  clients: number;
  /** When no more are begun: after milliseconds, or after that many launches. */
  milliseconds?: number;
  launches?: number;
  /** Sessions to choose from, `service-0` and so on; 1 is just `bench`. */
  sessions?: number;
  /** File with the key of the LAS that vouches for them. */
  key: string;
}

export interface Served {
  /** Milliseconds that each launch took, from connecting to the answer, sorted; of many, a part. */
  took: number[];
  count: number;
  /** Milliseconds from the first to the last. */
  passed: number;
  /** Why launches failed, and how often. */
  failed: Record<string, number>;
}

const PATIENCE = 60_000;
const MOST_KEPT = 100_000;

const load = JSON.parse(process.argv[2] ?? '') as Load;
const privateKey = createPrivateKey(readFileSync(load.key));
const las = { private: privateKey, platform: platformOf(createPublicKey(privateKey)) };

async function launch(): Promise<void> {
  const deadline = Date.now() + PATIENCE;
  const { socket, key } = await connectCas(
    { host: '127.0.0.1', port: load.port },
    { ALPNProtocols: [load.to === 'cas' ? LAUNCH_PROTOCOL : 'http/1.1'], minVersion: 'TLSv1.3' },
    deadline,
  );
  try {
    const session = load.sessions ? `service-${randomInt(load.sessions)}` : 'bench';
    const request = { session, service: SERVICE };
    const channel = channelBinding(socket);
    const data = reportData({ role: 'launcher', channel, casKey: key, configId: formatConfigId(request) });
    const measured = { measurement: MEASUREMENT, pid: 1, uid: 0, gid: 0, id: MEASUREMENT, properties: [] };
    const evidence = await signSoftwareEvidence(measured, data, las, Date.now());
    if (load.to === 'cas') {
      const stream = frames(socket, CONFIGURATION_LIMIT);
      stream.write({ ...request, evidence });
      const answer = await stream.read(deadline);
      if (!(answer as object) || !Object.hasOwn(answer as object, 'configuration'))
        throw Object.assign(new Error('refused'), { code: (answer as { code?: string }).code ?? 'REFUSED' });
    } else {
      const body = JSON.stringify({ ...request, evidence });
      socket.write(
        `POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
      );
      await new Promise<void>((resolve, reject) => {
        socket.on('error', reject);
        socket.on('end', resolve);
        socket.resume();
      });
    }
  } finally {
    socket.destroy();
  }
}

const took: number[] = [];
const failed: Record<string, number> = {};
let count = 0;
let begun = 0;
const start = performance.now();
const isOver = () =>
  load.milliseconds !== undefined
    ? performance.now() - start > load.milliseconds
    : begun >= (load.launches ?? 0);
await Promise.all(
  Array.from({ length: load.clients }, async () => {
    while (!isOver()) {
      begun++;
      const before = performance.now();
      try {
        await launch();
        count++;
        if (took.length < MOST_KEPT) took.push(performance.now() - before);
      } catch (error) {
        const why = (error as { code?: string }).code ?? String(error);
        failed[why] = (failed[why] ?? 0) + 1;
      }
    }
  }),
);
const served: Served = { took: took.sort((a, b) => a - b), count, passed: performance.now() - start, failed };
process.stdout.write(JSON.stringify(served));
