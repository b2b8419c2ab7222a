import { randomInt } from 'node:crypto';
import { join } from 'node:path';
import * as v from 'valibot';
import { granted } from '../src/protocol/launch.ts';
import { temporaryFolder } from '../test/support/leave-nothing.ts';
import type { Server } from '../test/support/stack.ts';
import { fillStore, startCas } from './cas.ts';
import { askFor } from './launcher.ts';
import { cpuOf, medianRatio, milliseconds, peakMemory, printTable, quantile } from './measure.ts';
import { policyWith } from './policy.ts';

const FEW = 1000;
const MANY = 1_000_000;
const ROUNDS = 30;
const WARM_UP = 5;
/** Releases in one round, and how many of them at a time. */
const RELEASES = 400;
const AT_ONCE = 8;

const name = (index: number) => `service-${index}`;

function* names(count: number): Generator<string> {
  for (let index = 0; index < count; index++) yield name(index);
}

interface Contender {
  stored: number;
  cas: Server;
  /** Of each round. */
  perSecond: number[];
  cpu: number[];
}

/** How many releases a CAS does with few and with many sessions in its store, and what memory it takes. */
export async function sessions(): Promise<void> {
  const work = temporaryFolder();
  const contenders: Contender[] = [];
  try {
    for (const stored of [FEW, MANY]) {
      const directory = join(work, String(stored));
      const start = performance.now();
      // Without Evidence, so that what the store takes weighs as much as it can.
      await fillStore(directory, policyWith(3), names(stored));
      console.log(`${stored} sessions stored in ${((performance.now() - start) / 1000).toFixed(0)} s`);
      contenders.push({ stored, cas: await startCas(directory, '--workers', '1'), perSecond: [], cpu: [] });
    }
    for (let round = -WARM_UP; round < ROUNDS; round++)
      for (const contender of contenders) {
        const { stored, cas, perSecond, cpu } = contender;
        const cpuBefore = cpuOf(cas);
        const start = performance.now();
        await releaseMany(Number(cas.match[1]), stored);
        const seconds = (performance.now() - start) / 1000;
        if (round < 0) continue;
        perSecond.push(RELEASES / seconds);
        cpu.push((cpuOf(cas) - cpuBefore) / RELEASES);
      }
    const [few] = contenders;
    printTable(
      `Stored sessions, ${ROUNDS} rounds in turn of ${RELEASES} releases, ${AT_ONCE} at a time`,
      [
        'sessions',
        'releases a second',
        'as a multiple of the first (median of pairs)',
        'CPU time of a release',
        'as a multiple',
        'memory of the CAS, at most',
      ],
      contenders.map(({ stored, cas, perSecond, cpu }) => [
        String(stored),
        quantile(perSecond, 0.5).toFixed(0),
        medianRatio(perSecond, few?.perSecond ?? []).toFixed(2),
        milliseconds(quantile(cpu, 0.5)),
        medianRatio(cpu, few?.cpu ?? []).toFixed(2),
        `${(peakMemory(cas) / 1e6).toFixed(0)} MB`,
      ]),
    );
  } finally {
    for (const { cas } of contenders) await cas.stop();
  }
}

async function releaseMany(port: number, stored: number): Promise<void> {
  let left = RELEASES;
  const one = async () => {
    while (left-- > 0) v.assert(granted, (await askFor(name(randomInt(stored)), port)).answer);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
}
