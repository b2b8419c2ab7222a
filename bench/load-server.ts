import cluster from 'node:cluster';
import { constants } from 'node:crypto';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { minimalIdentity } from './minimal-identity.ts';

/**
 * What a CAS under load is compared with: an HTTPS server with the same kind of key and handshake, which reads a request and
 * sends as many bytes as a CAS would.
 * Arguments: bytes of the answer, and processes.
 */
const [bytes = 0, processes = 1] = process.argv.slice(2).map(Number);
if (cluster.isPrimary && processes > 1) {
  let ready = 0;
  for (let worker = 0; worker < processes; worker++)
    cluster.fork(process.env).on('message', (port) => {
      if (++ready === processes) console.log(port);
    });
} else {
  const answer = 'x'.repeat(bytes);
  const server = createServer(
    {
      ...(await minimalIdentity()),
      minVersion: 'TLSv1.3',
      secureOptions: constants.SSL_OP_NO_TICKET,
    },
    (request, response) => {
      request.resume();
      request.once('end', () => response.writeHead(200, { 'content-length': bytes }).end(answer));
    },
  );
  server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => {
    const { port } = server.address() as AddressInfo;
    if (process.send) process.send(port);
    else console.log(port);
  });
}
