import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect as connectTcp } from 'node:net';
import { join, resolve } from 'node:path';
import { before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { parse } from 'yaml';
import type { Identity } from '../../src/protocol/certificate.ts';
import { LAUNCH_PROTOCOL } from '../../src/protocol/launch.ts';
import { launch, makeIdentity, makeLas, read, upload } from '../support/client.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { randomFrom } from '../support/random.ts';
import { executables, type RunningCas, startCas } from '../support/stack.ts';
import { PATIENCE } from '../support/until.ts';

/** How long a CAS is sent what it cannot expect, in seconds; and which of it. */
const SECONDS = Number(process.env.ENVCAS_FUZZ_SECONDS ?? 10);
const SEED = Number(process.env.ENVCAS_SEED ?? Date.now() % 1_000_000);
const AT_ONCE = 24;
/** Milliseconds that one connection is kept at most. */
const LEFT = 2_000;

const { scone } = executables();
const { paths } = parse(readFileSync(resolve(import.meta.dirname, '../../docs/openapi.yaml'), 'utf8')) as {
  paths: Record<string, Record<string, unknown>>;
};
const calls = Object.entries(paths).flatMap(([path, methods]) =>
  Object.keys(methods)
    .filter((method) => /^(get|post|put|delete)$/.test(method))
    .map((method) => ({ method: method.toUpperCase(), path })),
);

let folder: string;
let cas: RunningCas;
let alice: Identity;
const las = makeLas();
before(async () => {
  folder = temporaryFolder();
  const options = ['--workers', '2', '--trusted-platform', las.platform, '--log-level', 'error'];
  cas = await startCas(scone, join(folder, 'cas'), options, { PATH: process.env.PATH ?? '', HOME: folder });
  alice = await makeIdentity('alice');
});

const workers = () =>
  readFileSync(`/proc/${cas.server.process.pid}/task/${cas.server.process.pid}/children`, 'utf8');

const policy = `name: kept
version: "0.3.10"
security: {attestation: {tolerate: [debug-mode]}}
services:
  - {name: s, image_name: i, mrenclaves: [${'ab'.repeat(32)}], command: [envcas, $$SCONE::token:hex$$]}
images: [{name: i, injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/echo"}]}]
secrets: [{name: token, kind: binary, size: 16}]
`;

test('whatever comes, a CAS answers what is right, refuses what is not, and goes on', {
  timeout: SECONDS * 1000 + 2 * PATIENCE,
}, async (t) => {
  t.diagnostic(`ENVCAS_SEED=${SEED}, ${SECONDS} s, ${calls.length} calls`);
  await upload(cas, alice, policy);
  const processes = workers();
  const random = randomFrom(SEED);
  const end = performance.now() + SECONDS * 1000;
  const seen = new Map<string, number>();
  const count = (what: string) => seen.set(what, (seen.get(what) ?? 0) + 1);
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      while (performance.now() < end) {
        const send = pick(random, senders);
        const answer = await send(random);
        const [, status] = /^HTTP\/1\.[01] (\d{3})/.exec(answer) ?? [];
        const [, code] = /"code":"([A-Z_]+)"/.exec(answer) ?? [];
        count(code ?? status ?? 'no answer');
        assert.doesNotMatch(
          answer,
          /^HTTP\/1\.[01] 500|"code":"INTERNAL"/,
          `${send.name}: ${answer.slice(0, 500)}`,
        );
      }
    }),
  );
  t.diagnostic(JSON.stringify(Object.fromEntries([...seen].sort())));
  assert.ok(seen.size > 8, 'it came as far as the calls');
  assert.equal(workers(), processes, 'no process has ended');
  assert.doesNotMatch(cas.server.output(), /"level":(50|60)|Error:/);
  // Those that wait for what does not come are in nobody's way.
  assert.equal(await read(cas, alice, 'kept'), policy);
  const { command } = await launch(cas, { session: 'kept', service: 's', las });
  assert.equal(command.length, 2);
  for (const socket of open) socket.destroy();
});

