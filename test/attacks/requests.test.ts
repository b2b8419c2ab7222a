import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import type { FastifyInstance } from 'fastify';
import { createHttps } from '../../src/cas/http.ts';
import { MEBIBYTE } from '../../src/cas/limits/stored.ts';
import { makeIdentity } from '../support/client.ts';

const ATTACKER = '127.0.0.66';
const HONEST = '127.0.0.1';

/** A server with the limits of a CAS, and calls of the tests. */
let app: FastifyInstance;
before(async () => {
  const quiet = () => {};
  app = createHttps(await makeIdentity('cas'), { info: quiet, warn: quiet, error: quiet });
  app.post('/length', async ({ body }) => ({ length: (body as Buffer).length }));
  await app.listen({ host: '127.0.0.1', port: 0 });
});
after(() => app.close());

/** Begins to ask. @returns the request, and the answer once it comes */
function ask(localAddress: string, path: string, headers: Record<string, string | number> = {}) {
  const { port } = app.server.address() as AddressInfo;
  const at = { host: '127.0.0.1', port, agent: false, rejectUnauthorized: false, localAddress };
  const asked: ClientRequest = request({ ...at, path, method: 'POST', headers });
  const answer = once(asked, 'response').then(([its]) => (its as IncomingMessage).resume().statusCode);
  asked.on('error', () => {});
  answer.catch(() => {});
  return { asked, answer };
}

test('bodies that are announced are counted for one source, and others have room', async () => {
  const length = 2 * MEBIBYTE;
  const announced = Array.from({ length: 32 }, () => {
    const { asked, answer } = ask(ATTACKER, '/length', { 'content-length': length, expect: '100-continue' });
    asked.flushHeaders();
    return { asked, answer, continued: once(asked, 'continue') };
  });
  await Promise.all(announced.map(({ continued }) => continued));
  for (const headers of [{ 'content-length': length }, { 'transfer-encoding': 'chunked' }]) {
    const { asked, answer } = ask(ATTACKER, '/length', headers);
    asked.flushHeaders();
    assert.equal(await answer, 503);
    asked.destroy();
  }
  const whole = async (from: string) => {
    const { asked, answer } = ask(from, '/length', { 'content-length': length });
    asked.end(Buffer.alloc(length));
    return answer;
  };
  assert.equal(await whole(HONEST), 200);
  for (const { asked } of announced) asked.end(Buffer.alloc(length));
  assert.deepEqual(new Set(await Promise.all(announced.map(({ answer }) => answer))), new Set([200]));
  assert.equal(await whole(ATTACKER), 200);
});

test('a process whose memory is taken by buffers takes on no more, until they are gone', async () => {
  const overload = new URL('../../src/cas/limits/overload.ts', import.meta.url);
  const program = `
    import { setTimeout as sleep } from 'node:timers/promises';
    import { getHeapStatistics } from 'node:v8';
    import { requireRoom } from '${overload}';
    const is = () => { try { requireRoom(); return 'room'; } catch ({ code }) { return code; } };
    const said = [is()];
    let buffer = Buffer.alloc(getHeapStatistics().heap_size_limit);
    said.push(is());
    buffer = undefined;
    while (is() !== 'room') { gc(); await sleep(1); }
    console.log(said.join(' '));`;
  const { stdout } = await promisify(execFile)(process.execPath, [
    ...['--max-old-space-size=64', '--expose-gc', '--input-type=module', '-e', program],
  ]);
  assert.equal(stdout, 'room CAS_BUSY\n');
});
