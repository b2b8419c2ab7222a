import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { FastifyInstance } from 'fastify';
import { failure } from '../../errors.ts';
import { takeTurns } from '../../platform/in-turn.ts';
import { createCounts } from './counts.ts';

/** Requests at a time of one client, so that others find room. */
const AT_ONCE = 128;

const inTurn = takeTurns<string>(0);

/** Waits until it is the turn of a source to begin a request: one does each time the event loop comes round. */
export const beginRequest = (source: string): Promise<void> => inTurn(source, () => {});

interface Connection {
  who: string;
  /** Requests that are not answered yet. */
  open: number;
  /** Those of them that are worked on, which goes on when the client is gone. */
  running: number;
}

type Listener = (request: IncomingMessage, response: ServerResponse) => void;

/** Requests that may wait for their answers on one connection (RFC 9112 §9.3.2). */
const ON_CONNECTION = 32;

/** Requests on the connections of a server. */
export interface OnConnections {
  /** Wraps each listener of the server. */
  few(listener: Listener): Listener;
  /** Whether no request is under way on a connection. */
  isIdle(socket: Socket): boolean;
}

/**
 * Closes a connection on which many requests come before the first is answered. What comes in one piece would be worked on at
 * once: some thousand requests of a few bytes.
 */
export function onConnections(): OnConnections {
  const answering = new WeakMap<Socket, number>();
  const of = (socket: Socket) => answering.get(socket) ?? 0;
  return {
    few: (listener) => (request, response) => {
      const { socket } = request;
      if (socket.destroyed) return;
      if (of(socket) >= ON_CONNECTION) return void socket.destroy();
      answering.set(socket, of(socket) + 1);
      response.once('close', () => answering.set(socket, of(socket) - 1));
      listener(request, response);
    },
    isIdle: (socket) => of(socket) === 0,
  };
}

/**
 * Refuses what a client asks for while much of his is under way, with TOO_MANY_REQUESTS. To be called before calls are
 * added.
 * @param whoIs names the client at the other end
 */
export function limitRequests(app: FastifyInstance, whoIs: (socket: TLSSocket) => string): void {
  const connections = new WeakMap<Socket, Connection>();
  const underWay = createCounts();
  const setOpen = (connection: Connection, open: number) => {
    underWay.add(connection.who, open - connection.open);
    connection.open = open;
  };
  app.server.on('secureConnection', (socket: TLSSocket) => {
    const connection: Connection = { who: whoIs(socket), open: 0, running: 0 };
    connections.set(socket, connection);
    socket.once('close', () => setOpen(connection, connection.running));
  });
  app.addHook('onRequest', async ({ raw: { socket } }) => {
    const connection = connections.get(socket);
    if (!connection || socket.destroyed) return;
    setOpen(connection, connection.open + 1);
    if (underWay.of(connection.who) > AT_ONCE) throw failure('TOO_MANY_REQUESTS', { limit: AT_ONCE });
  });
  app.addHook('onResponse', async ({ raw: { socket } }) => {
    const connection = connections.get(socket);
    if (connection && !socket.destroyed) setOpen(connection, connection.open - 1);
  });
  app.addHook('onRoute', (route) => {
    const { handler } = route;
    route.handler = async function (request, reply) {
      const { socket } = request.raw;
      const connection = connections.get(socket);
      if (connection) connection.running++;
      try {
        return await handler.call(this, request, reply);
      } finally {
        if (connection) {
          connection.running--;
          if (socket.destroyed) setOpen(connection, connection.running);
        }
      }
    };
  });
}
