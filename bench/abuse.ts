import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { platformOf } from '../src/attestation/software.ts';
import { serveCas } from '../src/cas/serve.ts';
import { serveLas } from '../src/las/serve.ts';
import { sealedCas } from '../test/attacks/sealed-cas.ts';
import { temporaryFolder } from '../test/support/leave-nothing.ts';
import { balancers } from '../test/support/proxy-protocol.ts';
import { fillStore } from './cas.ts';
import { milliseconds, printTable, quantile } from './measure.ts';
import { policyWith } from './policy.ts';

const MILLISECONDS = 6000;
/** Milliseconds that an attack has to begin. */
const LEAD = 2000;
const quiet = () => {};
const log = { info: quiet, warn: quiet, error: quiet };

/** A server in this process, so that it is seen how long its event loop stands. */
interface Target {
  /** Where it is, as others and attackers are told. */
  at: string[];
  close(): Promise<void>;
}

type Key = { privateKey: KeyObject; publicKey: KeyObject };

const targets: Record<string, (work: string, key: Key) => Promise<Target>> = {
  async cas(work, { publicKey }) {
    const directory = join(work, 'cas');
    await fillStore(directory, policyWith(10, platformOf(publicKey)), ['bench']);
    const cas = await serveCas({
      ...{ directory, host: '127.0.0.1', apiPort: 0, enclavePort: 0, names: [], trustedPlatforms: [] },
      ...{ lasSocket: join(work, 'none'), balancers, log },
    });
    return { at: [String(cas.apiPort), String(cas.enclavePort)], close: () => cas.close() };
  },
  async 'sealed CAS'() {
    const { cas } = await sealedCas(
      { method: 'shares', threshold: 3, total: 5 },
      { method: 'passphrase', passphrase: Buffer.from('correct horse battery staple') },
    );
    return { at: [String(cas.apiPort)], close: () => cas.close() };
  },
  async LAS(work, { privateKey, publicKey }) {
    const socket = join(work, 'las.sock');
    // Everybody on the host may come to it.
    chmodSync(work, 0o711);
    const key = { private: privateKey, platform: platformOf(publicKey) };
    const demands = { require: [], containers: false };
    const las = await serveLas({ socket, key, casKeys: new Map(), demands, log });
    return { at: [socket], close: () => las.close() };
  },
};

/**
 * What others wait for while somebody at another address does what costs a server most, beside what they wait for when he
 * does not.
 */
export async function abuse(): Promise<void> {
  for (const name of Object.keys(targets)) await attackTarget(name);
}

async function attackTarget(target: string): Promise<void> {
  const work = temporaryFolder();
  const path = join(work, 'las.pem');
  const key = generateKeyPairSync('ed25519');
  writeFileSync(path, key.privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  const server = await targets[target]?.(work, key);
  if (!server) return;
  const attack = (...args: string[]) => run('abuse-attacker.ts', [target, ...args]);
  const loop = monitorEventLoopDelay({ resolution: 1 });
  const measure = async () => {
    loop.reset();
    loop.enable();
    const others = run('abuse-honest.ts', [target, path, String(MILLISECONDS), ...server.at]);
    const printed = await text(others.stdout as NonNullable<ChildProcess['stdout']>);
    loop.disable();
    const { took, refused }: { took: Record<string, number[]>; refused: number } = JSON.parse(printed);
    return { took, refused, longest: loop.max / 1e6, memory: process.memoryUsage.rss() / 1e6 };
  };
  try {
    const names: string[] = JSON.parse(await text(attack().stdout as NonNullable<ChildProcess['stdout']>));
    // Warm.
    await measure();
    const idle = await measure();
    const shown = ({ took, refused, longest, memory }: typeof idle) => {
      const cells = Object.entries(took).flatMap(([what, own]) =>
        [0.5, 0.99].map((q) => {
          const ratio = quantile(own, q) / quantile(idle.took[what] ?? [], q);
          return `${milliseconds(quantile(own, q))} (${ratio.toFixed(1)})`;
        }),
      );
      return [...cells, String(refused), milliseconds(longest), `${memory.toFixed(0)} MB`];
    };
    const rows = [['nothing', ...shown(idle)]];
    for (const name of names) {
      const attacker = attack(name, ...server.at);
      await sleep(LEAD);
      rows.push([name, ...shown(await measure())]);
      attacker.kill('SIGKILL');
      await once(attacker, 'exit');
      await sleep(LEAD);
    }
    printTable(
      `What others wait for under attack, beside an idle ${target} (ratio); attacker and others share its machine, he at the lowest priority`,
      [
        'attack',
        ...Object.keys(idle.took).flatMap((what) => [`${what} p50`, 'p99']),
        ...['refused', 'longest of the event loop', 'memory'],
      ],
      rows,
    );
  } finally {
    await server.close();
  }
}

function run(script: string, args: string[]): ChildProcess {
  const file = resolve(import.meta.dirname, script);
  return spawn(process.execPath, ['--disable-warning=ExperimentalWarning', file, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}
