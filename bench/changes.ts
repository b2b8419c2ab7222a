import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Rest, rest } from '../test/support/rest.ts';
import { type Stack, startStack } from '../test/support/stack.ts';
import { milliseconds, printTable, quantile } from './measure.ts';

const FLEETS = [
  { launchers: 1, rounds: 20 },
  { launchers: 200, rounds: 5 },
];
const IDLE = 30_000;
/** In the first half minute in which it has nothing to do, V8 collects garbage, twice. */
const SETTLED = 45_000;
const PATIENCE = 60_000;

/** Each launcher writes into its own working folder. */
const policy = (stack: Stack, version: number, onChange: object | string, predecessor?: string) =>
  JSON.stringify({
    name: 'changes',
    version: '0.3.10',
    predecessor,
    security: { attestation: { tolerate: ['debug-mode'] } },
    images: [
      {
        name: 'image',
        injection_files: [
          {
            path: '/etc/envcas/config.yaml',
            content: JSON.stringify({
              program: '/bin/sh',
              injection_files: [{ from: '/in', to: '/proc/self/cwd/secret' }],
              supervise: { on_change: onChange },
            }),
          },
          { path: '/in', content: `${version} $$SCONE::token$$` },
        ],
      },
    ],
    services: [
      {
        name: 'main',
        image_name: 'image',
        attestation: { mrenclave: stack.envcasMeasurement },
        command: [
          'envcas',
          '-c',
          `${REPORT}; trap '${REPORT}' HUP; trap 'kill $!; exit' TERM; sleep 100000 & while :; do wait $!; done`,
        ],
        environment: { PATH: '/usr/bin:/bin' },
      },
    ],
    secrets: [{ name: 'token', kind: 'ascii', size: 32 }],
  });

/** What the program does when it has a new secret: it notes which, and when. */
const REPORT = 'echo $(cut -d" " -f1 secret) $(date +%s%N) >> arrived';

/** How long a changed secret takes to reach the programs, and what a launcher that waits for one costs. */
export async function changes(): Promise<void> {
  const rows: string[][] = [];
  for (const [how, onChange] of [
    ['signal', { signal: 'SIGHUP' }],
    ['restart', 'restart'],
  ] as const)
    for (const fleet of FLEETS) {
      const stack = await startStack();
      try {
        rows.push(await measureFleet(stack, rest(stack), how, onChange, fleet));
      } finally {
        await stack.stop();
      }
    }
  printTable(
    'A changed secret reaches the program, from the beginning of its upload',
    [
      'launchers',
      'by',
      'median',
      'last one, median of rounds',
      'RssAnon, median',
      `CPU time in ${IDLE / 1000} s idle, in all`,
    ],
    rows,
  );
}

async function measureFleet(
  stack: Stack,
  client: Rest,
  how: string,
  onChange: object | string,
  { launchers, rounds }: (typeof FLEETS)[number],
): Promise<string[]> {
  let hash: string | undefined;
  let version = 0;
  const upload = async () => {
    const { status, body } = await client.upload(policy(stack, ++version, onChange, hash));
    if (status !== 201) throw new Error(JSON.stringify(body));
    hash = body.hash;
  };
  await upload();
  const fleet: { child: ChildProcess; folder: string }[] = [];
  for (let index = 0; index < launchers; index++) {
    const folder = join(stack.files, `${index}`);
    mkdirSync(folder);
    const env = { ...stack.env, SCONE_CONFIG_ID: 'changes/main' };
    fleet.push({ child: spawn(stack.envcas, [], { cwd: folder, env, stdio: 'inherit' }), folder });
    // As many at once as a host starts.
    if (index % 8 === 7) await arrivals(fleet, version);
  }
  try {
    await arrivals(fleet, version);
    const ticks = () => fleet.reduce((sum, { child }) => sum + cpuTicks(child.pid ?? 0), 0);
    await sleep(SETTLED);
    const before = ticks();
    await sleep(IDLE);
    const idle = (ticks() - before) * 10;
    const all: number[] = [];
    const last: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const start = Date.now();
      await upload();
      const took = (await arrivals(fleet, version)).map((time) => time - start);
      all.push(...took);
      last.push(Math.max(...took));
    }
    const memory = fleet.map(({ child }) => privateMemory(child.pid ?? 0));
    return [
      String(launchers),
      how,
      milliseconds(quantile(all, 0.5)),
      milliseconds(quantile(last, 0.5)),
      `${quantile(memory, 0.5).toFixed(1)} MB`,
      `${idle} ms`,
    ];
  } finally {
    for (const { child } of fleet) child.kill();
    await Promise.all(fleet.map(({ child }) => new Promise((resolve) => child.once('exit', resolve))));
  }
}

/** When each program had a version, in milliseconds since 1970. */
async function arrivals(fleet: { folder: string }[], version: number): Promise<number[]> {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const times = fleet.map(({ folder }) => {
      const noted = read(join(folder, 'arrived')).match(new RegExp(`^${version} (\\d+)$`, 'm'))?.[1];
      return noted === undefined ? undefined : Number(noted) / 1e6;
    });
    if (times.every((time) => time !== undefined)) return times;
    if (Date.now() > deadline) throw new Error(`version ${version} has not arrived everywhere`);
    await sleep(50);
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Hundredths of a second of CPU time (proc_pid_stat(5)). */
function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

/** RssAnon in megabytes (proc_pid_status(5)). */
function privateMemory(pid: number): number {
  return Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]) / 1024;
}
