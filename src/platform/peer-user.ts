import type { Socket } from 'node:net';
import { isIPv6 } from 'node:net';
import { cLibrary } from './library.ts';

/** Which user of this host is at the other end of a TCP connection: the kernel knows (sock_diag(7)). */

const library = cLibrary({
  socket: { arguments: ['i32', 'i32', 'i32'], return: 'i32' },
  send: { arguments: ['i32', 'buffer', 'u64', 'i32'], return: 'i64' },
  recv: { arguments: ['i32', 'buffer', 'u64', 'i32'], return: 'i64' },
});

const AF_INET = 2;
const AF_INET6 = 10;
const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const NETLINK_SOCK_DIAG = 4;
const MSG_DONTWAIT = 0x40;
const SOCK_DIAG_BY_FAMILY = 20;
const NLM_F_REQUEST = 1;
const IPPROTO_TCP = 6;
const TCP_LISTEN = 10;

/** Bytes of a request: struct nlmsghdr and struct inet_diag_req_v2 (linux/inet_diag.h). */
const REQUEST = 72;
/** Bytes of an answer up to the end of struct inet_diag_msg, after which there may be more. */
const ANSWER = 88;
const LONGEST = 4096;

let netlink: number | undefined;
let sequence = 0;

/**
 * @returns the uid of whoever made the socket at the other end; undefined where that is on another host, closed, or not to be
 * known, as in a sandbox without AF_NETLINK
 */
export function peerUser({ remoteAddress, remotePort, localAddress, localPort }: Socket): number | undefined {
  if (!remoteAddress || !remotePort || !localAddress || !localPort) return undefined;
  const { socket, send, recv } = library();
  netlink ??= socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (netlink < 0) return undefined;
  const from = bytesOf(remoteAddress);
  const to = bytesOf(localAddress);
  if (from.length !== to.length) return undefined;
  const request = Buffer.alloc(REQUEST);
  sequence = (sequence + 1) >>> 0;
  request.writeUInt32LE(REQUEST, 0);
  request.writeUInt16LE(SOCK_DIAG_BY_FAMILY, 4);
  request.writeUInt16LE(NLM_F_REQUEST, 6);
  request.writeUInt32LE(sequence, 8);
  request.writeUInt8(from.length === 4 ? AF_INET : AF_INET6, 16);
  request.writeUInt8(IPPROTO_TCP, 17);
  request.fill(0xff, 20, 24);
  // As the other end sees it.
  request.writeUInt16BE(remotePort, 24);
  request.writeUInt16BE(localPort, 26);
  from.copy(request, 28);
  to.copy(request, 44);
  // Of any interface; INET_DIAG_NOCOOKIE.
  request.fill(0xff, 64);
  if (send(netlink, request, BigInt(REQUEST), 0) !== BigInt(REQUEST)) return undefined;
  const answer = Buffer.alloc(LONGEST);
  // The kernel answers within send(2).
  while (recv(netlink, answer, BigInt(LONGEST), MSG_DONTWAIT) > 0n)
    if (answer.readUInt32LE(8) === sequence) return userIn(answer);
  return undefined;
}

function userIn(answer: Buffer): number | undefined {
  const isFound = answer.readUInt16LE(4) === SOCK_DIAG_BY_FAMILY && answer.readUInt32LE(0) >= ANSWER;
  // Without an inode it is closed, and belongs to nobody. One that listens at that port is another.
  const isOpen = answer.readUInt8(17) !== TCP_LISTEN && answer.readUInt32LE(84) !== 0;
  return isFound && isOpen ? answer.readUInt32LE(80) : undefined;
}

/** An address in network byte order; IPv4 in IPv6 as IPv4. */
function bytesOf(address: string): Buffer {
  const ipv4 = address.replace(/^::ffff:(?=\d+\.)/, '');
  if (!isIPv6(ipv4)) return Buffer.from(ipv4.split('.').map(Number));
  return Buffer.from(groupsOf(ipv4).flatMap((group) => [group >> 8, group & 0xff]));
}

/** The eight groups of an IPv6 address. */
export function groupsOf(address: string): number[] {
  const [head = '', tail = ''] = address.replace(/%.*/, '').split('::');
  const read = (text: string) =>
    text
      .split(':')
      .filter(Boolean)
      .map((group) => Number.parseInt(group, 16));
  const [before, after] = [read(head), read(tail)];
  return [...before, ...Array<number>(8 - before.length - after.length).fill(0), ...after];
}
