import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { groupsOf, peerUser } from '../../src/platform/peer-user.ts';
import { commanderOf } from '../../src/platform/users.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { missing } from '../support/stack.ts';

const own = process.getuid?.();
const server = createServer((socket) => socket.on('error', () => {}));
after(() => server.close());
server.listen(0, '::');
await once(server, 'listening');
const { port } = server.address() as AddressInfo;

async function accepted(begin: () => unknown): Promise<Socket> {
  const coming = once(server, 'connection');
  begin();
  const [socket] = (await coming) as [Socket];
  return socket;
}

const addresses = Object.values(networkInterfaces())
  .flatMap((all) => all ?? [])
  .filter(({ scopeid }) => !scopeid)
  .map(({ address }) => address);

for (const host of new Set(['127.0.0.1', '127.8.7.6', ...addresses]))
  test(`a connection to ${host} is of its user, and nobody's once it is closed`, async () => {
    const client = connect({ host, port });
    const socket = await accepted(() => client);
    assert.equal(peerUser(socket), own);
    client.destroy();
    await once(socket.resume(), 'end');
    assert.equal(peerUser(socket), undefined);
    socket.destroy();
  });

test('a connection of another user is his', {
  skip: own === 0 ? missing('setpriv') : 'only root has others',
}, async () => {
  const command = [
    '--reuid',
    '61002',
    '--clear-groups',
    'bash',
    '-c',
    `exec 3<>/dev/tcp/127.0.0.1/${port}; sleep 60`,
  ];
  const child = spawn('setpriv', command);
  const socket = await accepted(() => child);
  assert.equal(peerUser(socket), 61002);
  child.kill();
  socket.destroy();
});

test('who listens at the port of another host is not at the other end', () => {
  const socket = {
    ...{ remoteAddress: '127.0.0.1', remotePort: port, localAddress: '127.0.0.1', localPort: 9 },
  };
  assert.equal(peerUser(socket as Socket), undefined);
  assert.equal(peerUser({ ...socket, remoteAddress: '198.51.100.1' } as Socket), undefined);
  assert.equal(peerUser({} as Socket), undefined);
});

test('groups of addresses', () => {
  assert.deepEqual(groupsOf('::1'), [0, 0, 0, 0, 0, 0, 0, 1]);
  assert.deepEqual(groupsOf('2001:db8::a:b'), [0x2001, 0xdb8, 0, 0, 0, 0, 0xa, 0xb]);
  assert.deepEqual(groupsOf('fe80::1%eth0'), [0xfe80, 0, 0, 0, 0, 0, 0, 1]);
  assert.deepEqual(groupsOf('1:2:3:4:5:6:7:8'), [1, 2, 3, 4, 5, 6, 7, 8]);
});

test('a subordinate user is who commands him', () => {
  const file = join(temporaryFolder(), 'subuid');
  writeFileSync(file, 'nobody-of-this-name:100000:65536\n1000:165536:65536\ndaemon:231072:65536\n\nbad\n');
  for (const [uid, commander] of [
    [0, 0],
    [1000, 1000],
    [100_000, 100_000],
    [165_535, 165_535],
    [165_536, 1000],
    [231_071, 1000],
    [231_072, 1],
    [296_607, 1],
    [296_608, 296_608],
  ] as const)
    assert.equal(commanderOf(uid, file), commander, `${uid}`);
  assert.equal(commanderOf(165_536, `${file}.absent`), 165_536);
});
