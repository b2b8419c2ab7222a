import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { readBalancers } from '../../src/cas/limits/proxy-protocol.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { freePorts } from '../support/port.ts';
import { executables, missing, type RunningCas, run, startCas, startServer } from '../support/stack.ts';
import { until } from '../support/until.ts';

const BALANCER = '127.0.0.5';
const CLIENT = '127.0.0.9';
const SIGNATURE = '0d0a0d0a000d0a515549540a';

const { scone } = executables();
let cas: RunningCas;
before(async () => {
  const folder = temporaryFolder();
  cas = await startCas(
    scone,
    join(folder, 'cas'),
    ['--proxy-protocol-from', BALANCER, '--workers', '2', '--log-level', 'info'],
    { PATH: process.env.PATH ?? '', HOME: folder },
  );
});

/** Header for TCP over IPv4 from an address. */
const header = (client: string, rest = '') =>
  Buffer.concat([
    Buffer.from(`${SIGNATURE}2111`, 'hex'),
    Buffer.of(0, 12 + rest.length / 2),
    Buffer.from(client.split('.').map(Number)),
    Buffer.from('7f00000104d20050', 'hex'),
    Buffer.from(rest, 'hex'),
  ]);

async function open(port: string, localAddress: string): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: Number(port), localAddress });
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket;
}

/** Status that the CAS answers with over a connection. */
async function ask(socket: Socket): Promise<string> {
  const tls = connectTls({ socket, rejectUnauthorized: false });
  tls.write('GET /v1/version HTTP/1.1\r\nhost: cas\r\nconnection: close\r\n\r\n');
  let text = '';
  tls.on('data', (chunk) => {
    text += chunk;
  });
  await once(tls, 'close');
  return text.slice(0, 12);
}

const isClosed = (socket: Socket) => once(socket.resume(), 'close');
/** What the log says of somebody who does not talk TLS. */
const isLogged = (source: string) =>
  until(() => cas.server.output().includes(`"source":"${source}"`), `${source} in the log`);

test('a connection of a balancer is from whom its header says', async () => {
  for (const rest of ['', '04000300616263']) {
    const socket = await open(cas.apiPort, BALANCER);
    socket.write(header(CLIENT, rest));
    assert.equal(await ask(socket), 'HTTP/1.1 200');
  }
  const socket = await open(cas.enclavePort, BALANCER);
  socket.write(Buffer.concat([header('198.51.100.7'), Buffer.from('this is no TLS')]));
  await isClosed(socket);
  await isLogged('198.51.100.7');
});

test('a header may come in pieces, and together with what follows', async () => {
  const socket = await open(cas.apiPort, BALANCER);
  socket.setNoDelay();
  for (const byte of header(CLIENT)) {
    socket.write(Buffer.of(byte));
    await new Promise(setImmediate);
  }
  assert.equal(await ask(socket), 'HTTP/1.1 200');
  const another = await open(cas.enclavePort, BALANCER);
  const ipv6 = `${SIGNATURE}22210024${'20010db80001000200030004000500060'.padEnd(64, '0')}04d20050`;
  assert.equal(ipv6.length, 2 * 52 + 0);
  another.write(Buffer.concat([Buffer.from(ipv6, 'hex'), Buffer.from('this is no TLS')]));
  await isClosed(another);
});

test('a balancer looks whether the CAS is there without a client', async () => {
  const socket = await open(cas.apiPort, BALANCER);
  socket.write(Buffer.from(`${SIGNATURE}20000000`, 'hex'));
  assert.equal(await ask(socket), 'HTTP/1.1 200');
});

test('a balancer that says nothing of this kind is closed', async () => {
  for (const bytes of [
    Buffer.from('PROXY TCP4 127.0.0.9 127.0.0.1 1 2\r\n'),
    Buffer.from(`${SIGNATURE}1111000c`, 'hex'),
    Buffer.from(`${SIGNATURE}2211ffff`, 'hex'),
    Buffer.from(`${SIGNATURE}23110000`, 'hex'),
    Buffer.from(`${SIGNATURE}2111000400000000`, 'hex'),
    Buffer.from('1603010200010001fc0303', 'hex'),
  ]) {
    const socket = await open(cas.apiPort, BALANCER);
    socket.write(bytes);
    await isClosed(socket);
  }
  for (const length of [0, 5, 16, 20]) {
    const socket = await open(cas.apiPort, BALANCER);
    socket.end(header(CLIENT).subarray(0, length));
    await isClosed(socket);
  }
  assert.equal(await ask(await open(cas.apiPort, '127.0.0.66')), 'HTTP/1.1 200');
});

test('nobody else is believed', async () => {
  const socket = await open(cas.enclavePort, '127.0.0.66');
  socket.write(Buffer.concat([header('198.51.100.8'), Buffer.from('more')]));
  await isClosed(socket);
  await isLogged('127.0.0.66');
  assert.ok(!cas.server.output().includes('198.51.100.8'));
  assert.equal(await ask(await open(cas.apiPort, '127.0.0.66')), 'HTTP/1.1 200');
});

test('HAProxy in front of both ports has the CAS know its clients', {
  skip: missing('haproxy', 'curl'),
}, async () => {
  const folder = temporaryFolder();
  const first = await freePorts(2);
  const configuration = join(folder, 'haproxy.cfg');
  const part = (name: string, port: number, to: string) => `listen ${name}
  bind 127.0.0.1:${port}
  source ${BALANCER}
  server cas 127.0.0.1:${to} send-proxy-v2 check check-ssl verify none
`;
  writeFileSync(
    configuration,
    `defaults
  mode tcp
  timeout connect 20s
  timeout client 60s
  timeout server 60s
${part('api', first, cas.apiPort)}${part('enclave', first + 1, cas.enclavePort)}`,
  );
  const haproxy = await startServer(
    'haproxy',
    ['-db', '-V', '-f', configuration],
    /Proxy api started|Using epoll|Available polling/,
  );
  try {
    const curl = () =>
      run('curl', ['-sk', '--interface', CLIENT, `https://127.0.0.1:${first}/v1/version`], process.env);
    await until(() => curl().stdout.includes('"version"'), 'an answer through HAProxy');
    const socket = await open(String(first + 1), '127.0.0.77');
    socket.write('this is no TLS');
    await isClosed(socket);
    await isLogged('127.0.0.77');
  } finally {
    await haproxy.stop();
  }
});

test('what is no address of balancers is refused', () => {
  for (const text of ['', 'balancer', '10.0.0.0/33', '::/129', '10.0.0.1/x', '10.0.0.0/', '1.2.3'])
    assert.throws(() => readBalancers([text]), { code: 'USAGE' });
  assert.ok(readBalancers(['10.0.0.0/8', '2001:db8::/32']).check('10.1.2.3'));
});
