import { spawn } from 'node:child_process';
import { createPublicKey, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { request } from 'node:https';
import { type AddressInfo, createServer } from 'node:net';
import { constants, setPriority } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, createServer as createTlsServer } from 'node:tls';
import { formatKeyHash, publicKeyDigest } from '../src/policy/key-hash.ts';
import type { Identity } from '../src/protocol/certificate.ts';
import { connectLas } from '../src/protocol/las.ts';
import { makeIdentity } from '../test/support/client.ts';
import { connectFrom } from '../test/support/proxy-protocol.ts';
import { dearChain } from './dear-chain.ts';

/** What somebody with an account, at an address of his own, does to a server until he is ended. */
const ADDRESS = '198.51.100.66';
const from = (port: string) => ({ socket: connectFrom(ADDRESS, port), rejectUnauthorized: false });
// Its own work is elsewhere in truth: what counts is what the server does for it.
setPriority(constants.priority.PRIORITY_LOW);
const [target = '', name = '', where = '', enclavePort = ''] = process.argv.slice(2);
const MEBIBYTE = 1024 * 1024;

const identities = await Promise.all(Array.from({ length: 8 }, () => makeIdentity('attacker')));
const identity = (number: number) => identities[number % identities.length] as Identity;

/** Makes a request, and passes over what is answered. */
function call(
  number: number,
  method: string,
  path: string,
  body = '',
  who = identity(number),
): Promise<void> {
  const { key, certificate } = who;
  return new Promise((resolve) => {
    const outgoing = request({
      ...{ method, path },
      createConnection: () => connect({ ...from(where), key, cert: certificate }),
      headers: { 'content-length': Buffer.byteLength(body) },
    });
    outgoing.on('error', () => resolve()).on('close', () => resolve());
    outgoing.on('response', (response) => response.resume());
    outgoing.end(body);
  });
}

const session = (name: string, rest: string) => `name: ${name}\nversion: "0.3.12"\nservices: []\n${rest}`;
let sessions = 0;
const upload = (number: number, rest: string) =>
  call(number, 'POST', '/session', session(`attack-${process.pid}-${sessions++}`, rest));

/** Does something again and again, so many at a time. */
const again = (atOnce: number, work: (number: number) => Promise<unknown>) =>
  Promise.all(
    Array.from({ length: atOnce }, async (_, number) => {
      for (;;) {
        await work(number);
        await sleep(1);
      }
    }),
  );

const tls = (port: string) =>
  new Promise<void>((resolve) => {
    connect(from(port))
      .on('error', () => {})
      .on('close', () => resolve())
      .on('secureConnect', () => resolve());
  });

const secrets = (count: number, rest: string) =>
  `secrets:\n${Array.from({ length: count }, (_, at) => `- {name: s${at}, ${rest}}\n`).join('')}`;

/** Has public values imported from a CAS at a port, by many sessions. */
async function imports(port: number, key: string): Promise<void> {
  const rest = `kind: binary, export_public: true, import: {session: x, secret: s, cas_url: "127.0.0.1:${port}", cas_key: ${key}}`;
  const names = Array.from({ length: 8 }, (_, at) => `import-${process.pid}-${at}`);
  for (const [at, its] of names.entries()) await call(at, 'POST', '/session', session(its, secrets(1, rest)));
  await again(64, async (number) => {
    await call(number, 'GET', `/v1/values/session=${names[number % 8]},secret=s0`);
    await sleep(500);
  });
}

/** What a launcher says first. */
async function clientHello(): Promise<Buffer> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connect({
    port: (server.address() as AddressInfo).port,
    ALPNProtocols: ['envcas-launch/1'],
  });
  client.on('error', () => {});
  const [socket] = await once(server, 'connection');
  const [hello] = await once(socket, 'data');
  client.destroy();
  server.close();
  return hello;
}

/** Handshakes with certificates that take long to be verified. */
async function chains(): Promise<void> {
  const who = await dearChain(5);
  await again(4, (number) => call(number, 'GET', '/v1/version', '', who));
}

