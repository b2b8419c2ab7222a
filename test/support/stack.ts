import { type ChildProcess, execFileSync, type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join, resolve } from 'node:path';
import { temporaryFolder } from './leave-nothing.ts';
import { freePorts } from './port.ts';
import { PATIENCE } from './until.ts';

const root = resolve(import.meta.dirname, '../..');

/** The built executables; built now where they are missing. */
export function executables(): { envcas: string; scone: string } {
  const dist = join(root, 'dist');
  if (!existsSync(join(dist, 'envcas')) || !existsSync(join(dist, 'scone')))
    execFileSync(process.execPath, [join(root, 'scripts/build.ts')], { stdio: 'inherit' });
  return { envcas: join(dist, 'envcas'), scone: join(dist, 'scone') };
}

/** For the `skip` of a test that needs other people's programs: which of them this machine lacks, or false. */
export function missing(...programs: string[]): string | false {
  const absent = programs.filter(
    (program) => spawnSync('/bin/sh', ['-c', 'command -v "$0"', program]).status !== 0,
  );
  return absent.length > 0 ? `not installed: ${absent.join(', ')}` : false;
}

/** Bits of capabilities(7) that root has outside of containers. */
const capabilities = { SYS_PTRACE: 19n, SYS_ADMIN: 21n };

/** For the `skip` of a test that only root can do, and not in every container. */
export function lacking(capability: keyof typeof capabilities): string | false {
  const [, effective = '0'] = /^CapEff:\t(\w+)$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
  const has = (BigInt(`0x${effective}`) >> capabilities[capability]) & 1n;
  return has === 0n && `this needs CAP_${capability}`;
}

/** For the `skip` of a test that looks at a launcher from outside, which only its /proc shows. */
export const hidden =
  process.getuid?.() !== 0 &&
  / \/proc proc \S*\bhidepid=(?!0|off)/.test(readFileSync('/proc/self/mounts', 'utf8')) &&
  '/proc hides processes here (hidepid)';

/** The variables in a file of `scone up`, as a shell reads them. */
export function environmentIn(file: string): Record<string, string> {
  const env = { PATH: process.env.PATH };
  const words = execFileSync('/bin/sh', ['-c', '. "$0" && exec env -0', file], { env, encoding: 'utf8' });
  const variables = words.matchAll(/(?<=^|\0)(SCONE_\w+)=([^\0]*)/g);
  return Object.fromEntries(Array.from(variables, ([, name = '', value = '']) => [name, value]));
}

/** The name of the user that this runs as; empty where the system knows none, as in a container. */
export const ownName = (() => {
  try {
    return userInfo().username;
  } catch {
    return '';
  }
})();

/** For the `skip` of a test that needs such a name. */
export const nameless = ownName === '' && 'the system knows no name of this user';

export interface Server {
  process: ChildProcess;
  /** What its ready line said. */
  match: RegExpExecArray;
  /** Everything it has written so far. */
  output(): string;
  stop(signal?: NodeJS.Signals): Promise<number | null>;
}

/** Starts a server and waits until its output matches. */
export async function startServer(
  command: string,
  args: string[],
  ready: RegExp,
  options: SpawnOptions = {},
): Promise<Server> {
  const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const exited = new Promise<number | null>((resolve) => child.on('exit', resolve));
  const match = await new Promise<RegExpExecArray>((resolve, reject) => {
    const look = (chunk: Buffer) => {
      output += chunk;
      const found = ready.exec(output);
      if (found) resolve(found);
    };
    child.stdout?.on('data', look);
    child.stderr?.on('data', look);
    child.on('error', reject);
    child.on('exit', (code) => reject(new Error(`${command} ended with ${code}: ${output}`)));
  });
  return {
    process: child,
    match,
    output: () => output,
    stop: (signal = 'SIGTERM') => {
      child.kill(signal);
      return exited;
    },
  };
}

