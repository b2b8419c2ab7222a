import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { start } from '../launcher/support.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { executables } from '../support/stack.ts';

/** What a client says first that wants TLS (PostgreSQL, Message Formats: SSLRequest). */
const WANTS_TLS = '0000000804d2162f';

test('a database on another host is given no password without TLS, however that host is named', async () => {
  const folder = temporaryFolder();
  let said: Buffer = Buffer.alloc(0);
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (bytes: Buffer) => {
      said = Buffer.concat([said, bytes]);
      // No TLS here; who goes on says the password.
      socket.write('N');
    });
  }).listen(0, '127.0.0.2');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  writeFileSync(join(folder, 'pgpass'), `*:*:*:*:sesame\n`, { mode: 0o600 });
  const named = { PGHOST: '127.0.0.2', PGPORT: String(port) };
  try {
    for (const [store, variables] of [
      [`postgres://cas@127.0.0.2:${port}/cas`, {}],
      [`postgres:///cas?host=127.0.0.2&port=${port}&user=cas`, {}],
      ['postgres:///cas', { ...named, PGUSER: 'cas' }],
    ] as const) {
      said = Buffer.alloc(0);
      const env = { PATH: process.env.PATH, HOME: folder, PGPASSFILE: join(folder, 'pgpass'), ...variables };
      const args = ['cas', 'init', '--dir', join(folder, 'cas'), '--shares', '2/3', '--store', store];
      const { status, stderr } = await start(executables().scone, args, { env }).finished;
      assert.notEqual(status, 0);
      assert.match(stderr, /STORE_UNAVAILABLE/);
      assert.equal(said.toString('hex'), WANTS_TLS, store);
    }
  } finally {
    server.close();
  }
});
