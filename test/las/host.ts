import { spawn } from 'node:child_process';
import { createHash, generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync, readdirSync, readFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { createServer as createTlsServer } from 'node:tls';
import { openLasKey } from '../../src/las/key.ts';
import type { Demands } from '../../src/las/measure.ts';
import { serveLas } from '../../src/las/serve.ts';
import { formatKeyHash, publicKeyDigest } from '../../src/policy/key-hash.ts';
import { selfSignedCertificate } from '../../src/protocol/certificate.ts';
import { frames } from '../../src/protocol/frame.ts';
import {
  CONFIGURATION_LIMIT,
  type ConfigurationMessage,
  LAUNCH_PROTOCOL,
} from '../../src/protocol/launch.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { executables } from '../support/stack.ts';

const fixtures = resolve(import.meta.dirname, '../fixtures/las');

/** What a fixture program says on one line. */
export type Word = Record<string, unknown>;

/** A program under the test's orders. */
export interface Puppet {
  pid: number;
  exited: Promise<unknown>;
  tell(order: string | object): void;
  /** The next line it says. */
  hear(): Promise<Word>;
  stop(): Promise<void>;
}

export interface StartOptions {
  executable?: string;
  argv0?: string;
  env?: Record<string, string>;
  raw?: boolean;
}

export const undemanding: Demands = { require: [], containers: false };

/** A LAS in this process, and everything that a test starts; all of it ends with close(). */
export class Host {
  readonly directory = temporaryFolder();
  readonly socket = join(this.directory, 'las.sock');
  readonly key = openLasKey(join(this.directory, 'las.key'));
  readonly node = process.execPath;
  /** A copy of the launcher, as others may build dist/ anew meanwhile. */
  readonly envcas = join(this.directory, 'envcas');
  readonly #puppets = new Set<Puppet>();
  readonly #servers = new Set<{ close(): Promise<void> }>();

  async start(demands: Demands = undemanding): Promise<void> {
    copyFileSync(executables().envcas, this.envcas);
    const log = { info() {}, warn() {} };
    this.#servers.add(
      await serveLas({ socket: this.socket, key: this.key, casKeys: new Map(), demands, log }),
    );
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  fixture(name: string): string {
    return join(fixtures, name);
  }

  /** Starts a fixture program, or with `raw` whatever the arguments say. */
  puppet(args: readonly string[], options: StartOptions = {}): Puppet {
    const { executable = this.node, argv0, env = {}, raw = false } = options;
    const [fixture = '', ...rest] = args;
    const all = raw ? args : ['--disable-warning=ExperimentalWarning', this.fixture(fixture), ...rest];
    const child = spawn(executable, all, {
      // Node's test runner has variables of its own, with which the LAS would take nobody.
      env: { PATH: process.env.PATH ?? '', ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(argv0 === undefined ? {} : { argv0 }),
    });
    let complaints = '';
    child.stderr.on('data', (chunk) => {
      complaints += chunk;
    });
    child.stdin.on('error', () => {});
    const exited = once(child, 'exit');
    const words: Word[] = [];
    let ended = false;
    let wake = () => {};
    createInterface(child.stdout)
      .on('line', (line) => {
        words.push(JSON.parse(line) as Word);
        wake();
      })
      .on('close', () => {
        ended = true;
        wake();
      });
    const puppet: Puppet = {
      pid: child.pid ?? -1,
      exited,
      tell: (order) =>
        void child.stdin.write(`${typeof order === 'string' ? order : JSON.stringify(order)}\n`),
      hear: async () => {
        for (;;) {
          const word = words.shift();
          if (word) return word;
          else if (ended) throw new Error(`${args[0]} has said everything: ${complaints}`);
          else
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
        }
      },
      stop: async () => {
        this.#puppets.delete(puppet);
        child.kill('SIGKILL');
        await exited;
        // Whoever it has started may hold the other ends.
        for (const stream of [child.stdin, child.stdout, child.stderr]) stream.destroy();
      },
    };
    this.#puppets.add(puppet);
    return puppet;
  }

  /** A CAS of the attacker: it lets the first launcher wait until it is granted a program, the others for ever. */
  async falseCas(): Promise<{ env: Record<string, string>; grant(program: string): void }> {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const granted = Promise.withResolvers<string>();
    const server = createTlsServer({
      key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
      cert: await selfSignedCertificate({
        key: privateKey,
        commonName: 'false',
        names: ['localhost'],
        notBefore: new Date(Date.now() - 60_000),
        notAfter: new Date(Date.now() + 3_600_000),
      }),
      minVersion: 'TLSv1.3',
      ALPNProtocols: [LAUNCH_PROTOCOL],
    });
    server.once('secureConnection', async (socket) => {
      const configuration: ConfigurationMessage = {
        command: [['envcas']],
        environment: {},
        hostEnvironment: [],
        launcher: { program: await granted.promise },
        files: [],
        secrets: [],
      };
      frames(socket, CONFIGURATION_LIMIT).write({ configuration });
    });
    const port = await this.#listen(server);
    return {
      env: {
        SCONE_CONFIG_ID: 'attacker/service',
        SCONE_CAS_ADDR: `127.0.0.1:${port}`,
        SCONE_CAS_KEY: formatKeyHash(publicKeyDigest(publicKey)),
        SCONE_LAS_ADDR: this.path('none.sock'),
      },
      grant: granted.resolve,
    };
  }

  /** Environment with which envcas waits for a CAS that never answers. */
  async waiting(): Promise<Record<string, string>> {
    const port = await this.#listen(createServer());
    return {
      SCONE_CONFIG_ID: 'some/service',
      SCONE_CAS_ADDR: `127.0.0.1:${port}`,
      SCONE_LAS_ADDR: this.path('none.sock'),
      SCONE_START_TIMEOUT: '1h',
    };
  }

  async #listen(server: Server): Promise<number> {
    const open = new Set<Socket>();
    server.on('connection', (socket: Socket) => {
      open.add(socket.on('error', () => {}));
    });
    server.on('tlsClientError', () => {});
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    this.#servers.add({
      close: async () => {
        for (const socket of open) socket.destroy();
        server.close();
      },
    });
    return (server.address() as AddressInfo).port;
  }

  /** Ends what a test has started. */
  async clean(): Promise<void> {
    await Promise.all([...this.#puppets].map((puppet) => puppet.stop()));
    // What puppets have left a socket to, which a busy machine may not have let say so yet.
    for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name)))
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
        if (command.includes('keep-socket.ts') && command.includes(this.directory))
          process.kill(Number(pid), 'SIGKILL');
      } catch {
        // It has ended, or is another user's.
      }
  }

  async close(): Promise<void> {
    await this.clean();
    await Promise.all([...this.#servers].map((server) => server.close()));
  }
}

export function sha256(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}
