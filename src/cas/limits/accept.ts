import { AsyncLocalStorage } from 'node:async_hooks';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Server, TLSSocket } from 'node:tls';
import { boundHandshake, type Handshake } from '../../protocol/handshake.ts';
import { metrics, since } from '../observe/metrics.ts';
import { type Counts, createCounts } from './counts.ts';
import { handshakesOf, mayShakeHands } from './handshakes.ts';
import { comesAs, sourceOf } from './source.ts';

/** Handshakes that one source may have under way: as many launchers as come at once after a power cut, and no more. */
const HANDSHAKES_OF_SOURCE = 2048;
/** Milliseconds in which a client is to say something; TLS counts them anew from there. */
const FIRST_WORD = 10_000;

interface Accepting {
  port: 'api' | 'enclave';
  /** Connections at a time. */
  connections: number;
  /** Connections that one source may have, idle ones included; it may be a balancer that many come through. */
  connectionsOfSource: number;
  /** Handshakes that one source may have under way; absent: 2048. */
  handshakesOfSource?: number;
  /** Whether nothing is done for whoever is at the other end. */
  isIdle(tls: TLSSocket): boolean;
}

/** A connection whose handshake is under way. */
interface Arrival {
  socket: Socket;
  source: string;
  start: number;
  handshake?: Handshake;
  /** To be called once it is no longer under way. */
  end: () => void;
}

/**
 * Has a server accept connections within limits for each source, and counts them. A source that has used up what it may is
 * refused, so that others find room.
 * @returns where all open connections are, those included whose handshake is under way, by TLS once it is complete
 */
export function acceptWithin(
  server: Server,
  {
    port,
    connections: most,
    connectionsOfSource,
    handshakesOfSource = HANDSHAKES_OF_SOURCE,
    isIdle,
  }: Accepting,
): ReadonlyMap<Socket, TLSSocket | undefined> {
  const arriving = new AsyncLocalStorage<Arrival>();
  const connections = new Map<Socket, TLSSocket | undefined>();
  const open = createCounts();
  const underWay = createCounts();
  const mayCome = (source: string) =>
    open.of(source) < connectionsOfSource &&
    underWay.of(source) < handshakesOfSource &&
    mayShakeHands(source);
  const listeners = server.listeners('connection') as ((connection: Duplex) => void)[];
  server.removeAllListeners('connection');
  server.on('connection', (socket: Socket) => {
    const source = sourceOf(socket);
    const isFull = connections.size >= most;
    const victim = isFull ? oldestOfMost(connections, open, isIdle) : undefined;
    if (!mayCome(source) || (isFull && !victim)) {
      metrics.dropped({ port });
      socket.destroy();
      return;
    }
    victim?.destroy();
    let isUnderWay = true;
    const end = () => {
      if (isUnderWay) underWay.add(source, -1);
      isUnderWay = false;
    };
    connections.set(socket, undefined);
    open.add(source, 1);
    underWay.add(source, 1);
    metrics.connections.add({ port }, 1);
    socket.once('close', () => {
      end();
      connections.delete(socket);
      open.add(source, -1);
      metrics.connections.add({ port }, -1);
    });
    const silent = setTimeout(() => {
      metrics.handshakeFailed({ port });
      socket.destroy();
    }, FIRST_WORD);
    const inTurn = handshakesOf(source);
    const begin = () => {
      clearTimeout(silent);
      if (socket.destroyed) return;
      const arrival: Arrival = { socket, source, start, end };
      arriving.run(arrival, () => {
        arrival.handshake = boundHandshake(socket, 'client', inTurn);
        for (const listener of listeners) listener.call(server, arrival.handshake.stream);
      });
    };
    const start = performance.now();
    // What TLS needs is made for those alone who say something.
    const hear = () => {
      if (socket.readableLength > 0) inTurn(begin).catch(() => socket.destroy());
      else socket.destroy();
    };
    socket.on('error', () => {}).once('close', () => clearTimeout(silent));
    if (socket.readableLength > 0) hear();
    else socket.once('readable', hear);
  });
  server.on('keylog', (line) => arriving.getStore()?.handshake?.learn(line));
  // All that TLS makes of a connection happens in the context in which that was accepted.
  server.prependListener('secureConnection', (tls) => {
    const arrival = arriving.getStore();
    if (!arrival) return void tls.destroy();
    arrival.handshake?.complete(tls);
    arrival.end();
    connections.set(arrival.socket, tls);
    comesAs(tls, arrival.source);
    metrics.handshakeSeconds({ port }, since(arrival.start));
  });
  server.prependListener('tlsClientError', (_error, tls) => {
    comesAs(tls, arriving.getStore()?.source ?? 'unknown');
    metrics.handshakeFailed({ port });
  });
  return connections;
}

/** The oldest connection of the source that has most: first one without TLS, then one for which nothing is done. */
function oldestOfMost(
  connections: ReadonlyMap<Socket, TLSSocket | undefined>,
  open: Pick<Counts, 'of'>,
  isIdle: (tls: TLSSocket) => boolean,
): Socket | undefined {
  const oldest = (mayGo: (tls: TLSSocket | undefined) => boolean) => {
    let found: Socket | undefined;
    for (const [socket, tls] of connections) {
      if (socket.destroyed || !mayGo(tls)) continue;
      if (!found || open.of(sourceOf(socket)) > open.of(sourceOf(found))) found = socket;
    }
    return found;
  };
  return oldest((tls) => !tls) ?? oldest((tls) => tls !== undefined && isIdle(tls));
}
