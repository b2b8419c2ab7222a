import { constants } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:tls';
import { frames } from '../src/protocol/frame.ts';
import { LAUNCH_PROTOCOL } from '../src/protocol/launch.ts';
import { minimalIdentity } from './minimal-identity.ts';

/**
 * What a CAS is compared with: the same kind of key and TLS, and to whatever comes the same answer.
 * Argument: bytes of the answer.
 */
const answer = 'x'.repeat(Number(process.argv[2]) - '""'.length);
const server = createServer(
  {
    ...(await minimalIdentity()),
    minVersion: 'TLSv1.3',
    ALPNProtocols: [LAUNCH_PROTOCOL],
    secureOptions: constants.SSL_OP_NO_TICKET,
  },
  (socket) => {
    socket.on('error', () => {});
    socket.once('data', () => {
      frames(socket, 0).write(answer);
      socket.end();
    });
  },
);
server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port));
