import { generateKeyPairSync } from 'node:crypto';
import { join, resolve } from 'node:path';
import * as v from 'valibot';
import { platformOf } from '../src/attestation/software.ts';
import { granted } from '../src/protocol/launch.ts';
import { temporaryFolder } from '../test/support/leave-nothing.ts';
import { startServer } from '../test/support/stack.ts';
import { fillStore, startCas } from './cas.ts';
import { askFor, type Las } from './launcher.ts';
import { medianRatio, milliseconds, printTable, quantile } from './measure.ts';
import { policyWith } from './policy.ts';

const ROUNDS = 1000;
const WARM_UP = 200;

/** How long a CAS takes to verify Evidence and release secrets, one launcher at a time. */
export async function release(): Promise<void> {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const las: Las = { private: privateKey, platform: platformOf(publicKey) };
  const work = temporaryFolder();
  const rows: string[][] = [];
  for (const secrets of [1, 50, 500]) {
    const directory = join(work, String(secrets));
    await fillStore(directory, policyWith(secrets, las.platform), ['bench']);
    const cas = await startCas(directory, '--workers', '1');
    const { answer } = await askFor('bench', Number(cas.match[1]), las);
    const bytes = Buffer.byteLength(JSON.stringify(v.parse(granted, answer) && answer));
    const bare = await startServer(
      process.execPath,
      [resolve(import.meta.dirname, 'minimal-server.ts'), String(bytes)],
      /^(\d+)$/m,
    );
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let round = -WARM_UP; round < ROUNDS; round++) {
      const released = await askFor('bench', Number(cas.match[1]), las);
      const answered = await askFor('bench', Number(bare.match[1]), las);
      if (round < 0) continue;
      ours.push(released.took);
      theirs.push(answered.took);
    }
    await cas.stop();
    await bare.stop();
    rows.push([
      String(secrets),
      ...[ours, theirs].flatMap((took) => [0.5, 0.99].map((q) => milliseconds(quantile(took, q)))),
      medianRatio(ours, theirs).toFixed(2),
      (quantile(ours, 0.99) / quantile(theirs, 0.99)).toFixed(2),
    ]);
  }
  printTable(
    `Release, ${ROUNDS} rounds in turn, beside a bare TLS server that sends as many bytes`,
    ['secrets', 'release p50', 'p99', 'bare p50', 'p99', 'p50 as a multiple (median of pairs)', 'p99'],
    rows,
  );
}
