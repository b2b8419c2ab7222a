import type { Socket } from 'node:net';

/** Where connections are from that are known by more than the address of their other end. */
const sources = new WeakMap<Socket, string>();

/** Remembers whom a balancer has a connection from. */
export function comesFrom(socket: Socket, client: string): void {
  sources.set(socket, sourceAt(client));
}

/** Has TLS over a connection come from where that is from. */
export function comesAs(tls: Socket, source: string): void {
  sources.set(tls, source);
}

/** Where a connection is from, with or without TLS. */
export const sourceOf = (socket: Socket): string => sources.get(socket) ?? sourceAt(socket.remoteAddress);

/** The client's IPv4 address, or the /64 its IPv6 address is from, since one host commands all of that. */
function sourceAt(own: string | undefined): string {
  const address = own?.replace(/^::ffff:(?=\d+\.)/, '') ?? 'unknown';
  if (!address.includes(':')) return address;
  const [head = '', tail] = address.replace(/%.*/, '').split('::');
  const groups = head.split(':').filter(Boolean);
  const rest = tail?.split(':').filter(Boolean) ?? [];
  const all = [...groups, ...Array<string>(Math.max(0, 8 - groups.length - rest.length)).fill('0'), ...rest];
  return `${all.slice(0, 4).join(':')}::/64`;
}
