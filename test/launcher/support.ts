import assert from 'node:assert/strict';
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import { createHmac, generateKeyPairSync, randomBytes, X509Certificate } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync } from 'node:fs';
import { request } from 'node:https';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import { type ErrorCode, errors } from '../../src/errors.ts';
import { formatKeyHash, publicKeyDigest } from '../../src/policy/key-hash.ts';
import { selfSignedCertificate } from '../../src/protocol/certificate.ts';
import { LAUNCH_PROTOCOL } from '../../src/protocol/launch.ts';
import { lacking, type Result, type Stack } from '../support/stack.ts';

export const fixtures = resolve(import.meta.dirname, '../fixtures/launcher');

/** A session with one service, `main`. */
export interface Policy {
  mode?: 'hardware' | 'none';
  tolerate?: string[];
  /** Admitted measurement; that of the built launcher unless told otherwise. */
  measurement?: string;
  /** As whom the launcher may run. */
  runAs?: string;
  oneTimePassword?: string;
  accessToken?: string;
  program?: string;
  /** The words after the launcher's own name. */
  command?: string[];
  environment?: Record<string, string | null>;
  pwd?: string;
  /** Files to write. `from` is made up unless told; `content` null is a template on the host. */
  files?: { to: string | { fd: number }; content: string | null; from?: string }[];
  /** Further keys of the launcher's configuration. */
  launcher?: Record<string, unknown>;
  spelling?: 'injection_files' | 'injected_file';
  /** /etc/envcas/config.yaml in place of one made of `program` and `files`; null is one on the host. */
  config?: string | null;
  provide?: string[];
  secrets?: Record<string, { kind: string; [key: string]: unknown }>;
}

let sessions = 0;
/** Hash of the newest version of each session. */
const newest = new Map<string, string>();
let identity: Promise<{ key: string; cert: string }> | undefined;

/**
 * Uploads a policy and gives the config id of its service. Straight to the CAS, as `scone session create` would
 * take most of the time of these tests.
 * @param before config id of the service whose session it is a new version of
 */
export async function upload(
  stack: Pick<Stack, 'env' | 'envcasMeasurement'>,
  policy: Policy,
  before?: string,
): Promise<string> {
  const name = before?.split('/')[0] ?? `session-${++sessions}`;
  const { program = '/bin/sh', spelling = 'injection_files' } = policy;
  const files = (policy.files ?? []).map((file, index) => ({ from: `/injected/${index}`, ...file }));
  const config =
    policy.config === undefined
      ? JSON.stringify({
          program,
          [spelling]: files.map(({ from, to }) => ({ from, to })),
          ...policy.launcher,
        })
      : policy.config;
  const inject = (path: string, content: string | null) => (content === null ? path : { path, content });
  const document = {
    name,
    predecessor: newest.get(name),
    version: '0.3.10',
    security: {
      attestation: {
        mode: policy.mode ?? 'hardware',
        tolerate: policy.tolerate ?? ['debug-mode'],
      },
      service_access_token: policy.accessToken,
    },
    services: [
      {
        name: 'main',
        image_name: 'image',
        attestation: { mrenclave: policy.measurement ?? stack.envcasMeasurement, run_as: policy.runAs },
        command: ['envcas', ...(policy.command ?? [])],
        environment: policy.environment ?? {},
        pwd: policy.pwd,
        one_time_password_shared_secret: policy.oneTimePassword,
      },
    ],
    images: [
      {
        name: 'image',
        injection_files: [
          inject('/etc/envcas/config.yaml', config),
          ...files.map(({ from, content }) => inject(from, content)),
        ],
        provide_secrets: policy.provide,
      },
    ],
    secrets: Object.entries(policy.secrets ?? {}).map(([name, secret]) => ({ name, ...secret })),
  };
  identity ??= makeIdentity();
  const credentials = await identity;
  const [status, answer] = await new Promise<[number | undefined, string]>((resolve, reject) => {
    const url = `https://127.0.0.1:${stack.env.SCONE_CAS_API_PORT}/session`;
    const posting = request(
      url,
      { method: 'POST', rejectUnauthorized: false, ...credentials },
      (response) => {
        let body = '';
        response.on('data', (chunk: Buffer) => {
          body += chunk;
        });
        response.on('end', () => resolve([response.statusCode, body]));
      },
    );
    posting.on('error', reject);
    // JSON is YAML.
    posting.end(JSON.stringify(document));
  });
  assert.equal(status, 201, answer);
  newest.set(name, JSON.parse(answer).hash);
  return `${name}/main`;
}