type Random = () => number;
const pick = <Item>(random: Random, items: readonly Item[]): Item =>
  items[Math.floor(random() * items.length)] as Item;
const upTo = (random: Random, most: number) => Math.floor(random() * (most + 1));
const bytes = (random: Random, most: number) =>
  Buffer.from(Array.from({ length: upTo(random, most) }, () => upTo(random, 255)));

/** Damages some bytes, leaves some out, or puts some in twice. */
function damaged(random: Random, content: Buffer): Buffer {
  let result = content;
  for (let change = upTo(random, 3); change >= 0; change--) {
    const at = upTo(random, result.length);
    const length = upTo(random, 1 + Math.min(40, result.length - at));
    const piece = result.subarray(at, at + length);
    const put = pick(random, [
      Buffer.alloc(0),
      Buffer.concat([piece, piece]),
      bytes(random, 8),
      Buffer.from('"}{[]:,\\u0000\x00\xff'),
    ]);
    result = Buffer.concat([result.subarray(0, at), put, result.subarray(at + length)]);
  }
  return result;
}

const values = [
  'name: x\nversion: "0.3"\n',
  policy,
  '{}',
  '[]',
  'null',
  '{"token":"00000000000000000000000000000000","configuration":{}}',
  '{"version":1,"configuration":{"owners":[]}}',
  '{"evidence":"a.b.c","hardware":{}}',
  '{"kind":"backup","name":"x","root":"software","measurement":"00"}',
  '{"envcas backup":1}\n["state","a",""]\n',
  '{"session":"kept","service":"s","oneTimePassword":"000000"}',
  '{"session":"kept","service":"s","evidence":"e30.e30.e30","watch":true}',
  `${'['.repeat(5000)}`,
  `name: x\nversion: "0.3"\na: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n`,
];

/** A request to one of the calls, with something about it that is not right. */
function request(random: Random): Buffer {
  const { method, path } = pick(random, calls);
  const target = path.replaceAll(/\{[^}]*\}/g, () =>
    pick(random, ['kept', '%2F', '..', '%00', 'x'.repeat(300), '%zz', 'a/b']),
  );
  const query = pick(random, [
    '',
    '',
    '?first=1',
    '?limit=99999999999999999999',
    '?first=%00&first=2',
    `?${'a=b&'.repeat(500)}`,
  ]);
  const content = pick(random, [
    Buffer.from(pick(random, values)),
    damaged(random, Buffer.from(pick(random, values))),
    bytes(random, 2000),
  ]);
  const length = pick(random, [
    content.length,
    content.length,
    content.length,
    content.length + 5,
    0,
    -1,
    99_999_999_999,
  ]);
  const type = pick(random, ['application/json', 'application/x-ndjson', 'application/jose', '', 'x/y;z="']);
  const head = pick(random, [
    `content-length: ${length}`,
    `content-length: ${length}`,
    'transfer-encoding: chunked',
    `content-length: ${length}\r\ntransfer-encoding: chunked`,
    `expect: 100-continue\r\ncontent-length: ${length}`,
    `x: ${'y'.repeat(pick(random, [10, 9000, 70_000]))}\r\ncontent-length: ${length}`,
  ]);
  const verb = pick(random, [method, method, method, method, 'PATCH', 'CONNECT', 'PRI', '\x00']);
  return Buffer.concat([
    Buffer.from(
      `${verb} ${target}${query} HTTP/1.1\r\nhost: cas\r\nconnection: close\r\ncontent-type: ${type}\r\n${head}\r\n\r\n`,
    ),
    head.includes('chunked')
      ? Buffer.from(`${content.length.toString(16)}\r\n${content.toString('latin1')}\r\n0\r\n\r\n`, 'latin1')
      : content,
  ]);
}

/** Connections that the CAS has not ended. */
const open = new Set<ReturnType<typeof connectTcp>>();

