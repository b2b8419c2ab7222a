import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { request } from 'node:https';
import { type AddressInfo, connect as connectTcp, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { acceptWithin } from '../../src/cas/limits/accept.ts';
import { believeBalancers } from '../../src/cas/limits/proxy-protocol.ts';
import { serveMonitoring } from '../../src/cas/observe/monitoring.ts';
import { makeIdentity } from '../support/client.ts';
import { balancers, connectFrom } from '../support/proxy-protocol.ts';
import { missing } from '../support/stack.ts';
import { until } from '../support/until.ts';
import { sealedCas } from './sealed-cas.ts';

const quiet = { info() {}, warn() {}, error() {} };
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

const isIdle = () => true;

for (const [how, speaks] of [
  ['says nothing', false],
  ['asks nothing over TLS', true],
] as const)
  test(`whoever fills a port from many addresses, and ${how}, makes room for who comes`, async () => {
    const { key, certificate } = await makeIdentity('server');
    const server = createServer({ key, cert: certificate }, (socket) => socket.on('error', () => {}));
    server.on('tlsClientError', () => {});
    const open = acceptWithin(server, { port: 'enclave', connections: 8, connectionsOfSource: 4, isIdle });
    believeBalancers(server, balancers);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const taken: Socket[] = Array.from({ length: 8 }, (_, at) => {
      const socket = connectFrom(`198.51.100.${66 + (at >> 2)}`, port);
      return speaks ? connect({ socket, rejectUnauthorized: false }).on('error', () => {}) : socket;
    });
    const areAll = () => open.size === 8 && [...open.values()].every((tls) => (tls !== undefined) === speaks);
    try {
      await until(areAll, 'all places are taken');
      for (let honest = 0; honest < 6; honest++) {
        const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false });
        await once(socket, 'secureConnect');
        socket.destroy();
      }
    } finally {
      for (const socket of taken) socket.destroy();
      server.close();
    }
  });

test('whoever is served makes no room', async () => {
  const { key, certificate } = await makeIdentity('server');
  const server = createServer({ key, cert: certificate });
  server.on('tlsClientError', () => {});
  const open = acceptWithin(server, {
    ...{ port: 'enclave', connections: 2, connectionsOfSource: 2, isIdle: () => false },
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const at = { port: (server.address() as AddressInfo).port, host: '127.0.0.1', rejectUnauthorized: false };
  const served = [connect(at), connect(at)];
  try {
    await until(() => open.size === 2 && [...open.values()].every((tls) => tls), 'both are connected');
    await once(
      connectTcp(at.port, at.host)
        .on('error', () => {})
        .resume(),
      'close',
    );
    assert.equal(open.size, 2);
  } finally {
    for (const socket of served) socket.destroy();
    server.close();
  }
});

test('whoever fills the port for metrics leaves others room, and has them gathered once', async () => {
  const monitoring = await serveMonitoring({ host: '127.0.0.1', port: 0 }, quiet);
  let asked = 0;
  const gate = Promise.withResolvers<void>();
  monitoring.show({
    async ask() {
      asked++;
      await gate.promise;
      return new Map();
    },
  });
  const open = Array.from({ length: 20 }, () =>
    connectTcp(monitoring.port, '127.0.0.1').on('error', () => {}),
  );
  let closed = 0;
  for (const socket of open) socket.resume().on('close', () => closed++);
  try {
    await until(() => closed === 8, 'those that are too many were closed');
    const still = open.filter(({ destroyed, closed }) => !destroyed && !closed);
    for (const socket of still) socket.write('GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n');
    const answers = still.map(async (socket) => String((await once(socket, 'data'))[0]).slice(0, 12));
    await until(() => asked === 1, 'it is asked');
    await setTimeout(50);
    gate.resolve();
    assert.deepEqual(new Set(await Promise.all(answers)), new Set(['HTTP/1.1 200']));
    assert.equal(asked, 1);
  } finally {
    for (const socket of open) socket.destroy();
    await monitoring.close();
  }
});

test('a user of the host is one source, whichever of its addresses he takes', async () => {
  const server = createServer();
  server.on('tlsClientError', () => {});
  const open = acceptWithin(server, { port: 'api', connections: 64, connectionsOfSource: 4, isIdle });
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
  const open = acceptWithin(server, { port: 'api', connections: 64, connectionsOfSource: 3, isIdle });
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
