import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';

/**
 * Ports of 127.0.0.1 where nobody listens, one after the other. None is of those that the system gives to connections
 * (ip_local_port_range in ip(7)), so a server that ends finds its port free when it comes back.
 * @returns the first one
 */
export async function freePorts(count: number): Promise<number> {
  for (;;) {
    const first = randomInt(10_000, 32_000 - count);
    const wanted = Array.from({ length: count }, (_, index) => first + index);
    if ((await Promise.all(wanted.map(isFree))).every(Boolean)) return first;
  }
}

export const freePort = () => freePorts(1);

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    await once(server.listen(port, '127.0.0.1'), 'listening');
  } catch {
    return false;
  }
  await once(server.close(), 'close');
  return true;
}
