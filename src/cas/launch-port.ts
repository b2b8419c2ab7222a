import { constants } from 'node:crypto';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import * as v from 'valibot';
import { Failure, failure, reason } from '../errors.ts';
import type { ServiceName } from '../policy/names.ts';
import type { Identity } from '../protocol/certificate.ts';
import { FrameError, type Frames, frames } from '../protocol/frame.ts';
import {
  arrived,
  type challenge,
  type changed,
  channelBinding,
  LAUNCH_PROTOCOL,
  LAUNCH_PROTOCOLS,
  LAUNCH_REQUEST_LIMIT,
  launchRequest,
  type ReceivedLaunchRequest,
} from '../protocol/launch.ts';
import { toRefusal } from '../protocol/refusal.ts';
import type { Cas } from './cas.ts';
import { Challenge } from './evidence.ts';
import { acceptWithin } from './limits/accept.ts';
import { hold, roomFor } from './limits/held.ts';
import { jsonInPieces } from './limits/json.ts';
import { requireRoom } from './limits/overload.ts';
import { createPace } from './limits/pace.ts';
import { beginRequest } from './limits/requests.ts';
import { sourceOf } from './limits/source.ts';
import { type Asker, correlated, newCorrelationId } from './observe/correlation.ts';
import { metrics } from './observe/metrics.ts';
import { release } from './release.ts';
import { completeLaunch, type LaunchAttempt, type LaunchConnection } from './second-factors.ts';
import { PLACES, type Watch } from './watch.ts';

const HANDSHAKE = 10_000;
const REQUEST = 15_000;
const ANSWER = 10_000;

/** Milliseconds that requests in hand have when the CAS ends. */
const GRACE = 20_000;
/** As many connections wait for changes at most, and as many others come and go. */
const CONNECTIONS = 2 * PLACES;
/** Of one source, which may be a balancer that many come through. */
const CONNECTIONS_OF_SOURCE = PLACES;
/** Milliseconds of silence after which the system looks whether the peer is still there. */
const KEEP_ALIVE = 30_000;

export const LAUNCH_TLS = {
  minVersion: 'TLSv1.3',
  // No resumption: every connection has a full handshake, so its exporter value is fresh.
  secureOptions: constants.SSL_OP_NO_TICKET,
} as const;

export interface LaunchPort {
  server: Server;
  /** How many connections wait for changes. */
  held(): number;
  /** Takes no more, and ends when the requests in hand are answered, or some time has passed. */
  close(): Promise<void>;
}

interface Port {
  cas: Cas;
  server: Server;
  /** Connections that have been answered, and wait for changes. */
  waiting: Set<TLSSocket>;
  /** Connections whose request is being answered. */
  busy: Set<TLSSocket>;
  asker: Asker;
}

/** The port that launchers come to: one request and one answer at a time on each TLS 1.3 connection. */
export function createLaunchPort(cas: Cas, identity: Identity): LaunchPort {
  const waiting = new Set<TLSSocket>();
  const busy = new Set<TLSSocket>();
  const server = createServer({
    key: identity.key,
    cert: identity.certificate,
    ...LAUNCH_TLS,
    ALPNProtocols: LAUNCH_PROTOCOLS,
    handshakeTimeout: HANDSHAKE,
    // TLS writes its records one by one: each would wait until the one before it has arrived.
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: KEEP_ALIVE,
  });
  const open = acceptWithin(server, {
    port: 'enclave',
    connections: CONNECTIONS,
    connectionsOfSource: CONNECTIONS_OF_SOURCE,
    isIdle: (tls) => !busy.has(tls) && !waiting.has(tls),
  });
  server.on('secureConnection', (socket) => {
    const gone = new AbortController();
    socket.once('close', () => gone.abort());
    const asker = { source: sourceOf(socket), identity: '', gone: gone.signal };
    correlated(newCorrelationId(), asker, () => void serve({ cas, server, waiting, busy, asker }, socket));
  });
  server.on('tlsClientError', (error, socket) => {
    cas.log.info({ source: sourceOf(socket), error: reason(error) }, 'no TLS connection');
    // Node tells of a handshake that takes too long, and leaves it to us to end it.
    socket.destroy();
  });
  return {
    server,
    held: () => waiting.size,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of waiting) socket.end();
        for (const [socket, tls] of open) if (!tls || !(busy.has(tls) || waiting.has(tls))) socket.destroy();
        setTimeout(() => {
          for (const socket of open.keys()) socket.destroy();
        }, GRACE).unref();
      }),
  };
}

