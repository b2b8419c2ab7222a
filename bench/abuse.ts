import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { platformOf } from '../src/attestation/software.ts';
import { serveCas } from '../src/cas/serve.ts';
import { temporaryFolder } from '../test/support/leave-nothing.ts';
import { fillStore } from './cas.ts';
import { milliseconds, printTable, quantile } from './measure.ts';
import { policyWith } from './policy.ts';

const MILLISECONDS = 6000;
/** Milliseconds that an attack has to begin. */
const LEAD = 2000;

interface Honest {
  launches: number[];
  uploads: number[];
}

/**
 * What others wait for while somebody at another address does what costs a CAS most, beside what they wait for when he does
 * not. The CAS is one process: this one, so that it is seen how long its event loop stands.
 */
export async function abuse(): Promise<void> {
  const quiet = () => {};
  const work = temporaryFolder();
  const key = join(work, 'las.pem');
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  writeFileSync(key, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  const directory = join(work, 'cas');
  await fillStore(directory, policyWith(10, platformOf(publicKey)), ['bench']);
  const cas = await serveCas({
    ...{ directory, host: '127.0.0.1', apiPort: 0, enclavePort: 0, names: [], trustedPlatforms: [] },
    ...{ lasSocket: join(work, 'none'), log: { info: quiet, warn: quiet, error: quiet } },
  });
  const ports = [String(cas.apiPort), String(cas.enclavePort)];
  const attack = (...args: string[]) => run('abuse-attacker.ts', args);
  const loop = monitorEventLoopDelay({ resolution: 1 });
  const measure = async (): Promise<Honest & { longest: number; memory: number }> => {
    loop.reset();
    loop.enable();
    const honest = run('abuse-honest.ts', [...ports, key, String(MILLISECONDS)]);
    const result = JSON.parse(await text(honest.stdout as NonNullable<ChildProcess['stdout']>)) as Honest;
    loop.disable();
    return { ...result, longest: loop.max / 1e6, memory: process.memoryUsage.rss() / 1e6 };
  };
  try {
    const names: string[] = JSON.parse(await text(attack().stdout as NonNullable<ChildProcess['stdout']>));
    // Warm.
    await measure();
    const idle = await measure();
    const shown = ({ launches, uploads, longest, memory }: Awaited<ReturnType<typeof measure>>) => {
      const cells = [launches, uploads].flatMap((own, at) => {
        const its = [idle.launches, idle.uploads][at] ?? [];
        return [0.5, 0.99].map((q) => {
          const ratio = quantile(own, q) / quantile(its, q);
          return `${milliseconds(quantile(own, q))} (${ratio.toFixed(1)})`;
        });
      });
      return [...cells, milliseconds(longest), `${memory.toFixed(0)} MB`];
    };
    const rows = [['nothing', ...shown(idle)]];
    for (const name of names) {
      const attacker = attack(name, ...ports);
      await sleep(LEAD);
      rows.push([name, ...shown(await measure())]);
      attacker.kill('SIGKILL');
      await once(attacker, 'exit');
      await sleep(LEAD);
    }
    printTable(
      'What others wait for under attack, beside an idle CAS (ratio); attacker and others are on the same machine',
      ['attack', ...['launch p50', 'p99', 'upload p50', 'p99'], ...['longest of the event loop', 'memory']],
      rows,
    );
  } finally {
    await cas.close();
  }
}

function run(script: string, args: string[]): ChildProcess {
  const file = resolve(import.meta.dirname, script);
  return spawn(process.execPath, ['--disable-warning=ExperimentalWarning', file, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}
