import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cannotSeeMappedFiles } from '../../src/platform/process.ts';
import { sha256 } from '../las/host.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { freePort } from '../support/port.ts';
import {
  executables,
  lacking,
  missing,
  type Result,
  type RunningCas,
  run,
  type Server,
  startCas,
  startServer,
} from '../support/stack.ts';

/** The system user that the CAS of the host runs as, and an ordinary user, who attacks. */
export const CAS_USER = 61001;
export const ATTACKER = 61002;

/** For the `skip` of tests of such a host. */
export const noHost = (() => {
  if (process.getuid?.() !== 0) return 'only root has a host with several users';
  const lacks = missing('setpriv') || lacking('SYS_PTRACE');
  if (lacks) return lacks;
  return cannotSeeMappedFiles() ? 'root may not look at what is mapped here (CAP_CHECKPOINT_RESTORE)' : false;
})();

/** A host whose LAS runs as root, as the packaged unit starts it for a CAS, and whose CAS runs as a user of its own. */
export class AttackedHost {
  readonly folder = temporaryFolder();
  readonly scone = join(this.folder, 'bin/scone');
  readonly envcas = join(this.folder, 'bin/envcas');
  readonly las = join(this.folder, 'run/las.sock');
  platform = '';
  readonly #servers: Server[] = [];

  async start(): Promise<void> {
    chmodSync(this.folder, 0o755);
    for (const name of ['bin', 'run', 'owner']) mkdirSync(join(this.folder, name));
    const built = executables();
    copyFileSync(built.scone, this.scone);
    copyFileSync(built.envcas, this.envcas);
    for (const path of [this.scone, this.envcas]) chmodSync(path, 0o755);
    const args = ['--dir', join(this.folder, 'las'), '--socket', this.las, '--containers'];
    const las = await startServer(
      this.scone,
      ['las', 'serve', ...args, '--require', 'root-owned-code'],
      /LAS key \(platform\): (\w+)\n/,
      { env: this.env },
    );
    this.#servers.push(las);
    this.platform = las.match[1] ?? '';
  }

  async stop(): Promise<void> {
    await Promise.all(this.#servers.map((server) => server.stop('SIGKILL')));
  }

  /** A folder that belongs to a user. */
  folderOf(user: number, name: string): string {
    const path = join(this.folder, name);
    mkdirSync(path, { mode: 0o700 });
    chownSync(path, user, user);
    return path;
  }

  /** A CAS that is open. */
  async cas(user: number, directory: string, ...options: string[]): Promise<RunningCas> {
    const all = ['--las', this.las, '--trusted-platform', this.platform, '--log-level', 'warn', ...options];
    const env = { ...this.env, HOME: directory };
    const cas = await startCas(this.scone, directory, all, env, undefined, { uid: user, gid: user });
    this.#servers.push(cas.server);
    return cas;
  }

  /** A CAS that opens by shares, which nobody gives it: it is sealed, unless another gives it the root key. */
  async closedCas(user: number, directory: string, ...options: string[]) {
    const env = { ...this.env, HOME: directory };
    const { stdout } = run(
      'setpriv',
      [...as(user), this.scone, 'cas', 'init', '--dir', directory, '--shares', '2/3'],
      env,
    );
    const shares = stdout.match(/^\S{40,}$/gm) ?? [];
    const port = String(await freePort());
    const listening = ['--host', '127.0.0.1', '--api-port', port, '--enclave-port', '0', '--workers', '1'];
    const server = await startServer(
      'setpriv',
      [
        ...as(user),
        this.scone,
        'cas',
        'serve',
        '--dir',
        directory,
        '--las',
        this.las,
        ...listening,
        ...options,
      ],
      /To open it: .*\n|^CAS ready/m,
      { env },
    );
    this.#servers.push(server);
    return { server, address: `127.0.0.1:${port}`, shares };
  }

  /** The owner's environment, who works elsewhere; just his files are here. */
  get env(): NodeJS.ProcessEnv {
    return { PATH: process.env.PATH, HOME: join(this.folder, 'owner') };
  }

  run(...args: string[]): Result {
    return run(this.scone, args, this.env);
  }

  /** @throws where it fails */
  ask(...args: string[]): string {
    const { status, stdout, stderr } = this.run(...args);
    if (status !== 0) throw new Error(`scone ${args.join(' ')}: ${stderr}`);
    return stdout;
  }

  /** What is known of a CAS on this host. */
  get trust(): string[] {
    return [
      ...['--mrenclave', sha256(this.scone), '--trusted-platform', this.platform, '--retries', '0'],
      ...['--only_for_testing-debug', '--only_for_testing-ignore-signer'],
    ];
  }

  /** Makes the owner of a CAS, which is pinned then. */
  own({ apiPort, key, server }: RunningCas, ...options: string[]): void {
    const file = (name: string, text: string) => {
      writeFileSync(join(this.folder, 'owner', name), text, { mode: 0o600 });
      return join(this.folder, 'owner', name);
    };
    const [, token = ''] = /^CAS provisioning token: (\w+)$/m.exec(server.output()) ?? [];
    const address = `127.0.0.1:${apiPort}`;
    const files = [
      ...['--config-file', file('owner.toml', '[api_identity]\ncommon_name = "cas"\n')],
      ...['--token-file', file('token', token)],
    ];
    this.ask('cas', 'provision', address, 'with-attestation', ...this.trust, ...options, '-c', key, ...files);
    this.ask('cas', 'attest', address, ...this.trust, ...options, '-c', key);
  }

  /** Entries of the audit log of the owner's CAS. */
  entries(): Record<string, unknown>[] {
    return this.ask('cas', 'read-audit-log')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
  }
}

export const as = (user: number): string[] => [`--reuid=${user}`, `--regid=${user}`, '--clear-groups'];

/** What one user reads of another process's memory: an error's text where he may not. */
export function readMemory(user: number, pid: number): string {
  const look = `
const { openSync, readFileSync, readSync } = require('node:fs');
try {
  const [start] = readFileSync('/proc/${pid}/maps', 'latin1').split('-', 1);
  readSync(openSync('/proc/${pid}/mem', 'r'), Buffer.alloc(64), 0, 64, parseInt(start, 16));
  console.log('it was read');
} catch (error) {
  console.log(error.code);
}`;
  const { stdout } = spawnSync('setpriv', [...as(user), process.execPath, '-e', look], { encoding: 'utf8' });
  return stdout.trim();
}

/** Processes of a server: its own, and those that it has started. */
export function processesOf({ process: { pid } }: Server): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .trim()
    .split(' ')
    .filter(Boolean);
  return [pid ?? 0, ...children.map(Number)];
}