const cas: Record<string, () => Promise<unknown>> = {
  async 'idle connections'() {
    await again(64, async () => {
      await tls(where);
      await sleep(50);
    });
  },
  handshakes: () =>
    again(4, () => {
      const socket = connect({ ...from(enclavePort), ALPNProtocols: ['envcas-launch/1'] });
      socket.on('error', () => {});
      return once(socket, 'secureConnect').then(
        () => socket.destroy(),
        () => {},
      );
    }),
  async 'handshakes, 900 at once'() {
    const hello = await clientHello();
    for (;;) {
      const sockets = Array.from({ length: 900 }, () => connectFrom(ADDRESS, enclavePort));
      await Promise.all(sockets.map((socket) => once(socket, 'connect').catch(() => {})));
      for (const socket of sockets) socket.resume().write(hello);
      await sleep(1000);
      for (const socket of sockets) socket.destroy();
    }
  },
  async 'requests on 500 connections'() {
    const request = Buffer.from('GET /v1/version HTTP/1.1\r\nhost: cas\r\n\r\n');
    await again(500, async () => {
      const socket = connect(from(where)).on('error', () => {});
      socket.on('data', () => socket.write(request));
      socket.once('secureConnect', () => socket.write(request));
      await new Promise((resolve) => socket.once('close', resolve));
    });
  },
  'RSA keys': () =>
    again(8, (number) => upload(number, secrets(16, 'kind: private-key, key_type: RSA-3072'))),
  'OpenPGP keys': () => again(8, (number) => upload(number, secrets(2000, 'kind: pgp-key'))),
  'certificates with dear issuers': chains,
  async 'a policy of one principal, named 2,000 times'() {
    const pem = createPublicKey(identity(0).certificate).export({ type: 'spki', format: 'pem' });
    const names = Array<string>(2000).fill('*k').join(', ');
    const policy = `x-key: &k ${JSON.stringify(pem)}\naccess_policy: {read: [${names}], update: [*k]}\n`;
    const its = `principals-${process.pid}`;
    await call(0, 'POST', '/session', session(its, policy));
    await again(8, (number) => call(number, 'GET', `/session/${its}`));
  },
  'secrets of 8 MiB': () => again(4, (number) => upload(number, secrets(8, 'kind: ascii, size: 1048576'))),
  'long texts': () =>
    again(4, (number) => upload(number, secrets(2000, `kind: ascii, value: "${'a'.repeat(1000)}"`))),
  'many values': () =>
    again(4, (number) =>
      upload(
        number,
        `images:\n${Array.from({ length: 1500 }, (_, at) => `- {name: i${at}, injection_files: [{path: /a, content: x}, {path: /b, content: x}, {path: /c, content: x}]}\n`).join('')}`,
      ),
    ),
  'a text that is wrong in every line': () =>
    again(4, (number) => upload(number, `images:\n${'- {name: [a, b], x: {y: z}}\n'.repeat(20_000)}`)),
  async 'imports from one that is silent'() {
    const server = createServer(() => {}).listen(0, '127.0.0.1');
    await once(server, 'listening');
    await imports((server.address() as AddressInfo).port, formatKeyHash(Buffer.alloc(32, 1)));
  },
  async 'imports of 16 MiB'() {
    const { key, certificate } = identity(0);
    const server = createTlsServer({ key, cert: certificate }, (socket) => {
      socket.on('error', () => {});
      const content = `{"kind":"binary","secret":"${'A'.repeat(16 * MEBIBYTE)}"}`;
      socket.end(`HTTP/1.1 200 OK\r\ncontent-length: ${content.length}\r\n\r\n${content}`);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    await imports(
      (server.address() as AddressInfo).port,
      formatKeyHash(publicKeyDigest(createPublicKey(certificate))),
    );
  },
};

const sealed: Record<string, () => Promise<unknown>> = {
  'certificates with dear issuers': chains,
  'wrong passphrases': () =>
    again(8, (number) =>
      call(number, 'POST', '/v1/unseal', JSON.stringify({ passphrase: `wrong ${number}` })),
    ),
};

/** An ordinary user of the host, where this one can become him. */
const ANOTHER = process.getuid?.() === 0 ? { uid: 61002, gid: 61002 } : {};

/** Has processes of another user, with variables of their own, do something again and again. */
async function fromProcesses(
  processes: number,
  env: Record<string, string>,
  atOnce: number,
  work: () => Promise<unknown>,
): Promise<void> {
  const [own = ''] = Object.keys(env);
  if (process.env[own] === undefined) {
    const attackers = Array.from({ length: processes }, () =>
      spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
        ...{ env: { ...process.env, ...env }, stdio: 'inherit', ...ANOTHER },
      }),
    );
    // They end with this process, which is killed.
    await Promise.all(attackers.map((attacker) => once(attacker, 'exit')));
    return;
  }
  const parent = process.ppid;
  await again(atOnce, async () => {
    if (process.ppid !== parent) process.exit();
    await work();
  });
}

async function beVouchedFor(): Promise<void> {
  const connection = await connectLas(where, undefined, Date.now() + 30_000).catch(() => undefined);
  await connection?.evidence(randomBytes(64)).catch(() => {});
  connection?.close();
}

const large = Array.from({ length: 12 }, (_, at) => [`ENVCAS_BENCH_${at}`, 'a'.repeat(120_000)]);

const las: Record<string, () => Promise<unknown>> = {
  'a large environment': () => fromProcesses(4, Object.fromEntries(large), 4, beVouchedFor),
  async 'many threads and connections'() {
    await stat('/');
    await fromProcesses(1, { ENVCAS_BENCH_0: '', UV_THREADPOOL_SIZE: '20' }, 250, beVouchedFor);
  },
};

const attacks = { cas, 'sealed CAS': sealed, LAS: las }[target] ?? {};
process.on('disconnect', () => process.exit());
if (name === '') console.log(JSON.stringify(Object.keys(attacks)));
else await attacks[name]?.();
