import { createPrivateKey, createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import * as v from 'valibot';
import { platformOf } from '../src/attestation/software.ts';
import { Refused, refusal } from '../src/protocol/refusal.ts';
import { approach, askFor } from './launcher.ts';

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

const MOST_KEPT = 100_000;

const load = JSON.parse(process.argv[2] ?? '') as Load;
const privateKey = createPrivateKey(readFileSync(load.key));
const las = { private: privateKey, platform: platformOf(createPublicKey(privateKey)) };

async function launch(): Promise<void> {
  if (load.to === 'https') return post();
  const { answer } = await askFor('bench', load.port, las);
  const refused = v.safeParse(refusal, answer);
  if (refused.success) throw new Refused(refused.output);
}

/** Sends the request that a launcher sends to another kind of server. */
async function post(): Promise<void> {
  const { socket, request } = await approach('bench', load.port, las, 'http/1.1');
  try {
    const body = JSON.stringify(request);
    socket.write(
      `POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    await new Promise<void>((resolve, reject) => {
      socket.on('error', reject);
      socket.on('end', resolve);
      socket.resume();
    });
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
