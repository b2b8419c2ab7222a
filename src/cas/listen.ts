import type { AddressInfo, BlockList, Server } from 'node:net';
import { failure, reason } from '../errors.ts';
import { countConnection } from '../platform/in-turn.ts';
import { formatAddress } from '../policy/address.ts';
import type { Log } from './cas.ts';
import { believeBalancers } from './limits/proxy-protocol.ts';

/** Connections that wait to be accepted; the kernel may allow fewer (net.core.somaxconn). */
export const BACKLOG = 4096;

/**
 * Listens. Not by fastify, which looks up all addresses of the host for its log: under the unit, no process may.
 * @param balancers say themselves whom their connections are from
 * @param log is told where they do not
 * @returns the port
 * @throws Failure ADDRESS_IN_USE
 */
export function listen(
  server: Server,
  where: { fd: number } | { host: string; port: number },
  balancers: BlockList | undefined,
  log: Log,
): Promise<number> {
  if (balancers) believeBalancers(server, balancers, log);
  server.prependListener('connection', countConnection);
  return new Promise((resolve, reject) => {
    server.once('error', (error) => {
      const address = 'fd' in where ? `descriptor ${where.fd}` : formatAddress(where);
      reject(failure('ADDRESS_IN_USE', { address, detail: reason(error) }));
    });
    server.listen({ ...where, backlog: BACKLOG }, () => resolve((server.address() as AddressInfo).port));
  });
}
