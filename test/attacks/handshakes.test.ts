import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { type AddressInfo, connect as connectTcp } from 'node:net';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { connect, createServer, type Server, type TlsOptions } from 'node:tls';
import { acceptWithin } from '../../src/cas/limits/accept.ts';
import { countHandshake, handshakesOf, mayShakeHands } from '../../src/cas/limits/handshakes.ts';
import { connectApi } from '../../src/protocol/api-client.ts';
import { dearCertificate } from '../support/dear-key.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { certificate, pem } from '../support/pki.ts';
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

/** A server that takes connections as a CAS does, and asks for a certificate. */
async function accepting(options: TlsOptions = {}): Promise<{ server: Server; port: number }> {
  const server = createServer({ ...shown(1), requestCert: true, rejectUnauthorized: false, ...options });
  acceptWithin(server, { port: 'api', connections: 100, connectionsOfSource: 100, isIdle: () => false });
  server.on('tlsClientError', () => {});
  server.on('secureConnection', (socket) => void socket.on('error', () => {}).end('hello'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, port: (server.address() as AddressInfo).port };
}

describe('a certificate whose key takes OpenSSL long to read', { skip }, () => {
  const honest = certificate({ commonName: 'honest' });
  const identity = (der: readonly Buffer[]) => ({
    cert: [honest.der, ...der].map((each) => pem(each, 'CERTIFICATE')).join(''),
    key: honest.key.export({ type: 'pkcs8', format: 'pem' }),
  });
  for (const [name, client, options] of [
    ['TLS 1.3 with AES-128', { ciphers: 'TLS_AES_128_GCM_SHA256' }, {}],
    ['TLS 1.3 with AES-256', { ciphers: 'TLS_AES_256_GCM_SHA384' }, {}],
    ['TLS 1.3 with ChaCha20', { ciphers: 'TLS_CHACHA20_POLY1305_SHA256' }, {}],
    ['TLS 1.3, asked for another group', { ecdhCurve: 'X25519:P-384' }, { ecdhCurve: 'P-384' }],
    ['TLS 1.2', { maxVersion: 'TLSv1.2' }, {}],
  ] as const)
    test(`closes the connection of a client that shows it in ${name}`, async () => {
      const { server, port } = await accepting(options);
      const hear = async (der: readonly Buffer[]) => {
        const own = { ...identity(der), ...client, rejectUnauthorized: false };
        const socket = connect({ port, host: '127.0.0.1', ...own }).on('error', () => {});
        let heard = '';
        socket.on('data', (text) => {
          heard += text;
        });
        await new Promise((resolve) => socket.once('close', resolve));
        return heard;
      };
      try {
        assert.equal(await hear([]), 'hello');
        assert.equal(await hear([honest.der]), 'hello');
        assert.equal(await hear([dearCertificate()]), '');
        assert.equal(await hear([honest.der]), 'hello');
      } finally {
        server.close();
      }
    });

  test('closes the connection to a CAS that shows it', async () => {
    for (const der of [[], [dearCertificate()]]) {
      const server = createServer(identity(der)).listen(0, '127.0.0.1');
      server.on('tlsClientError', () => {});
      await once(server, 'listening');
      const { port } = server.address() as AddressInfo;
      const connecting = connectApi({ host: '127.0.0.1', port });
      try {
        if (der.length === 0) (await connecting).socket.destroy();
        else await assert.rejects(connecting, { code: 'CAS_UNREACHABLE' });
      } finally {
        server.close();
      }
    }
  });
});

test('records of handshakes are read in turn by source, and those that take long count for it', async () => {
  const order: string[] = [];
  const [one, other] = [handshakesOf('one'), handshakesOf('other')];
  const pause = () => {
    const until = performance.now() + 10;
    while (performance.now() < until);
  };
  const reading = [];
  for (let many = 0; many < 20; many++)
    reading.push(
      one(() => {
        pause();
        order.push('one');
      }),
    );
  reading.push(other(() => void order.push('other')));
  await Promise.all(reading);
  assert.ok(order.indexOf('other') <= 2, `${order}`);

  assert.ok(mayShakeHands('a'));
  for (let many = 0; many < 1000; many++) countHandshake('a', 3);
  assert.ok(mayShakeHands('a'));
  for (let dear = 0; dear < 10; dear++) countHandshake('a', 50);
  assert.ok(!mayShakeHands('a'));
  assert.ok(mayShakeHands('b'));
  await assert.rejects(
    handshakesOf('a')(() => assert.fail()),
    /took long/,
  );
});

test('what is no record of TLS ends the connection', { skip }, async () => {
  const { server, port } = await accepting();
  try {
    for (const text of ['GET / HTTP/1.1\r\n\r\n', '\x80\x2e\x01\x03\x03', '\x17\x03\x03\x00\x01a']) {
      const socket = connectTcp(port, '127.0.0.1');
      socket.resume().write(Buffer.from(text, 'latin1'));
      await once(socket, 'close');
    }
  } finally {
    server.close();
  }
});
