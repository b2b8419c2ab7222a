import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { believeBalancers, readBalancers } from '../../src/cas/limits/proxy-protocol.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { freePorts } from '../support/port.ts';
import {
  ask,
  BALANCER,
  balancers,
  CLIENT,
  header,
  isClosed,
  open,
  SIGNATURE,
  startBalancedCas,
} from '../support/proxy-protocol.ts';
import { missing, type RunningCas, run, startServer } from '../support/stack.ts';
import { until } from '../support/until.ts';

let cas: RunningCas;
before(async () => {
  cas = await startBalancedCas();
});

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
    Buffer.from('PROXY TCP4 198.51.100.9 127.0.0.1 1 2\r\n'),
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

test('that a balancer says nothing of this kind is in the log, and many times only once', async () => {
  const lines: object[] = [];
  const server = createServer((socket) => socket.destroy());
  believeBalancers(server, balancers, { info: (fields) => void lines.push(fields) });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  for (let count = 0; count < 20; count++) {
    const socket = await open(String(port), BALANCER);
    socket.write('GET / HTTP/1.1\r\n\r\n');
    await isClosed(socket);
  }
  server.close();
  assert.deepEqual(lines, [{ balancer: BALANCER, connections: 1 }]);
  await until(() => cas.server.output().includes(`"balancer":"${BALANCER}"`), 'a balancer in the log');
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
    const curl = () => run('curl', ['-sk', `https://127.0.0.1:${first}/v1/version`], process.env);
    await until(() => curl().stdout.includes('"version"'), 'an answer through HAProxy');
    const socket = await open(String(first + 1), '127.0.0.77');
    socket.write('this is no TLS');
    await isClosed(socket);
    await isLogged('127.0.0.1');
  } finally {
    await haproxy.stop();
  }
});

test('what is no address of balancers is refused', () => {
  for (const text of ['', 'balancer', '10.0.0.0/33', '::/129', '10.0.0.1/x', '10.0.0.0/', '1.2.3'])
    assert.throws(() => readBalancers([text]), { code: 'USAGE' });
  assert.ok(readBalancers(['10.0.0.0/8', '2001:db8::/32']).check('10.1.2.3'));
});