/** Sends pieces, at once or with pauses, ends its half or goes away; gives what comes. */
async function exchange(
  socket: ReturnType<typeof connectTcp>,
  isOpen: Promise<unknown>,
  pieces: readonly Buffer[],
  random: Random,
): Promise<string> {
  let answer = '';
  open.add(socket);
  socket.on('close', () => open.delete(socket));
  socket.on('data', (chunk) => {
    if (answer.length < 10_000) answer += chunk.toString('latin1');
  });
  socket.on('error', () => {});
  const closed = once(socket, 'close').catch(() => {});
  const isThere = await Promise.race([
    isOpen.then(
      () => true,
      () => false,
    ),
    closed.then(() => false),
  ]);
  if (isThere) {
    for (const piece of pieces) {
      if (socket.destroyed) break;
      socket.write(piece);
      if (random() < 0.2) await sleep(random() * 20);
    }
    const way = random();
    if (way < 0.3) socket.end();
    if (way > 0.95) socket.destroy();
  }
  // Some are left to the CAS to be ended, and are there to the end of the test.
  await Promise.race([closed, sleep(random() < 0.05 ? LEFT : 150, undefined, { ref: false })]);
  if (random() < 0.8) socket.destroy();
  return answer;
}

function piecesOf(random: Random, content: Buffer): Buffer[] {
  if (random() < 0.6) return [content];
  const at = upTo(random, content.length);
  return [content.subarray(0, at), content.subarray(at)];
}

const senders = [
  async function toCalls(random: Random): Promise<string> {
    const who = random() < 0.6 ? { key: alice.key, cert: alice.certificate } : {};
    const socket = connectTls({
      host: '127.0.0.1',
      port: Number(cas.apiPort),
      rejectUnauthorized: false,
      ...who,
    });
    const content = request(random);
    return exchange(
      socket,
      once(socket, 'secureConnect'),
      piecesOf(random, random() < 0.8 ? content : damaged(random, content)),
      random,
    );
  },
  async function toLaunchers(random: Random): Promise<string> {
    const socket = connectTls({
      ...{ host: '127.0.0.1', port: Number(cas.enclavePort), rejectUnauthorized: false },
      ALPNProtocols: [pick(random, [LAUNCH_PROTOCOL, LAUNCH_PROTOCOL, 'http/1.1'])],
    });
    const content = pick(random, [
      Buffer.from(pick(random, values)),
      damaged(random, Buffer.from(pick(random, values))),
    ]);
    const head = Buffer.alloc(4);
    head.writeUInt32BE(pick(random, [content.length, content.length, 0, content.length + 9, 0xffffffff]));
    return exchange(
      socket,
      once(socket, 'secureConnect'),
      piecesOf(random, Buffer.concat([head, content, ...(random() < 0.2 ? [head, content] : [])])),
      random,
    );
  },
  async function toTls(random: Random): Promise<string> {
    const port = Number(pick(random, [cas.apiPort, cas.enclavePort]));
    const socket = connectTcp(port, '127.0.0.1');
    const content = pick(random, [
      bytes(random, 500),
      damaged(random, clientHello),
      clientHello.subarray(0, upTo(random, clientHello.length)),
      Buffer.concat([clientHello, bytes(random, 300)]),
      Buffer.from('GET / HTTP/1.1\r\nhost: cas\r\n\r\n'),
    ]);
    return exchange(socket, once(socket, 'connect'), piecesOf(random, content), random);
  },
];

/** The first flight of a handshake, as a client of this version of TLS sends it. */
const clientHello = await (async () => {
  const { createServer } = await import('node:net');
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connectTls({ host: '127.0.0.1', port: (server.address() as { port: number }).port }).on(
    'error',
    () => {},
  );
  const [socket] = await once(server, 'connection');
  const [first] = await once(socket, 'data');
  client.destroy();
  socket.destroy();
  server.close();
  return first as Buffer;
})();
