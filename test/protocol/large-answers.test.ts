import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectApi, transfer } from '../../src/protocol/api-client.ts';
import { makeIdentity } from '../support/client.ts';

const SIZE = 8 * 1024 * 1024;
let server: ReturnType<typeof createServer>;
before(async () => {
  const { key, certificate } = await makeIdentity('server');
  server = createServer({ key, cert: certificate }, (_request, response) =>
    response.end(Buffer.alloc(SIZE, 1)),
  );
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
});
after(() => server.close());

test('an answer comes whole, though the other side has closed before all of it is read', async () => {
  const { port } = server.address() as AddressInfo;
  const connection = await connectApi({ host: '127.0.0.1', port });
  let size = 0;
  await transfer(connection, { method: 'GET', path: '/' }, async (answer) => {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      await sleep(2);
      size += chunk.length;
    }
  });
  assert.equal(size, SIZE);
});