/** A new key and a certificate for it. */
async function makeIdentity(): Promise<{ key: string; cert: string }> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const day = 86_400_000;
  const cert = await selfSignedCertificate({
    key: privateKey,
    commonName: 'test',
    names: ['localhost'],
    notBefore: new Date(Date.now() - day),
    notAfter: new Date(Date.now() + day),
  });
  return { key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), cert };
}

let folders = 0;

/** A new, empty folder among the stack's files. */
export function folder(stack: Pick<Stack, 'files'>): string {
  const path = join(stack.files, `folder-${++folders}`);
  mkdirSync(path);
  return path;
}

export interface Running {
  child: ChildProcess;
  /** Standard output and standard error so far. */
  output(): string;
  /** Resolves when standard output or error has matched. */
  seen(pattern: RegExp): Promise<void>;
  finished: Promise<Result>;
}

/** Starts a launch without blocking this process, in which servers may be running. */
export function launch(
  stack: Pick<Stack, 'env' | 'envcas'>,
  configId: string | undefined,
  options: {
    args?: string[];
    env?: NodeJS.ProcessEnv;
    executable?: string;
    uid?: number;
    stdin?: 'pipe' | 'ignore';
  } = {},
): Running {
  const { args = [], env = {}, executable = stack.envcas, uid, stdin = 'ignore' } = options;
  return start(executable, args, {
    env: { ...stack.env, ...(configId === undefined ? {} : { SCONE_CONFIG_ID: configId }), ...env },
    ...(uid === undefined ? {} : { uid, gid: uid }),
    stdio: [stdin, 'pipe', 'pipe'],
  });
}

export function start(command: string, args: string[], options: SpawnOptions): Running {
  const child = spawn(command, args, options);
  let stdout = '';
  let stderr = '';
  const watchers: (() => void)[] = [];
  const changed = () => {
    for (const look of watchers) look();
  };
  child.stdout?.on('data', (chunk: Buffer) => {
    stdout += chunk;
    changed();
  });
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk;
    changed();
  });
  const finished = new Promise<Result>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => resolve({ status, signal, stdout, stderr }));
  });
  return {
    child,
    output: () => stdout + stderr,
    seen: (pattern) =>
      new Promise((resolve, reject) => {
        const look = () => pattern.test(stdout + stderr) && resolve();
        watchers.push(look);
        look();
        finished.then(() => reject(new Error(`ended before ${pattern}: ${stdout}${stderr}`)), reject);
      }),
    finished,
  };
}

/**
 * Checks a launch that failed: nothing on standard output; on standard error the message in its shape, with
 * the note exactly where the config id could be read; exit status as declared.
 */
export function assertFailed(
  result: Result,
  code: ErrorCode,
  expected: {
    /** What the note says: HOST, PORT and SESSION/SERVICE; undefined is no note. */
    note: { host: string; port: string; id: string } | undefined;
    exit?: number;
    says?: (string | RegExp)[];
    never?: string[];
  },
): void {
  const { stderr, stdout, status, signal } = result;
  const exit = expected.exit ?? errors[code].exit;
  assert.equal(stdout, '', 'the program was started');
  assert.deepEqual({ status, signal, stderr }, { status: exit, signal: null, stderr });
  const lines = stderr.split('\n');
  assert.equal(lines.pop(), '', 'the last line is whole');
  assert.equal(lines.pop(), `Code: ${code}, exit status ${exit}`, stderr);
  assert.match(lines.pop() ?? '', /^Hint: ./, stderr);
  const { note } = expected;
  if (note)
    assert.equal(
      lines.pop(),
      `Note: Connecting to CAS at ${note.host} (port ${note.port}) using service ID ${note.id}`,
    );
  assert.match(lines.shift() ?? '', /^\[SCONE\|FATAL\] envcas: Could not start the program: ./, stderr);
  for (const line of lines) assert.match(line, /^( {2}Caused by: | {4})./, stderr);
  for (const text of expected.says ?? [])
    if (typeof text === 'string') assert.ok(stderr.includes(text), `${text}\nis not in\n${stderr}`);
    else assert.match(stderr, text);
  for (const text of expected.never ?? []) assert.ok(!stderr.includes(text), `${text} is in\n${stderr}`);
}

/** Where the stack's own CAS is, for `note`. */
export function noteOf(stack: Pick<Stack, 'env'>, id: string, port = stack.env.SCONE_CAS_ENCLAVE_PORT ?? '') {
  return { host: 'localhost', port, id };
}