/** Answers one request after the other, where the client waits for changes; else one. */
async function serve({ cas, server, waiting, busy, asker }: Port, socket: TLSSocket): Promise<void> {
  const { source } = asker;
  const channel = frames(socket, LAUNCH_REQUEST_LIMIT);
  const confirms = socket.alpnProtocol === LAUNCH_PROTOCOL;
  const peer = { source, shown: new Set<string>(), confirms, spent: [] };
  const refuse = (error: unknown) => {
    if (!(error instanceof Failure)) cas.log.error({ source, error: reason(error) }, 'release failed');
    metrics.refused({ port: 'enclave', code: error instanceof Failure ? error.code : 'INTERNAL' });
    channel.write(toRefusal(error));
  };
  let first: ServiceName | undefined;
  let watch: Watch | undefined;
  try {
    requireRoom();
    if (socket.isSessionReused()) throw failure('REQUEST_INVALID', { detail: 'a resumed TLS session' });
    for (let round = 0; ; round++) {
      const message = await channel.read(Date.now() + REQUEST);
      await beginRequest(source);
      const request = readRequest(message);
      const { session, service } = request;
      busy.add(socket);
      first ??= { session, service };
      asker.identity = session;
      if (session !== first.session || service !== first.service) throw otherService();
      if (request.watch && round === 0) watch = cas.watches.open(session, source);
      watch?.begin();
      const connection: LaunchConnection = { channel: channelBinding(socket, round), ...peer };
      let isRefused = false;
      try {
        const attempt = { connection, interest: watch };
        const nonce = await answer(cas, socket, channel, { request, ...attempt });
        if (nonce) {
          channel.write({ challenge: nonce.toString('base64') } satisfies v.InferInput<typeof challenge>);
          const again = readRequest(await channel.read(Date.now() + REQUEST));
          if (again.session !== session || again.service !== service) throw otherService();
          watch?.begin();
          await answer(cas, socket, channel, { request: again, ...attempt });
        }
      } catch (error) {
        // Whoever was admitted once learns when the policy is corrected.
        if (round === 0) throw error;
        refuse(error);
        isRefused = true;
      }
      if (confirms && !isRefused) {
        await confirmation(channel);
        await completeLaunch(cas, connection);
      }
      if (!request.watch || !watch?.isComplete() || !server.listening) break;
      busy.delete(socket);
      waiting.add(socket);
      await nextRequest(channel, watch, isRefused);
      waiting.delete(socket);
    }
  } catch (error) {
    if (error instanceof FrameError || socket.destroyed) socket.destroy();
    else refuse(error);
  } finally {
    busy.delete(socket);
    waiting.delete(socket);
    watch?.end();
    socket.end();
    endWhenSlow(socket);
  }
}

/** Waits until the launcher says that it has its answer. @throws FrameError where it says something else, or nothing */
async function confirmation(channel: Frames): Promise<void> {
  if (v.is(arrived, await channel.read(Date.now() + ANSWER))) return;
  throw new FrameError('something else than that the answer has arrived');
}

const otherService = () =>
  failure('REQUEST_INVALID', { detail: 'on one connection all requests are for one service' });

function readRequest(message: unknown): ReceivedLaunchRequest {
  const request = v.safeParse(launchRequest, message);
  if (request.success) return request.output;
  throw failure('REQUEST_INVALID', { detail: `unexpected value at ${v.getDotPath(request.issues[0])}` });
}

/**
 * Releases a configuration; ends when the client has taken it, or the connection is closed since it did not.
 * @returns a nonce where the client is to ask again, with Evidence about its machine over that
 */
async function answer(
  cas: Cas,
  socket: TLSSocket,
  channel: Frames,
  attempt: LaunchAttempt,
): Promise<Buffer | undefined> {
  metrics.inFlight.add({ port: 'enclave' }, 1);
  try {
    const granted = await release(cas, attempt);
    const pieces = await jsonInPieces(createPace(), granted);
    const size = pieces.reduce((sum, { length }) => sum + length, 0);
    const { source } = attempt.connection;
    if (size > roomFor(source)) throw failure('CAS_BUSY');
    const arrived = hold(source, size);
    const isTaken = endWhenSlow(socket);
    await channel.writePieces(pieces);
    isTaken();
    arrived();
    return undefined;
  } catch (error) {
    if (error instanceof Challenge) return error.nonce;
    const { session, service } = attempt.request;
    if (error instanceof Failure)
      cas.log.warn(
        { session, service, source: attempt.connection.source, code: error.code },
        'release refused',
      );
    throw error;
  } finally {
    metrics.inFlight.add({ port: 'enclave' }, -1);
  }
}

/** Closes a connection whose client does not take what it was sent. @returns what to call once it has */
function endWhenSlow(socket: TLSSocket): () => void {
  const slow = setTimeout(() => socket.destroy(), ANSWER).unref();
  const stop = () => clearTimeout(slow);
  socket.once('close', stop);
  return () => {
    socket.off('close', stop);
    stop();
  };
}

/**
 * Tells the client when it is time for another request, and waits for that as long as the connection lasts. Only who
 * was refused may ask before he is told.
 */
async function nextRequest(channel: Frames, watch: Watch, isRefused: boolean): Promise<void> {
  let mayAsk = isRefused;
  void watch.changed().then(() => {
    mayAsk = true;
    channel.write({ changed: true } satisfies v.InferInput<typeof changed>);
  });
  await channel.arrival();
  if (!mayAsk) throw new FrameError('a request that nobody has waited for');
}
