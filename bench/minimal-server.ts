import { generateKeyPairSync } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:tls';
import { selfSignedCertificate } from '../src/protocol/certificate.ts';

/** What bench/minimal.ts talks to: the same kind of key and TLS as a CAS, and an answer of two kilobytes. */
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const cert = await selfSignedCertificate({
  key: privateKey,
  commonName: 'minimal',
  names: ['localhost'],
  notBefore: new Date(Date.now() - 1000),
  notAfter: new Date(Date.now() + 86_400_000),
});
const key = privateKey.export({ type: 'pkcs8', format: 'pem' });
const server = createServer({ key, cert, minVersion: 'TLSv1.3' }, (socket) => {
  socket.on('error', () => {});
  socket.on('data', () => socket.end('x'.repeat(2048)));
});
server.listen(0, 'localhost', () => console.log((server.address() as AddressInfo).port));
