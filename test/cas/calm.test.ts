import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpsRequest } from 'node:https';
import { type AddressInfo, connect as connectTcp, type Socket } from 'node:net';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, createServer } from 'node:tls';
import { acceptWithin } from '../../src/cas/limits/accept.ts';
import { makeIdentity, upload } from '../support/client.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { executables, type RunningCas, startCas } from '../support/stack.ts';
import { until } from '../support/until.ts';

const { scone } = executables();

/** Makes a request on a connection of its own. */
function get(
  port: string,
  path: string,
): Promise<{ status: number; retryAfter: string | undefined; body: string }> {
  return new Promise((resolve, reject) => {
    const sent = httpsRequest(
      { host: '127.0.0.1', port, path, rejectUnauthorized: false, agent: false },
      (answer) => {
        let body = '';
        answer.on('data', (chunk) => {
          body += chunk;
        });
        answer.on('end', () =>
          resolve({ status: answer.statusCode ?? 0, retryAfter: answer.headers['retry-after'], body }),
        );
      },
    );
    sent.on('error', reject).end();
  });
}

/** Connects with TLS, and says what it received until the end. */
async function open(port: string): Promise<{ socket: Socket; received: Promise<string> }> {
  const socket = connect({ host: '127.0.0.1', port: Number(port), rejectUnauthorized: false });
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk;
  });
  socket.on('error', () => {});
  // An end that came before the last of the handshake was read is told as an error first.
  const received = new Promise<string>((resolve) => socket.once('close', () => resolve(text)));
  await once(socket, 'secureConnect');
  return { socket, received };
}

describe('a CAS under load', () => {
  let folder: string;
  let cas: RunningCas;
  const start = () =>
    startCas(scone, join(folder, 'cas'), ['--workers', '1', '--sessions-per-client', '3'], {
      PATH: process.env.PATH ?? '',
      HOME: folder,
    });
  before(async () => {
    folder = temporaryFolder();
    cas = await start();
  });
  const session = (name: string, rest = '') => `name: ${name}\nversion: "0.3"\n${rest}`;

  test('lets each client create so many sessions, however many come at once, and change them', async () => {
    const [alice, bob] = [await makeIdentity('alice'), await makeIdentity('bob')];
    const created = await Promise.allSettled(
      ['a', 'b', 'c', 'd', 'e', 'f'].map((name) => upload(cas, alice, session(name))),
    );
    const refused = created.flatMap((each) => (each.status === 'rejected' ? [each.reason.code] : []));
    assert.deepEqual(refused, Array(3).fill('TOO_MANY_SESSIONS'));
    await upload(cas, bob, session('other'));
    const at = created.findIndex(({ status }) => status === 'fulfilled');
    const first = created[at];
    assert.ok(first?.status === 'fulfilled');
    await upload(cas, alice, session(String.fromCharCode(97 + at), `predecessor: ${first.value}\n`));
  });

  test('says 503 and when to come again while it cannot keep up, and goes on afterwards', async () => {
    const { process } = cas.server;
    process.kill('SIGSTOP');
    const asked = Array.from({ length: 20 }, () => get(cas.apiPort, '/v1/version'));
    await sleep(4_000);
    process.kill('SIGCONT');
    const answers = await Promise.all(asked);
    const busy = answers.filter(({ status }) => status === 503);
    assert.ok(busy.length > 0);
    for (const { retryAfter, body } of busy) {
      assert.equal(retryAfter, '2');
      assert.equal(JSON.parse(body).code, 'CAS_BUSY');
    }
    await until(async () => (await get(cas.apiPort, '/v1/version')).status === 200, 'an answer');
  });

  test('waits for no request and no handshake longer than it says', async () => {
    const beforehand = performance.now();
    const seconds = () => Math.round((performance.now() - beforehand) / 1000);
    const head = await open(cas.apiPort);
    head.socket.write('GET /v1/version HTTP/1.1\r\nhost: cas\r\n');
    const body = await open(cas.apiPort);
    body.socket.write('POST /session HTTP/1.1\r\nhost: cas\r\ncontent-length: 1000\r\n\r\n');
    // So that it is not silence that is noticed.
    const drip = setInterval(() => body.socket.write('x'), 1000);
    const silent = connectTcp(Number(cas.apiPort), '127.0.0.1').resume();
    const launcher = connectTcp(Number(cas.enclavePort), '127.0.0.1').resume();
    try {
      await Promise.all([once(silent, 'close'), once(launcher, 'close')]);
      assert.ok(seconds() >= 9 && seconds() < 60, `${seconds()} s until handshakes end`);
      for (const { received } of [head, body])
        assert.match(await received, /^HTTP\/1\.1 408 .*"code":"REQUEST_SLOW"/s);
      assert.ok(seconds() >= 29 && seconds() < 90, `${seconds()} s until requests end`);
    } finally {
      clearInterval(drip);
    }
  });

  test('finishes what it has taken when it ends, and takes no more', async () => {
    const text = session('before-the-end');
    const { socket, received } = await open(cas.apiPort);
    socket.write(
      `POST /session HTTP/1.1\r\nhost: cas\r\nexpect: 100-continue\r\ncontent-length: ${text.length}\r\n\r\n`,
    );
    // It has taken the request once it says so.
    await once(socket, 'data');
    socket.write(text.slice(0, 5));
    const idle = await open(cas.enclavePort);
    const ended = cas.server.stop();
    assert.equal(await idle.received, '');
    await assert.rejects(get(cas.apiPort, '/v1/version'), { code: 'ECONNREFUSED' });
    socket.write(text.slice(5));
    // Without a certificate it is refused, which is an answer.
    assert.match(await received, /^HTTP\/1\.1 100 .*^HTTP\/1\.1 401 .*"code":"IDENTITY_REQUIRED"/ms);
    assert.equal(await ended, 0);
    cas = await start();
  });
});

test('one source has so many handshakes under way, and what is completed makes room', async () => {
  const { key, certificate } = await makeIdentity('server');
  const server = createServer({ key, cert: certificate });
  const opened = acceptWithin(server, {
    ...{
      port: 'enclave',
      connections: 64,
      connectionsOfSource: 64,
      handshakesOfSource: 3,
      isIdle: () => false,
    },
  });
  server.on('tlsClientError', () => {});
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const begin = () =>
    connectTcp(port, '127.0.0.1')
      .on('error', () => {})
      .resume();
  try {
    const completed = [await open(String(port)), await open(String(port))];
    const areComplete = () => opened.size === 2 && [...opened.values()].every((tls) => tls);
    await until(areComplete, 'the server knows that both are complete');
    const begun = [begin(), begin(), begin()];
    await Promise.all(begun.map((socket) => once(socket, 'connect')));
    const late = begin();
    await once(late, 'close');
    assert.equal(opened.size, 5);
    begun[0]?.destroy();
    await until(() => opened.size === 4, 'the server knows that one has gone');
    completed.push(await open(String(port)));
    assert.equal(opened.size, 5);
    for (const socket of begun) socket.destroy();
    for (const { socket } of completed) socket.destroy();
  } finally {
    server.close();
  }
});
