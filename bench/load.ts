import { spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import * as v from 'valibot';
import { platformOf } from '../src/attestation/software.ts';
import { granted } from '../src/protocol/launch.ts';
import { temporaryFolder } from '../test/support/leave-nothing.ts';
import { type Postgres, startPostgres } from '../test/support/postgres.ts';
import { executables, run, type Server, startServer } from '../test/support/stack.ts';
import { fillStore, startCas } from './cas.ts';
import { askFor } from './launcher.ts';
import type { Load, Served } from './load-client.ts';
import { cpuOf, milliseconds, presentMemory, printTable, quantile } from './measure.ts';
import { policyWith } from './policy.ts';

const SECRETS = 10;
const CLIENTS = [1, 32, 256];
const ROUNDS = 3;
/** Releases by which a server has the speed that it keeps. */
const WARM_UP = { clients: 32, launches: 4000 };
const MILLISECONDS = 3000;
const STORM = 1000;
const [FIRST, ALL] = [10_000, Number(process.env.ENVCAS_RELEASES ?? 100_000)];

type Engine = 'SQLite' | 'PostgreSQL';

/** What is under load: a CAS with a session of ten secrets, and who vouches for those that come to it. */
interface UnderLoad {
  cas: Server;
  port: number;
  /** File with the key of the LAS. */
  key: string;
  /** Bytes of an answer. */
  bytes: number;
}

/** Full releases of many launchers at a time, beside a bare HTTPS server with the same handshakes and as many bytes. */
export async function load(): Promise<void> {
  const rows: string[][] = [];
  for (const engine of ['SQLite', 'PostgreSQL'] as const)
    for (const processes of [1, availableParallelism()])
      await underLoad(engine, processes, async ({ cas, port, key, bytes }) => {
        const bare = await startServer(
          process.execPath,
          [resolve(import.meta.dirname, 'load-server.ts'), String(bytes), String(processes)],
          /^(\d+)$/m,
        );
        const contenders = [
          { server: cas, to: 'cas', port },
          { server: bare, to: 'https', port: Number(bare.match[1]) },
        ] as const;
        for (const { to, port } of contenders) await generate({ to, port, key, ...WARM_UP });
        for (const clients of CLIENTS) {
          const results = contenders.map(() => ({
            perSecond: [] as number[],
            cpu: [] as number[],
            took: [] as number[],
          }));
          for (let round = -1; round < ROUNDS; round++)
            for (const [index, { server, to, port }] of contenders.entries()) {
              const before = cpuOf(server);
              const served = await generate({ to, port, clients, key, milliseconds: MILLISECONDS });
              if (round < 0) continue;
              results[index]?.perSecond.push((served.count / served.passed) * 1000);
              results[index]?.cpu.push((cpuOf(server) - before) / served.count);
              results[index]?.took.push(...served.took);
            }
          const [ours, theirs] = results;
          if (!ours || !theirs) continue;
          const median = (values: number[]) => quantile(values, 0.5);
          rows.push([
            `${engine}, ${processes}`,
            String(clients),
            ...[ours, theirs].flatMap(({ perSecond, took }) => [
              median(perSecond).toFixed(0),
              milliseconds(quantile(took, 0.5)),
              milliseconds(quantile(took, 0.99)),
            ]),
            (median(ours.perSecond) / median(theirs.perSecond)).toFixed(2),
            milliseconds(median(ours.cpu)),
            milliseconds(median(theirs.cpu)),
            (median(theirs.cpu) / median(ours.cpu)).toFixed(2),
          ]);
        }
        await bare.stop();
      });
  printTable(
    `Releases under load, ${ROUNDS} rounds of ${MILLISECONDS / 1000} s in turn, those who come being on the same machine`,
    [
      ...['store, processes', 'clients', 'releases/s', 'p50', 'p99', 'bare/s', 'p50', 'p99', 'ratio'],
      ...['CPU of a release', 'of bare', 'bare by release'],
    ],
    rows,
  );
}

/** How long a thousand launchers take who all come at once, as after a power cut. */
export async function storm(): Promise<void> {
  const rows: string[][] = [];
  for (const engine of ['SQLite', 'PostgreSQL'] as const)
    await underLoad(engine, availableParallelism(), async ({ port, key }) => {
      const served = await generate({ to: 'cas', port, clients: STORM, launches: STORM, key });
      rows.push([
        engine,
        String(served.count),
        String(Object.values(served.failed).reduce((sum, count) => sum + count, 0)),
        milliseconds(quantile(served.took, 0.5)),
        milliseconds(served.passed),
      ]);
    });
  printTable(`${STORM} launchers at once`, ['store', 'served', 'not served', 'p50', 'until the last'], rows);
}

/** What memory a CAS takes after some releases, and after many. */
export async function memory(): Promise<void> {
  const rows: string[][] = [];
  await underLoad('SQLite', 1, async ({ cas, port, key }) => {
    const serve = (launches: number) => generate({ to: 'cas', port, clients: 32, launches, key });
    await serve(FIRST);
    const first = presentMemory(cas);
    for (let count = FIRST; count < ALL; count += FIRST) await serve(Math.min(FIRST, ALL - count));
    const last = presentMemory(cas);
    const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(0)} MB`;
    rows.push([megabytes(first), megabytes(last), (last / first).toFixed(2)]);
  });
  printTable(
    `Memory of a CAS of one process after ${FIRST} and after ${ALL} releases`,
    ['first', 'last', 'ratio'],
    rows,
  );
}

async function underLoad(
  engine: Engine,
  processes: number,
  use: (its: UnderLoad) => Promise<void>,
): Promise<void> {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const las = { private: privateKey, platform: platformOf(publicKey) };
  const work = temporaryFolder();
  const key = join(work, 'las.pem');
  let postgres: Postgres | undefined;
  try {
    writeFileSync(key, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
    const directory = join(work, 'cas');
    await fillStore(directory, policyWith(SECRETS, las.platform), ['bench']);
    let store = `sqlite:${join(directory, 'cas.db')}`;
    if (engine === 'PostgreSQL') {
      postgres = await startPostgres([]);
      const to = await postgres.database();
      const moved = run(executables().scone, ['cas', 'migrate', '--from', store, '--to', to], process.env);
      if (moved.status !== 0) throw new Error(moved.stderr);
      store = to;
    }
    const cas = await startCas(directory, '--store', store, '--workers', String(processes));
    try {
      const port = Number(cas.match[1]);
      const { answer } = await askFor('bench', port, las);
      const bytes = Buffer.byteLength(JSON.stringify(v.parse(granted, answer) && answer));
      await use({ cas, port, key, bytes });
    } finally {
      await cas.stop();
    }
  } finally {
    await postgres?.stop();
  }
}

/** Has a process of its own make the load, so that it is in nobody's way here. */
async function generate(load: Load): Promise<Served> {
  const child = spawn(
    process.execPath,
    [
      '--disable-warning=ExperimentalWarning',
      resolve(import.meta.dirname, 'load-client.ts'),
      JSON.stringify(load),
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const served = JSON.parse(await text(child.stdout)) as Served;
  const failed = JSON.stringify(served.failed);
  if (failed !== '{}') console.log(`not served: ${failed}`);
  return served;
}
