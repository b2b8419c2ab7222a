import { createPublicKey } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:https';
import { type AddressInfo, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, createServer as createTlsServer } from 'node:tls';
import { formatKeyHash, publicKeyDigest } from '../src/policy/key-hash.ts';
import type { Identity } from '../src/protocol/certificate.ts';
import { makeIdentity } from '../test/support/client.ts';

/** What somebody with an account, at an address of his own, does to a CAS until he is ended. */
const ADDRESS = '127.0.0.66';
const [name = '', apiPort = '', enclavePort = ''] = process.argv.slice(2);
const MEBIBYTE = 1024 * 1024;

const identities = await Promise.all(Array.from({ length: 8 }, () => makeIdentity('attacker')));
const identity = (number: number) => identities[number % identities.length] as Identity;

/** Makes a request, and passes over what is answered. */
function call(number: number, method: string, path: string, body = ''): Promise<void> {
  const { key, certificate } = identity(number);
  return new Promise((resolve) => {
    const outgoing = request({
      ...{ host: '127.0.0.1', port: apiPort, localAddress: ADDRESS, method, path, agent: false },
      ...{ key, cert: certificate, rejectUnauthorized: false },
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
    const socket = connect({
      host: '127.0.0.1',
      port: Number(port),
      localAddress: ADDRESS,
      rejectUnauthorized: false,
    } as object);
    socket
      .on('error', () => {})
      .on('close', () => resolve())
      .on('secureConnect', () => resolve());
  });

const secrets = (count: number, rest: string) =>
  `secrets:\n${Array.from({ length: count }, (_, at) => `- {name: s${at}, ${rest}}\n`).join('')}`;

/** Has public values imported from a CAS at a port, by many sessions. */
async function imports(port: number, key: string): Promise<void> {
  const from = `kind: binary, export_public: true, import: {session: x, secret: s, cas_url: "127.0.0.1:${port}", cas_key: ${key}}`;
  const names = Array.from({ length: 8 }, (_, at) => `import-${process.pid}-${at}`);
  for (const [at, its] of names.entries()) await call(at, 'POST', '/session', session(its, secrets(1, from)));
  await again(64, async (number) => {
    await call(number, 'GET', `/v1/values/session=${names[number % 8]},secret=s0`);
    await sleep(500);
  });
}

const attacks: Record<string, () => Promise<unknown>> = {
  async 'idle connections'() {
    await again(64, async () => {
      await tls(apiPort);
      await sleep(50);
    });
  },
  handshakes: () =>
    again(4, () => {
      const socket = connect({
        host: '127.0.0.1',
        port: Number(enclavePort),
        localAddress: ADDRESS,
        rejectUnauthorized: false,
        ALPNProtocols: ['envcas-launch/1'],
      } as object);
      socket.on('error', () => {});
      return once(socket, 'secureConnect').then(
        () => socket.destroy(),
        () => {},
      );
    }),
  'RSA keys': () =>
    again(8, (number) => upload(number, secrets(16, 'kind: private-key, key_type: RSA-3072'))),
  'OpenPGP keys': () => again(8, (number) => upload(number, secrets(2000, 'kind: pgp-key'))),
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

process.on('disconnect', () => process.exit());
if (name === '') console.log(JSON.stringify(Object.keys(attacks)));
else await attacks[name]?.();
