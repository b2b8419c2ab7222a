import { closeSync } from 'node:fs';
import { createServer } from 'node:net';
import { duplicateAbove } from './libc.ts';

/** A TCP socket that is listened on by other processes, which are given it when they are started. */
export interface ListeningSocket {
  fd: number;
  port: number;
  close(): void;
}

/**
 * Opens one that this process accepts nothing on. Connections wait in it until a process takes them, whichever that is.
 * @param backlog of connections that wait; the kernel may allow fewer (net.core.somaxconn)
 * @throws Error of listen(2)
 */
export function openListeningSocket(host: string, port: number, backlog: number): Promise<ListeningSocket> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen({ host, port, backlog }, () => {
      const { _handle: handle } = server as unknown as { _handle: { fd: number } };
      const address = server.address();
      const fd = duplicateAbove(handle.fd, 3);
      server.close();
      resolve({
        fd,
        port: typeof address === 'object' && address ? address.port : port,
        close: () => closeSync(fd),
      });
    });
  });
}