export function assertEmpty(path: string): void {
  assert.deepEqual(readdirSync(path), []);
}

/** A new secret for one-time passwords, base32. A code is good once for a secret, so no two tests share one. */
export function newSharedSecret(): string {
  return Array.from(randomBytes(32), (byte) => LETTERS[byte % 32]).join('');
}

const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

/** RFC 6238 with the parameters of authenticator apps, written here again to check the CAS's own. */
export function totp(base32: string, time: number): string {
  const bits = [...base32].map((letter) => LETTERS.indexOf(letter).toString(2).padStart(5, '0')).join('');
  const key = Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(time / 30_000)));
  const hash = createHmac('sha1', key).update(counter).digest();
  const number = hash.readUInt32BE((hash.at(-1) ?? 0) & 15) & 0x7fffffff;
  return String(number % 1_000_000).padStart(6, '0');
}

/** A code of the next step: it is good for a minute, however far this step is. */
export const codeFrom = (base32: string) => totp(base32, Date.now() + 30_000);

/** Six digits that are no code of the secret now, or near now. */
export function wrongCode(base32: string): string {
  const near = [-3, -2, -1, 0, 1, 2, 3].map((step) => totp(base32, Date.now() + step * 30_000));
  let code = 271828;
  while (near.includes(String(code))) code++;
  return String(code);
}

export interface Impostor {
  port: string;
  /** What clients have sent it after the handshake. */
  received(): Buffer;
  /** Resolves when something has been received. */
  asked: Promise<void>;
  /** Resolves when a client has ended its connection. */
  ended: Promise<void>;
  /** PEM. */
  certificate: string;
  /** As SCONE_CAS_KEY has it. */
  key: string;
  close(): void;
}

/**
 * A TLS server that could pass for a CAS but for its key. It answers what it is told to, or nothing.
 * @param options whether it lets the client end the connection after an answer, which it gives once
 */
export async function startImpostor(
  options: { protocols?: string[]; answer?: Buffer; isOpen?: boolean } = {},
): Promise<Impostor> {
  const { key, cert } = await makeIdentity();
  const received: Buffer[] = [];
  let tell: () => void;
  const asked = new Promise<void>((resolve) => {
    tell = resolve;
  });
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  const server = createTlsServer({
    key,
    cert,
    minVersion: 'TLSv1.3',
    ALPNProtocols: options.protocols ?? [LAUNCH_PROTOCOL],
  });
  server.on('tlsClientError', () => {});
  server.on('secureConnection', (socket) => {
    socket.on('error', () => {}).on('close', end);
    if (options.isOpen) socket.once('data', () => socket.write(options.answer ?? ''));
    socket.on('data', (chunk: Buffer) => {
      received.push(chunk);
      tell();
      if (options.answer && !options.isOpen) socket.end(options.answer);
    });
  });
  const { port, close } = await listen(server);
  const hash = formatKeyHash(publicKeyDigest(new X509Certificate(cert).publicKey));
  return { port, received: () => Buffer.concat(received), asked, ended, certificate: cert, key: hash, close };
}

/** Lets a server listen on a free port, or a path; closing it also ends its connections. */
export async function listen(server: Server, path?: string): Promise<{ port: string; close(): void }> {
  const sockets = new Set<{ destroy(): void }>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path === undefined ? { host: '127.0.0.1', port: 0 } : { path }, resolve);
  });
  const port = path === undefined ? String((server.address() as AddressInfo).port) : '';
  return {
    port,
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** A server that accepts and says nothing. */
export const silent = (path?: string) => listen(createServer(), path);

/** A port on which nobody listens. */
export async function closedPort(): Promise<string> {
  const { port, close } = await silent();
  close();
  return port;
}

export const root = process.getuid?.() === 0;
/** User and group `nobody`. */
export const NOBODY = 65534;
/** For the `skip` of a test that starts a program of this folder as somebody else. */
export const noOthers = !root
  ? 'only root can start a process as somebody else'
  : // The LAS looks at the launcher of another user.
    lacking('SYS_PTRACE') ||
    (spawnSync(process.execPath, ['--version'], { uid: NOBODY, gid: NOBODY }).status !== 0 &&
      'other users cannot reach this folder');

/** Lets other users reach the stack's LAS and files, as on a host where the LAS is a service. */
export function openToOthers(stack: Pick<Stack, 'directory' | 'files'>): void {
  for (const path of [dirname(stack.directory), stack.directory, stack.files]) chmodSync(path, 0o711);
}
