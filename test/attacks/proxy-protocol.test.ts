import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ask, header, isClosed, open, startBalancedCas } from '../support/proxy-protocol.ts';
import { until } from '../support/until.ts';

test('whoever is no balancer, and says that he is at another address, is not believed', async () => {
  const cas = await startBalancedCas();
  const socket = await open(cas.enclavePort, '127.0.0.66');
  socket.write(Buffer.concat([header('198.51.100.8'), Buffer.from('more')]));
  await isClosed(socket);
  const source = `"source":"uid:${process.getuid?.()}"`;
  await until(() => cas.server.output().includes(source), `${source} in the log`);
  assert.ok(!cas.server.output().includes('198.51.100.8'));
  assert.equal(await ask(await open(cas.apiPort, '127.0.0.66')), 'HTTP/1.1 200');
});
