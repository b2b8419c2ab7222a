import type { Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
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

/** Users of this host that are not known, as by a socket that is bound to a device; together they are one source. */
const THIS_HOST = '127.0.0.1';

function sourceAt(own: string | undefined): string {
  const address = own?.replace(/^::ffff:(?=\d+\.)/, '') ?? 'unknown';
  if (address.startsWith('127.') || ownAddresses().has(address)) return THIS_HOST;
  if (!address.includes(':')) return address;
  return `${groupsOf(address)
    .slice(0, 4)
    .map((group) => group.toString(16))
    .join(':')}::/64`;
}

/** Milliseconds for which the addresses of this host are taken to be the same. */
const FRESH = 1000;
let addresses: ReadonlySet<string> = new Set();
let until = 0;

function ownAddresses(): ReadonlySet<string> {
  const now = performance.now();
  if (now >= until) {
    const interfaces = Object.values(networkInterfaces()).flatMap((all) => all ?? []);
    addresses = new Set(interfaces.map(({ address }) => address));
    until = now + FRESH;
  }
  return addresses;
}
