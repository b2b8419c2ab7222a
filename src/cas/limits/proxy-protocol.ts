import { BlockList, isIPv4, isIPv6, type Server, type Socket } from 'node:net';
import { failure } from '../../errors.ts';
import type { Log } from '../cas.ts';
import { comesFrom } from './source.ts';

/** Milliseconds that a balancer has to say whom a connection is from. */
const PATIENCE = 10_000;
const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
/** Bytes before the addresses, and those that a header may have after that. */
const HEAD = 16;
const LONGEST = 4096;
/** Milliseconds between two lines in the log about connections without one. */
const SILENCE = 60_000;

/**
 * Addresses of balancers, from which connections begin with whom they are from.
 * @param texts ADDRESS or ADDRESS/PREFIX
 * @throws Failure USAGE
 */
export function readBalancers(texts: readonly string[]): BlockList {
  const balancers = new BlockList();
  for (const text of texts) {
    const [address = '', prefix] = text.split('/', 2);
    const family = isIPv4(address) ? 'ipv4' : isIPv6(address) ? 'ipv6' : undefined;
    const longest = family === 'ipv4' ? 32 : 128;
    const bits = prefix === undefined ? longest : Number(/^\d{1,3}$/.exec(prefix)?.[0] ?? Number.NaN);
    if (!family || !(bits <= longest))
      throw failure('USAGE', {
        detail: `--proxy-protocol-from takes ADDRESS or ADDRESS/PREFIX, not ${JSON.stringify(text)}`,
      });
    balancers.addSubnet(address, bits, family);
  }
  return balancers;
}

/**
 * Has connections of balancers begin with a header of the PROXY protocol, version 2
 * (https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt, 2.2), and closes those that do not, which the log says once
 * a minute. To be called once the server has all its listeners.
 */
export function believeBalancers(server: Server, balancers: BlockList, log?: Pick<Log, 'info'>): void {
  let connections = 0;
  let said = Number.NEGATIVE_INFINITY;
  const tell = (balancer: string) => {
    connections++;
    if (performance.now() - said < SILENCE) return;
    said = performance.now();
    log?.info(
      { balancer, connections },
      'closed: a balancer must begin with a PROXY protocol header, version 2',
    );
    connections = 0;
  };
  const listeners = server.listeners('connection');
  server.removeAllListeners('connection');
  const begin = (socket: Socket) => {
    for (const listener of listeners) listener.call(server, socket);
  };
  server.on('connection', (socket: Socket) => {
    const { remoteAddress = '', remoteFamily } = socket;
    if (!balancers.check(remoteAddress, remoteFamily === 'IPv6' ? 'ipv6' : 'ipv4')) return begin(socket);
    const refuse = () => {
      if (!socket.destroyed) tell(remoteAddress);
      destroy();
    };
    const late = setTimeout(refuse, PATIENCE).unref();
    const stop = () => {
      clearTimeout(late);
      socket.off('readable', look).off('error', destroy);
    };
    const destroy = () => {
      stop();
      socket.destroy();
    };
    let head: Buffer | null = null;
    const look = () => {
      head ??= socket.read(HEAD);
      if (!head) return;
      const length = lengthIn(head);
      if (length === undefined) return refuse();
      const addresses: Buffer | null = length === 0 ? Buffer.alloc(0) : socket.read(length);
      if (!addresses) return;
      const client = clientIn(head, addresses);
      if (client === undefined) return refuse();
      stop();
      if (client !== 'balancer') comesFrom(socket, client);
      begin(socket);
    };
    socket.on('error', destroy).on('readable', look);
  });
}

/** How many bytes follow the head, unless it is none. */
function lengthIn(head: Buffer): number | undefined {
  // The last bytes of a connection may be fewer.
  if (head.length < HEAD || !head.subarray(0, SIGNATURE.length).equals(SIGNATURE)) return undefined;
  const length = head.readUInt16BE(14);
  return head.readUInt8(12) >> 4 === 2 && length <= LONGEST ? length : undefined;
}

/** Whom a connection is from: the balancer itself looks whether this server is there, too. */
function clientIn(head: Buffer, addresses: Buffer): string | undefined {
  const command = head.readUInt8(12) & 0xf;
  if (command === 0) return 'balancer';
  return command === 1 ? addressIn(head.readUInt8(13), addresses) : undefined;
}

/** TCP over IPv4 or IPv6: the client's address comes first. */
function addressIn(family: number, bytes: Buffer): string | undefined {
  if (family === 0x11 && bytes.length >= 12) return bytes.subarray(0, 4).join('.');
  if (family !== 0x21 || bytes.length < 36) return undefined;
  return Array.from({ length: 8 }, (_, at) => bytes.readUInt16BE(2 * at).toString(16)).join(':');
}
