import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { type AddressInfo, connect as connectTcp, createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { connect, createServer } from 'node:tls';
import { countHandshake, mayShakeHands } from '../../src/cas/limits/handshake-time.ts';
import { connectApi } from '../../src/protocol/api-client.ts';
import { boundHandshake } from '../../src/protocol/handshake.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { missing } from '../support/stack.ts';
import { sealedCas } from './sealed-cas.ts';

const folder = temporaryFolder();
const key = join(folder, 'key.pem');
const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
/** Certificates, each by the next one; one has some 700 bytes. */
let chain: string[];

const skip = missing('openssl');
before(() => {
  if (skip) return;
  openssl('genrsa', '-out', key, '2048');
  for (let at = 16; at-- > 0; ) {
    const issuer = at < 15 ? ['-CA', `${at + 1}.pem`, '-CAkey', key] : [];
    openssl('req', '-new', '-x509', '-key', key, '-subj', `/CN=${at}`, ...issuer, '-out', `${at}.pem`);
  }
  chain = Array.from({ length: 16 }, (_, at) => readFileSync(join(folder, `${at}.pem`), 'utf8'));
});

/** As it is shown in a handshake. */
const shown = (certificates: number) => ({
  key: readFileSync(key),
  cert: chain.slice(0, certificates).join(''),
});

describe('a certificate with a long chain, each part of which would be verified', { skip }, () => {
  test('closes the connection of a client that shows it, and of nobody else', async () => {
    const { cas } = await sealedCas({ method: 'shares', threshold: 2, total: 2 });
    const ask = (certificates: number, body = '') =>
      new Promise<number | undefined>((resolve, reject) => {
        const at = { host: '127.0.0.1', port: cas.apiPort, path: '/v1/version', agent: false };
        const identity = { ...shown(certificates), rejectUnauthorized: false };
        request({ ...at, ...identity, method: body ? 'POST' : 'GET' }, (answer) => {
          answer.resume().on('end', () => resolve(answer.statusCode));
        })
          .on('error', reject)
          .end(body);
      });
    try {
      assert.equal(await ask(4), 200);
      await assert.rejects(ask(16), ({ code }: NodeJS.ErrnoException) =>
        /^(ECONNRESET|EPIPE)$/.test(code ?? ''),
      );
      // What comes after the handshake has other limits.
      assert.equal(await ask(4, 'a'.repeat(200_000)), 405);
    } finally {
      await cas.close();
    }
  });

  test('closes the connection to a server that shows it', async () => {
    for (const [certificates, isTaken] of [
      [4, true],
      [16, false],
    ] as const) {
      const server = createServer(shown(certificates)).listen(0, '127.0.0.1');
      server.on('tlsClientError', () => {});
      await once(server, 'listening');
      const { port } = server.address() as AddressInfo;
      const connecting = connectApi({ host: '127.0.0.1', port });
      try {
        if (isTaken) (await connecting).socket.destroy();
        else await assert.rejects(connecting, { code: 'CAS_UNREACHABLE' });
      } finally {
        server.close();
      }
    }
  });
});

test('a server that chooses a group of its own for the handshake is not spoken to', { skip }, async () => {
  const server = createServer({ ...shown(1), maxVersion: 'TLSv1.2' }).listen(0, '127.0.0.1');
  server.on('tlsClientError', () => {});
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  try {
    await assert.rejects(connectApi({ host: '127.0.0.1', port }), { code: 'CAS_UNREACHABLE' });
  } finally {
    server.close();
  }
});

test('what reading a handshake takes is told, and counts for its source', { skip }, async () => {
  const server = createServer({ ...shown(1), requestCert: true, rejectUnauthorized: false });
  const took: number[] = [];
  const port = createTcpServer((socket) => {
    const handshake = boundHandshake(socket, (milliseconds) => took.push(milliseconds));
    server.once('secureConnection', (tls) => {
      handshake.complete();
      tls.end('hello');
    });
    server.emit('connection', handshake.stream);
  }).listen(0, '127.0.0.1');
  await once(port, 'listening');
  const client = connect({
    socket: connectTcp((port.address() as AddressInfo).port, '127.0.0.1'),
    ...shown(4),
    rejectUnauthorized: false,
  });
  assert.equal(String((await once(client, 'data'))[0]), 'hello');
  port.close();
  assert.ok(took.length >= 2);
  // Some kernels count by ticks of milliseconds.
  assert.ok(took.every((milliseconds) => milliseconds >= 0));

  assert.ok(mayShakeHands('a'));
  for (let many = 0; many < 1000; many++) countHandshake('a', 3);
  assert.ok(mayShakeHands('a'));
  for (let dear = 0; dear < 10; dear++) countHandshake('a', 50);
  assert.ok(!mayShakeHands('a'));
  assert.ok(mayShakeHands('b'));
});
