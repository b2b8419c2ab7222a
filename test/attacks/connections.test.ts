import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:https';
import { test } from 'node:test';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { until } from '../support/until.ts';
import { sealedCas } from './sealed-cas.ts';

const ATTACKER = '127.0.0.66';
/** As many as one source may have open. */
const MOST = 1024;

test('whoever opens many connections and says nothing closes the port to nobody else', async () => {
  const { cas } = await sealedCas({ method: 'shares', threshold: 2, total: 2 });
  const at = { host: '127.0.0.1', port: cas.apiPort, rejectUnauthorized: false };
  const his = { ...at, localAddress: ATTACKER } as ConnectionOptions;
  const idle: TLSSocket[] = [];
  let closed = 0;
  try {
    for (let opened = 0; opened < MOST + 64; opened += 64)
      await Promise.all(
        Array.from({ length: 64 }, async () => {
          const socket = connect(his);
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
      const socket = connect(his);
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
