import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { request } from 'node:https';
import { type AddressInfo, connect as connectTcp } from 'node:net';
import { networkInterfaces } from 'node:os';
import { test } from 'node:test';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { acceptWithin } from '../../src/cas/limits/accept.ts';
import { believeBalancers } from '../../src/cas/limits/proxy-protocol.ts';
import { makeIdentity } from '../support/client.ts';
import { balancers, connectFrom } from '../support/proxy-protocol.ts';
import { missing } from '../support/stack.ts';
import { until } from '../support/until.ts';
import { sealedCas } from './sealed-cas.ts';

const ATTACKER = '198.51.100.66';
/** As many as one source may have open. */
const MOST = 1024;

test('whoever opens many connections and says nothing closes the port to nobody else', async () => {
  const { cas } = await sealedCas({ method: 'shares', threshold: 2, total: 2 });
  const at = { host: '127.0.0.1', port: cas.apiPort, rejectUnauthorized: false };
  const his = () => ({ socket: connectFrom(ATTACKER, cas.apiPort), rejectUnauthorized: false });
  const idle: TLSSocket[] = [];
  let closed = 0;
  try {
    for (let opened = 0; opened < MOST + 64; opened += 64)
      await Promise.all(
        Array.from({ length: 64 }, async () => {
          const socket = connect(his());
          socket.on('error', () => {}).on('close', () => closed++);
          idle.push(socket);
          await Promise.race([once(socket, 'secureConnect'), once(socket, 'close')]).catch(() => {});
        }),
      );
    await until(() => closed === 64, 'those that are too many were closed');
    const version = await new Promise((resolve, reject) => {
      request({ ...at, path: '/v1/version', agent: false }, (answer) => {
        answer.resume();
        resolve(answer.statusCode);
      })
        .on('error', reject)
        .end();
    });
    assert.equal(version, 200);
    // What ends makes room for him, too.
    const [first] = idle;
    first?.destroy();
    await until(async () => {
      const socket = connect(his());
      socket.on('error', () => {});
      idle.push(socket);
      return Promise.race([
        once(socket, 'secureConnect').then(() => true),
        once(socket, 'close').then(() => false),
      ]).catch(() => false);
    }, 'there is room for one more');
  } finally {
    for (const socket of idle) socket.destroy();
    await cas.close();
  }
});

test('whoever fills a port from many addresses, and says nothing, makes room for who comes', async () => {
  const { key, certificate } = await makeIdentity('server');
  const server = createServer({ key, cert: certificate }, (socket) => socket.end('hello'));
  server.on('tlsClientError', () => {});
  const open = acceptWithin(server, { port: 'enclave', connections: 8, connectionsOfSource: 4 });
  believeBalancers(server, balancers);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const silent = Array.from({ length: 8 }, (_, at) => connectFrom(`198.51.100.${66 + (at >> 2)}`, port));
  try {
    await until(() => open.size === 8, 'all places are taken');
    for (let honest = 0; honest < 6; honest++) {
      const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false });
      assert.equal(String((await once(socket, 'data'))[0]), 'hello');
      socket.destroy();
    }
  } finally {
    for (const socket of silent) socket.destroy();
    server.close();
  }
});

test('a user of the host is one source, whichever of its addresses he takes', async () => {
  const server = createServer();
  server.on('tlsClientError', () => {});
  const open = acceptWithin(server, { port: 'api', connections: 64, connectionsOfSource: 4 });
  server.listen(0, '::');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  let closed = 0;
  const his = Array.from({ length: 8 }, (_, at) =>
    connectTcp({ port, host: '127.0.0.1', localAddress: `127.${at}.0.66` })
      .on('error', () => {})
      .on('close', () => closed++),
  );
  try {
    await until(() => closed === 4, 'those that are too many were closed');
    assert.equal(open.size, 4);
  } finally {
    for (const socket of his) socket.destroy();
    server.close();
  }
});

const interfaces = Object.entries(networkInterfaces()).flatMap(([device, all = []]) =>
  all.flatMap(({ family, address }) => (family === 'IPv4' ? [`${device} ${address}`] : [])),
);

test('nor does he become another one by binding his sockets to devices', {
  skip: missing('python3') || (interfaces.length < 2 && 'this host has one device'),
}, async () => {
  const server = createServer();
  server.on('tlsClientError', () => {});
  const open = acceptWithin(server, { port: 'api', connections: 64, connectionsOfSource: 3 });
  server.listen(0, '::');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const script = `import socket, sys
held = []
for where in sys.argv[2:]:
    device, address = where.split(' ')
    for time in range(2):
        it = socket.socket()
        it.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b'\\0')
        it.connect((address, int(sys.argv[1])))
        held.append(it)
print('all', flush=True)
sys.stdin.read()
`;
  const child = spawn('python3', ['-c', script, String(port), ...interfaces], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  try {
    await once(child.stdout, 'data');
    await until(() => open.size === 3, 'others were closed');
  } finally {
    child.kill();
    server.close();
  }
});
