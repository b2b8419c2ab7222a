import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { groupsOf, peerUser } from '../../platform/peer-user.ts';
import { commanderOf } from '../../platform/users.ts';

/** Where connections are from, once that is known. */
const sources = new WeakMap<Socket, string>();

/** Remembers whom a balancer has a connection from. */
export function comesFrom(socket: Socket, client: string): void {
  sources.set(socket, sourceAt(client));
}

/** Has TLS over a connection come from where that is from. */
export function comesAs(tls: TLSSocket, source: string): void {
  sources.set(tls, source);
}

/**
 * Where a connection is from, with or without TLS: `uid:N` of this host, whichever of its addresses he takes, else what one
 * host commands: its IPv4 address, or the /64 its IPv6 address is from. A user's subordinate ones count as himself.
 */
export function sourceOf(socket: Socket): string {
  const known = sources.get(socket);
  if (known !== undefined) return known;
  const uid = peerUser(socket);
  const source = uid === undefined ? sourceAt(socket.remoteAddress) : `uid:${commanderOf(uid)}`;
  sources.set(socket, source);
  return source;
}

/** All of 127.0.0.0/8 is one host. */
function sourceAt(own: string | undefined): string {
  const address = own?.replace(/^::ffff:(?=\d+\.)/, '') ?? 'unknown';
  if (!address.includes(':')) return address.startsWith('127.') ? '127.0.0.1' : address;
  return `${groupsOf(address)
    .slice(0, 4)
    .map((group) => group.toString(16))
    .join(':')}::/64`;
}
