import { constants } from 'node:crypto';
import type { Socket } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import * as v from 'valibot';
import { Failure, failure, reason } from '../errors.ts';
import type { Identity } from '../protocol/certificate.ts';
import { FrameError, frames } from '../protocol/frame.ts';
import { channelBinding, LAUNCH_PROTOCOL, LAUNCH_REQUEST_LIMIT, launchRequest } from '../protocol/launch.ts';
import { toRefusal } from '../protocol/refusal.ts';
import type { Cas } from './cas.ts';
import { release } from './release.ts';

const HANDSHAKE = 10_000;
const REQUEST = 15_000;
const ANSWER = 10_000;
/** Bytes of answers that clients have not taken yet, in all. */
const ON_THE_WAY = 256 * 1024 * 1024;
let onTheWay = 0;

const GRACE = 1000;
const CONNECTIONS = 4096;

export interface LaunchPort {
  server: Server;
  /** Ends when the requests in hand are answered, or a second has passed. */
  close(): Promise<void>;
}

/** The port that launchers come to: one request and one answer on each TLS 1.3 connection. */
export function createLaunchPort(cas: Cas, identity: Identity): LaunchPort {
  const open = new Set<Socket>();
  const server = createServer({
    key: identity.key,
    cert: identity.certificate,
    minVersion: 'TLSv1.3',
    ALPNProtocols: [LAUNCH_PROTOCOL],
    handshakeTimeout: HANDSHAKE,
    // No resumption: every connection has a full handshake, so its exporter value is fresh.
    secureOptions: constants.SSL_OP_NO_TICKET,
  });
  server.maxConnections = CONNECTIONS;
  server.on('connection', (socket: Socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
  });
  server.on('secureConnection', (socket) => void serve(cas, socket));
  server.on('tlsClientError', (error, socket) => {
    cas.log.info({ source: sourceOf(socket), error: reason(error) }, 'no TLS connection');
    // Node tells of a handshake that takes too long, and leaves it to us to end it.
    socket.destroy();
  });
  return {
    server,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        setTimeout(() => {
          for (const socket of open) socket.destroy();
        }, GRACE).unref();
      }),
  };
}

async function serve(cas: Cas, socket: TLSSocket): Promise<void> {
  const source = sourceOf(socket);
  const channel = frames(socket, LAUNCH_REQUEST_LIMIT);
  try {
    if (socket.isSessionReused()) throw failure('REQUEST_INVALID', { detail: 'a resumed TLS session' });
    const request = v.safeParse(launchRequest, await channel.read(Date.now() + REQUEST));
    if (!request.success)
      throw failure('REQUEST_INVALID', { detail: `unexpected value at ${v.getDotPath(request.issues[0])}` });
    try {
      const connection = { channel: channelBinding(socket), source };
      const granted = await release(cas, { request: request.output, connection });
      const size = channel.write(granted, ON_THE_WAY - onTheWay);
      if (size === undefined) throw failure('CAS_BUSY');
      onTheWay += size;
      socket.once('close', () => {
        onTheWay -= size;
      });
    } catch (error) {
      const { session, service } = request.output;
      if (error instanceof Failure)
        cas.log.warn({ session, service, source, code: error.code }, 'release refused');
      throw error;
    }
  } catch (error) {
    if (error instanceof FrameError) return void socket.destroy();
    if (!(error instanceof Failure)) cas.log.error({ source, error: reason(error) }, 'release failed');
    channel.write(toRefusal(error));
  } finally {
    socket.end();
    const slow = setTimeout(() => socket.destroy(), ANSWER).unref();
    socket.once('close', () => clearTimeout(slow));
  }
}

/** The peer's IPv4 address, or the /64 its IPv6 address is from, since one host commands all of that. */
function sourceOf(socket: { remoteAddress?: string | undefined }): string {
  const address = socket.remoteAddress?.replace(/^::ffff:(?=\d+\.)/, '') ?? 'unknown';
  if (!address.includes(':')) return address;
  const [head = '', tail] = address.replace(/%.*/, '').split('::');
  const groups = head.split(':').filter(Boolean);
  const rest = tail?.split(':').filter(Boolean) ?? [];
  const all = [...groups, ...Array<string>(Math.max(0, 8 - groups.length - rest.length)).fill('0'), ...rest];
  return `${all.slice(0, 4).join(':')}::/64`;
}
