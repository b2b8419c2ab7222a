import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { request } from 'node:https';
import type { AddressInfo, Server } from 'node:net';
import { after, before, test } from 'node:test';
import { connect } from 'node:tls';
import { promisify } from 'node:util';
import type { FastifyInstance } from 'fastify';
import { createHttps } from '../../src/cas/http.ts';
import { createLaunchPort } from '../../src/cas/launch-port.ts';
import { roomFor } from '../../src/cas/limits/held.ts';
import { believeBalancers } from '../../src/cas/limits/proxy-protocol.ts';
import { MEBIBYTE } from '../../src/cas/limits/stored.ts';
import { asker } from '../../src/cas/observe/correlation.ts';
import { frames } from '../../src/protocol/frame.ts';
import { LAUNCH_PROTOCOL } from '../../src/protocol/launch.ts';
import { bareCas } from '../support/cas.ts';
import { makeIdentity } from '../support/client.ts';
import { balancers, connectFrom } from '../support/proxy-protocol.ts';
import { until } from '../support/until.ts';

const ATTACKER = '198.51.100.66';
const HONEST = '198.51.100.1';

/** A server with the limits of a CAS, and calls of the tests. */
let app: FastifyInstance;
/** Three bytes a character, so that pieces end within one. */
const LONG = '€'.repeat(MEBIBYTE);
/** Bytes that were written at once. */
const pieces: number[] = [];
const counted: number[] = [];
const SHORT = 'a'.repeat(60_000);
const rooms: number[] = [];
const waiting = Promise.withResolvers<AbortSignal | undefined>();
before(async () => {
  const quiet = () => {};
  app = createHttps(await makeIdentity('cas'), { info: quiet, warn: quiet, error: quiet });
  app.post('/length', async ({ body }) => ({ length: (body as Buffer).length }));
  app.post('/long', (_, reply) => {
    const { raw } = reply;
    const write = raw.write.bind(raw);
    raw.write = (chunk: Buffer) => {
      pieces.push(chunk.length);
      return write(chunk);
    };
    return reply.send(LONG);
  });
  // Hooks that are added later see what the others have done.
  const onSend = async (_request: unknown, _reply: unknown, payload: unknown) => {
    rooms.push(roomFor(ATTACKER));
    return payload;
  };
  app.post('/short', { onSend }, async () => SHORT);
  app.post('/counted', async () => {
    counted.push(1);
    return {};
  });
  app.post('/waiting', () => {
    waiting.resolve(asker().gone);
    return new Promise(() => {});
  });
  believeBalancers(app.server as unknown as Server, balancers);
  await app.listen({ host: '127.0.0.1', port: 0 });
});
after(() => app.close());

/** Begins to ask. @returns the request, and the answer once it comes */
function ask(from: string, path: string, headers: Record<string, string | number> = {}) {
  const { port } = app.server.address() as AddressInfo;
  const createConnection = () => connect({ socket: connectFrom(from, port), rejectUnauthorized: false });
  const at = { createConnection };
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

test('a long answer is sent in pieces, between which others are served', async () => {
  const { asked } = ask(HONEST, '/long');
  asked.end();
  const [answer] = (await once(asked, 'response')) as [IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of answer) chunks.push(chunk);
  const bytes = Buffer.from(LONG);
  assert.deepEqual(Buffer.concat(chunks), bytes);
  assert.equal(answer.headers['content-length'], String(bytes.length));
  assert.ok(Math.max(...pieces) < MEBIBYTE, `${pieces}`);
  assert.equal(
    pieces.reduce((sum, size) => sum + size),
    bytes.length,
  );
});

test('work is for nobody once its connection is closed, on either port', async () => {
  const { asked } = ask(ATTACKER, '/waiting');
  asked.end();
  const signal = await waiting.promise;
  assert.equal(signal?.aborted, false);
  asked.destroy();
  await once(signal as AbortSignal, 'abort');

  const { cas } = bareCas();
  const reading = Promise.withResolvers<AbortSignal | undefined>();
  const gate = Promise.withResolvers<undefined>();
  cas.store.activeVersion = () => {
    reading.resolve(asker().gone);
    return gate.promise;
  };
  const { server, close } = createLaunchPort(cas, await makeIdentity('cas'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const at = { host: '127.0.0.1', port, rejectUnauthorized: false };
  const socket = connect({ ...at, ALPNProtocols: [LAUNCH_PROTOCOL] }).on('error', () => {});
  await once(socket, 'secureConnect');
  frames(socket, 1024).write({ session: 'a', service: 's' });
  const launching = await reading.promise;
  assert.equal(launching?.aborted, false);
  socket.destroy();
  await once(launching as AbortSignal, 'abort');
  gate.resolve(undefined);
  await close();
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

test('answers of some kilobytes are counted, too, as long as they are not taken', async () => {
  const whole = roomFor(ATTACKER);
  const { asked, answer } = ask(ATTACKER, '/short');
  asked.end();
  assert.equal(await answer, 200);
  const [first = whole] = rooms;
  assert.ok(whole - first >= SHORT.length, `${whole} ${rooms}`);
  await until(() => roomFor(ATTACKER) === whole, 'it was taken');
});

test('requests that come in one piece, before any is answered, are not worked on, and end their connection', async () => {
  const { port } = app.server.address() as AddressInfo;
  const socket = connect({ socket: connectFrom(ATTACKER, port), rejectUnauthorized: false }).on(
    'error',
    () => {},
  );
  await once(socket, 'secureConnect');
  let asked = 0;
  const count = () => void asked++;
  app.server.on('request', count);
  const worked = counted.length;
  socket.resume().write('POST /counted HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n'.repeat(500));
  await once(socket, 'close');
  app.server.off('request', count);
  assert.ok(asked > 32);
  assert.ok(counted.length - worked <= 32, `${counted.length}`);
  for (let time = 0; time < 3; time++) {
    const { asked, answer } = ask(HONEST, '/counted');
    asked.end();
    assert.equal(await answer, 200);
  }
});