export interface Result {
  status: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export function run(command: string, args: string[], env: NodeJS.ProcessEnv, input?: string): Result {
  const { status, signal, stdout, stderr, error } = spawnSync(command, args, {
    env,
    encoding: 'utf8',
    timeout: PATIENCE,
    // A bash that finds a socket on standard input takes it for a remote shell, and reads start-up files.
    ...(input === undefined ? { stdio: ['ignore', 'pipe', 'pipe'] } : { input }),
  });
  if (error) throw error;
  return { status, signal, stdout, stderr };
}

let measured: string | undefined;

/** Of the launcher, which is large: it is hashed once, and where a test needs it. */
function measurementOf(envcas: string): string {
  measured ??= run(envcas, [], { SCONE_HASH: '1' }).stdout.trim();
  return measured;
}

/** A CAS and a LAS in a folder of their own, and a user who has attested the CAS. */
export interface Stack {
  directory: string;
  /** Folder for the test's own files. */
  files: string;
  envcas: string;
  envcasMeasurement: string;
  /** The user's environment, with the addresses of CAS and LAS. */
  env: Record<string, string>;
  server: Server;
  /** Runs `scone`; throws with what it printed where it fails. */
  scone(...args: string[]): string;
  tryScone(...args: string[]): Result;
  /** Uploads a session text and gives its hash. */
  create(text: string, ...args: string[]): string;
  launch(configId: string, options?: { args?: string[]; env?: NodeJS.ProcessEnv }): Result;
  restart(signal: NodeJS.Signals): Promise<void>;
  stop(): Promise<void>;
}

/** A CAS as a process of its own, on this host alone. */
export interface RunningCas {
  server: Server;
  apiPort: string;
  enclavePort: string;
  key: string;
  /** Variables that lead to it. */
  settings: Record<string, string>;
}

/**
 * One process, whatever cores there are; tests of several ask for as many.
 * @param options of `scone cas serve`, beside where it listens
 * @param ports free ones where it is undefined
 * @param user whom it runs as, where not as the tests
 */
export async function startCas(
  scone: string,
  directory: string,
  options: readonly string[],
  env: NodeJS.ProcessEnv,
  ports?: { api: string; enclave: string },
  user?: Pick<SpawnOptions, 'uid' | 'gid'>,
): Promise<RunningCas> {
  const first = await freePorts(2);
  const { api, enclave } = ports ?? { api: `${first}`, enclave: `${first + 1}` };
  const listening = ['--host', '127.0.0.1', '--api-port', api, '--enclave-port', enclave];
  const server = await startServer(
    scone,
    ['cas', 'serve', '--dir', directory, '--workers', '1', ...listening, ...options],
    /at https:\/\/127\.0\.0\.1:(\d+)\/, launchers at port (\d+)\nCAS key hash: (\w+)\n/,
    { env, ...user },
  );
  const [, apiPort = '', enclavePort = '', key = ''] = server.match;
  const settings = {
    SCONE_CAS_ADDR: 'localhost',
    SCONE_CAS_API_PORT: apiPort,
    SCONE_CAS_ENCLAVE_PORT: enclavePort,
    SCONE_CAS_KEY: key,
  };
  return { server, apiPort, enclavePort, key, settings };
}

/** A CAS and a LAS as processes of their own, which can end and come back where they were. */
export interface Apart extends Pick<Stack, 'directory' | 'files' | 'envcas' | 'envcasMeasurement' | 'env'> {
  cas: Server;
  las: Server;
  /** @param env variables beside the usual ones */
  startCas(env?: NodeJS.ProcessEnv): Promise<void>;
  startLas(): Promise<void>;
  stop(): Promise<void>;
}

export async function startApart(logLevel = 'info'): Promise<Apart> {
  const { envcas, scone } = executables();
  const home = temporaryFolder();
  const files = join(home, 'files');
  const directory = join(home, 'state');
  for (const folder of [files, directory]) mkdirSync(folder);
  const plain = { PATH: process.env.PATH ?? '', HOME: home };
  const socket = join(directory, 'las.sock');
  const logging = ['--log-level', logLevel];
  const serveLas = () =>
    startServer(
      scone,
      ['las', 'serve', '--dir', join(directory, 'las'), '--socket', socket, ...logging],
      /LAS key \(platform\): (\w+)\n/,
      { env: plain },
    );
  const las = await serveLas();
  const serveCas = (ports?: { api: string; enclave: string }, env?: NodeJS.ProcessEnv) => {
    const options = ['--las', socket, '--trusted-platform', las.match[1] ?? '', ...logging];
    return startCas(scone, join(directory, 'cas'), options, { ...plain, ...env }, ports);
  };
  const { server: cas, apiPort, enclavePort, settings } = await serveCas();
  const apart: Apart = {
    directory,
    files,
    envcas,
    get envcasMeasurement() {
      return measurementOf(envcas);
    },
    env: { ...plain, ...settings, SCONE_LAS_ADDR: socket },
    cas,
    las,
    async startCas(env) {
      apart.cas = (await serveCas({ api: apiPort, enclave: enclavePort }, env)).server;
    },
    async startLas() {
      apart.las = await serveLas();
    },
    async stop() {
      await Promise.all([apart.cas.stop(), apart.las.stop()]);
    },
  };
  return apart;
}

export async function startStack(): Promise<Stack> {
  const { envcas, scone } = executables();
  const home = temporaryFolder();
  const directory = join(home, 'state');
  const files = join(home, 'files');
  mkdirSync(files);
  const plain = { PATH: process.env.PATH ?? '', HOME: home };
  const startUp = () =>
    startServer(scone, ['up', '--dir', directory, '--free-ports', '--log-level', 'info'], /To use them/, {
      env: plain,
    });
  const readEnvironment = () => environmentIn(join(directory, 'env'));

  const stack: Stack = {
    directory,
    files,
    envcas,
    get envcasMeasurement() {
      return measurementOf(envcas);
    },
    env: {},
    server: await startUp(),
    scone(...args) {
      const result = stack.tryScone(...args);
      if (result.status !== 0) throw new Error(`scone ${args.join(' ')}: ${result.stderr}`);
      return result.stdout;
    },
    tryScone: (...args) => run(scone, args, stack.env),
    create(text, ...args) {
      const result = run(scone, ['session', 'create', ...args, '-'], stack.env, text);
      if (result.status !== 0) throw new Error(`scone session create: ${result.stderr}`);
      return result.stdout.trim();
    },
    launch: (configId, { args = [], env = {} } = {}) =>
      run(envcas, args, { ...stack.env, SCONE_CONFIG_ID: configId, ...env }),
    async restart(signal) {
      await stack.server.stop(signal);
      stack.server = await startUp();
      stack.env = { ...plain, ...readEnvironment() };
      attest();
    },
    async stop() {
      await stack.server.stop();
    },
  };
  const attest = () =>
    stack.scone(
      'cas',
      'attest',
      stack.env.SCONE_CAS_ADDR ?? '',
      '--only_for_testing-trust-any',
      '--only_for_testing-debug',
      '--only_for_testing-ignore-signer',
      '-C',
      '-G',
      '-S',
    );
  stack.env = { ...plain, ...readEnvironment() };
  attest();
  return stack;
}
