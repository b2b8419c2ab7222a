import { randomInt } from 'node:crypto';
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { granted, LAUNCH_PROTOCOLS } from '../src/protocol/launch.ts';
import { missingRelease, present, release } from '../test/compatibility/release.ts';
import { temporaryFolder } from '../test/support/leave-nothing.ts';
import { run, type Server, startServer } from '../test/support/stack.ts';
import { fillStore } from './cas.ts';
import { askFor } from './launcher.ts';
import { comparePrograms, cpuOf, medianRatio, milliseconds, printTable, quantile } from './measure.ts';
import { policyWith } from './policy.ts';

const STORED = [1000, Number(process.env.ENVCAS_SESSIONS ?? 100_000)];
const ROUNDS = 12;
const WARM_UP = 3;
const RELEASES = 100;
const LAUNCHES = 40;

interface Contender {
  version: string;
  cas: Server;
  took: number[];
  cpu: number[];
}

/** What a release and a launch cost, beside what they cost with the last release of this program. */
export async function versions(): Promise<void> {
  if (missingRelease) throw new Error(missingRelease);
  const rows: string[][] = [];
  for (const stored of STORED) {
    const work = temporaryFolder();
    await fillStore(
      join(work, 'present'),
      policyWith(3),
      Array.from({ length: stored }, (_, index) => `service-${index}`),
    );
    cpSync(join(work, 'present'), join(work, 'release'), { recursive: true });
    const start = async ({ version, scone }: typeof present, folder: string): Promise<Contender> => {
      const serve = ['cas', 'serve', '--dir', join(work, folder), '--host', '127.0.0.1', '--workers', '1'];
      const ports = ['--api-port', '0', '--enclave-port', '0', '--log-level', 'error'];
      const cas = await startServer(scone, [...serve, ...ports], /launchers at port (\d+)/);
      return { version, cas, took: [], cpu: [] };
    };
    const contenders = [await start(release, 'release'), await start(present, 'present')];
    try {
      for (let round = -WARM_UP; round < ROUNDS; round++)
        for (const { cas, took, cpu } of contenders) {
          const before = cpuOf(cas);
          for (let count = 0; count < RELEASES; count++) {
            const session = `service-${randomInt(stored)}`;
            const asked = await askFor(session, Number(cas.match[1]), undefined, LAUNCH_PROTOCOLS);
            v.assert(granted, asked.answer);
            if (round >= 0) took.push(asked.took);
          }
          if (round >= 0) cpu.push((cpuOf(cas) - before) / RELEASES);
        }
    } finally {
      for (const { cas } of contenders) await cas.stop();
    }
    const [first] = contenders;
    for (const { version, took, cpu } of contenders) {
      const p50 = quantile(took, 0.5);
      rows.push([
        String(stored),
        version,
        milliseconds(p50),
        (p50 / quantile(first?.took ?? [], 0.5)).toFixed(2),
        milliseconds(quantile(cpu, 0.5)),
        medianRatio(cpu, first?.cpu ?? []).toFixed(2),
      ]);
    }
  }
  printTable(
    `Releases without Evidence, ${ROUNDS} rounds of ${RELEASES} in turn`,
    ['sessions', 'CAS', 'p50', 'as a multiple', 'CPU time', 'as a multiple (median of pairs)'],
    rows,
  );
  await launches();
}

/** Attested launches of /bin/true, each version with a CAS and a LAS of its own. */
async function launches(): Promise<void> {
  const stacks = await Promise.all(
    [present, release].map(async ({ version, envcas, scone }) => {
      const directory = join(temporaryFolder(), 'state');
      const home = temporaryFolder();
      const up = await startServer(
        scone,
        ['up', '--dir', directory, '--free-ports'],
        /To use them: \. (.*\/env)\n/,
        { env: { PATH: process.env.PATH, HOME: home } },
      );
      const { stdout } = run('sh', ['-c', '. "$0"; env', up.match[1] ?? ''], { HOME: home });
      const env: NodeJS.ProcessEnv = Object.fromEntries(
        stdout
          .trimEnd()
          .split('\n')
          .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
      );
      const flags = ['trust-any', 'debug', 'ignore-signer'].map((flag) => `--only_for_testing-${flag}`);
      const done = (...args: string[]) => {
        const { status, stderr } = run(scone, args, env);
        if (status !== 0) throw new Error(stderr);
      };
      done('cas', 'attest', env.SCONE_CAS_ADDR ?? '', ...flags, '-C', '-G', '-S');
      const measurement = run(envcas, [], { SCONE_HASH: '1' }).stdout.trim();
      const policy = `name: bench
version: "0.3.10"
security: {attestation: {tolerate: [debug-mode]}}
images: [{name: i, injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/true"}]}]
services: [{name: s, image_name: i, attestation: {mrenclave: ${measurement}}, command: envcas, environment: {T: $$SCONE::t$$}}]
secrets: [{name: t, kind: ascii, size: 32}]
`;
      const created = run(scone, ['session', 'create', '-'], env, policy);
      if (created.status !== 0) throw new Error(created.stderr);
      return { up, name: version, command: envcas, args: [], env: { ...env, SCONE_CONFIG_ID: 'bench/s' } };
    }),
  );
  try {
    await comparePrograms('Attested launches of /bin/true', stacks, LAUNCHES);
  } finally {
    for (const { up } of stacks) await up.stop();
  }
}
