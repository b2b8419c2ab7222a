import type { Socket } from 'node:net';

type Peer = Pick<Socket, 'remoteAddress' | 'remotePort'>;

/** The two sockets of a connection, with and without TLS, have nothing else in common. */
export const placeOf = ({ remoteAddress, remotePort }: Peer): string => `${remoteAddress} ${remotePort}`;

/** Addresses of clients behind balancers, by the place of their connection. */
const clients = new Map<string, string>();

/** Remembers whom a balancer has a connection from, as long as that lasts. */
export function comesFrom(socket: Socket, client: string): void {
  const place = placeOf(socket);
  clients.set(place, client);
  socket.once('close', () => clients.delete(place));
}

/** The client's IPv4 address, or the /64 its IPv6 address is from, since one host commands all of that. */
export function sourceOf(peer: Peer): string {
  const own = clients.get(placeOf(peer)) ?? peer.remoteAddress;
  const address = own?.replace(/^::ffff:(?=\d+\.)/, '') ?? 'unknown';
  if (!address.includes(':')) return address;
  const [head = '', tail] = address.replace(/%.*/, '').split('::');
  const groups = head.split(':').filter(Boolean);
  const rest = tail?.split(':').filter(Boolean) ?? [];
  const all = [...groups, ...Array<string>(Math.max(0, 8 - groups.length - rest.length)).fill('0'), ...rest];
  return `${all.slice(0, 4).join(':')}::/64`;
}
