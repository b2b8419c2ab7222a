import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sha256 } from '../las/host.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { type Result, type RunningCas, run, type Server, startCas, startServer } from '../support/stack.ts';
import type { Build } from './release.ts';

/** A CAS and a LAS, each of any version, and somebody who uses them by the programs of any version. */
export interface Host {
  folder: string;
  /** Folder for files of launches. */
  files: string;
  cas: RunningCas;
  /** The key of the LAS. */
  platform: string;
  /** Variables that lead to both. */
  env: Record<string, string>;
  /** What is known of the CAS, for the commands that attest it. */
  trust: string[];
  /** The user's `scone`; throws with what it has printed where it fails. */
  scone(build: Build, ...args: string[]): string;
  tryScone(build: Build, ...args: string[]): Result;
  /** Writes a file for a command, and gives its path. */
  file(name: string, text: string): string;
  /** Ends the CAS, and starts it with the program of a version and further options where it was. */
  restart(build: Build, ...options: string[]): Promise<void>;
  stop(): Promise<void>;
}

const measurements = new Map<string, string>();

/** SHA-256 of a program, each of which is large. */
export function measurementOf(program: string): string {
  const known = measurements.get(program) ?? sha256(program);
  measurements.set(program, known);
  return known;
}

export async function startLas(build: Build, folder: string): Promise<Server & { socket: string }> {
  const socket = join(folder, 'las.sock');
  const las = await startServer(
    build.scone,
    ['las', 'serve', '--dir', join(folder, 'las'), '--socket', socket],
    /LAS key \(platform\): (\w+)\n/,
    { env: { PATH: process.env.PATH, HOME: folder } },
  );
  return { ...las, socket };
}

/** @param options of `scone cas serve` */
export async function startHost(builds: { cas: Build; las: Build }, ...options: string[]): Promise<Host> {
  const folder = temporaryFolder();
  const plain = { PATH: process.env.PATH ?? '', HOME: folder };
  for (const name of ['files', 'cas']) mkdirSync(join(folder, name), { mode: 0o700 });
  const las = await startLas(builds.las, folder);
  const platform = las.match[1] ?? '';
  const serve = (build: Build, more: string[], ports?: { api: string; enclave: string }) =>
    startCas(
      build.scone,
      join(folder, 'cas'),
      ['--las', las.socket, '--trusted-platform', platform, ...more],
      plain,
      ports,
    );
  const cas = await serve(builds.cas, options);
  const trustOf = (build: Build) => [
    ...['--mrenclave', measurementOf(build.scone), '--trusted-platform', platform],
    ...['--only_for_testing-debug', '--only_for_testing-ignore-signer'],
  ];
  const host: Host = {
    folder,
    files: join(folder, 'files'),
    cas,
    platform,
    env: { ...plain, ...cas.settings, SCONE_LAS_ADDR: las.socket },
    trust: trustOf(builds.cas),
    scone(build, ...args) {
      const { status, stdout, stderr } = host.tryScone(build, ...args);
      if (status !== 0) throw new Error(`scone ${args.join(' ')} of ${build.version}: ${stderr}`);
      return stdout;
    },
    tryScone: (build, ...args) => run(build.scone, args, host.env),
    file(name, text) {
      const path = join(folder, 'files', name);
      writeFileSync(path, text, { mode: 0o600 });
      return path;
    },
    async restart(build, ...more) {
      await host.cas.server.stop();
      const { apiPort, enclavePort } = host.cas;
      host.cas = await serve(build, more, { api: apiPort, enclave: enclavePort });
      host.trust = trustOf(build);
    },
    async stop() {
      await Promise.all([host.cas.server.stop(), las.stop()]);
    },
  };
  return host;
}
