import { constants } from 'node:crypto';
import { type IncomingMessage, maxHeaderSize, STATUS_CODES } from 'node:http';
import { createServer } from 'node:https';
import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import type { Server, TLSSocket } from 'node:tls';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { causes, type ErrorCode, errors, Failure, failure, reason } from '../errors.ts';
import { publicKeyDigest } from '../policy/key-hash.ts';
import { InvalidText } from '../policy/problem.ts';
import type { Identity } from '../protocol/certificate.ts';
import { ENCRYPTED_SESSION_LIMIT } from '../protocol/encrypted-session.ts';
import type { Log } from './cas.ts';
import { acceptWithin } from './limits/accept.ts';
import { hold, roomFor } from './limits/held.ts';
import { requireRoom } from './limits/overload.ts';
import { beginRequest, limitRequests, onConnections } from './limits/requests.ts';
import { sourceOf } from './limits/source.ts';
import { metrics } from './observe/metrics.ts';
import { observeRequests, requestId } from './observe/server.ts';
import { Outer } from './routes.ts';

/** Largest body of a request, in bytes: that of an encrypted session. */
const BODY_LIMIT = ENCRYPTED_SESSION_LIMIT;
/** The type of bodies that have no limit, as they are read while they come: backups. */
export const STREAMED = 'application/x-ndjson';
/** Open at a time; and of one source, which may be a balancer that many come through. */
const CONNECTIONS = 4096;
const CONNECTIONS_OF_SOURCE = 1024;
/** Bytes of a request or an answer that are not counted: so much a connection takes anyway. */
const UNCOUNTED = 4096;
/** Bytes of an answer that is sent at once. */
const SHORT = 65_536;
/** Bytes of each piece of a longer one. */
const PIECE = 262_144;
const HANDSHAKE = 10_000;
const GRACE = 1000;
const REQUEST_TIMEOUT = 30_000;
/** Milliseconds between two looks for requests that do not come. */
const LOOK = 1000;

export const API_TLS = {
  minVersion: 'TLSv1.2',
  secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
} as const;

/**
 * An HTTPS server without calls: its limits, and the form that all of its errors have.
 * @param unknown what is said of a path that there is no call for
 */
export function createHttps(
  { key, certificate }: Identity,
  log: Log,
  unknown = (path: string) => failure('PATH_UNKNOWN', { path }),
): FastifyInstance {
  const { few, isIdle } = onConnections();
  const options = {
    key,
    cert: certificate,
    ...API_TLS,
    requestCert: true,
    rejectUnauthorized: false,
    handshakeTimeout: HANDSHAKE,
    headersTimeout: REQUEST_TIMEOUT,
    connectionsCheckingInterval: LOOK,
    // Looked for below, so that who sends none is told in the form that all errors have.
    requireHostHeader: false,
  };
  const app = fastify({
    https: options,
    serverFactory: (handler) => createServer(options, few(handler)),
    exposeHeadRoutes: false,
    bodyLimit: BODY_LIMIT,
    // Of a whole request, see below.
    requestTimeout: 0,
    // Later, so that who is slow is told.
    connectionTimeout: REQUEST_TIMEOUT + 5 * LOOK,
    forceCloseConnections: true,
    logger: false,
    genReqId: requestId,
    // What fastify and Node answer by themselves, in the form that all errors have here.
    frameworkErrors: (error, _request, reply: FastifyReply) => {
      const { status, body } = counted(error);
      return reply.code(status).send(body);
    },
    clientErrorHandler: (error: Error, socket: Socket) => refuse(socket, malformed(error)),
  });
  // What Node would answer without a body, or not at all.
  app.server.on('checkExpectation', few(app.routing));
  app.server.on(
    'checkContinue',
    few((request, response) => {
      // Who asks before sending (RFC 9110 §10.1.1) is told at once where it is too much.
      const { 'content-length': length = 0, 'content-type': type } = request.headers;
      if (Number(length) <= BODY_LIMIT || type === STREAMED) response.writeContinue();
      app.routing(request, response);
    }),
  );
  app.server.on('connect', (_request, socket: Socket) =>
    refuse(socket, failure('REQUEST_INVALID', { detail: 'a CAS is no proxy' })),
  );
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));

  app.setErrorHandler((error, request, reply) => {
    const { status, body, retryAfter } = counted(error, request.routeOptions.bodyLimit);
    if (retryAfter !== undefined) reply.header('retry-after', retryAfter);
    const { id: correlation, routeOptions } = request;
    if (status === 500)
      log.error({ correlation, route: routeOptions.url, error: causes(error).join(': ') }, 'request failed');
    return reply.code(status).send(body);
  });

  observeRequests(app, (socket) => ({ source: sourceOf(socket), identity: certificateOf(socket) ?? '' }));
  acceptWithin(app.server as unknown as Server, {
    port: 'api',
    connections: CONNECTIONS,
    connectionsOfSource: CONNECTIONS_OF_SOURCE,
    isIdle,
  });
  app.addHook('onRequest', async ({ raw }) => {
    await beginRequest(sourceOf(raw.socket));
    requireRoom();
    limitTime(raw);
  });
  limitRequests(app, (socket) => certificateOf(socket) ?? sourceOf(socket));
  app.addHook('onRequest', async (request, reply) => countHeld(request, reply, announcedSize(request)));
  app.addHook('onSend', async (request, reply, payload) => {
    if (typeof payload !== 'string') return payload;
    const size = Buffer.byteLength(payload);
    countHeld(request, reply, size);
    if (size <= SHORT) return payload;
    reply.header('content-length', size);
    return Readable.from(piecesOf(Buffer.from(payload)));
  });
  app.addHook('onRequest', async ({ raw: { httpVersion, headers } }) => {
    if (httpVersion === '1.1' && headers.host === undefined)
      throw failure('REQUEST_INVALID', { detail: 'there is no header Host' });
  });
  const calls: { url: string; method: string }[] = [];
  app.addHook('onRoute', ({ url, method }) => void calls.push({ url, method: String(method) }));
  // Before anything of the body is read.
  app.addHook('onRequest', async (request, reply) => {
    if (!request.is404) return;
    const [path = ''] = request.url.split('?');
    const isAt = ({ url }: { url: string }) =>
      url.endsWith('*') ? path.startsWith(url.slice(0, -1)) : path === url;
    const allowed = calls.filter(isAt).map(({ method }) => method);
    if (allowed.length === 0) throw unknown(path);
    reply.header('allow', allowed.join(', '));
    throw failure('METHOD_NOT_ALLOWED', { path, allowed: allowed.join(' and ') });
  });
  return app;
}

/** Counts bytes that are held until a request has its answer. @throws Failure CAS_BUSY */
function countHeld({ raw: { socket } }: FastifyRequest, { raw }: FastifyReply, size: number): void {
  if (size <= UNCOUNTED) return;
  const source = sourceOf(socket);
  if (size > roomFor(source)) throw failure('CAS_BUSY');
  raw.once('close', hold(source, size));
}

/** To encrypt an answer of megabytes at once would have others wait. */
async function* piecesOf(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let from = 0; from < bytes.length; from += PIECE) {
    yield bytes.subarray(from, from + PIECE);
    await setImmediate();
  }
}

/** Bytes of a body, before it comes: as many as there may be, where that is not said. */
function announcedSize({
  raw: { headers },
  routeOptions: { bodyLimit = BODY_LIMIT },
}: FastifyRequest): number {
  if (headers['content-type'] === STREAMED) return 0;
  const length =
    headers['transfer-encoding'] === undefined ? Number(headers['content-length'] ?? 0) : bodyLimit;
  // What is longer is not read.
  return length > bodyLimit ? 0 : length;
}

const timers = new WeakMap<IncomingMessage, NodeJS.Timeout>();

/** Refuses a request whose body does not come in time. */
function limitTime(request: IncomingMessage): void {
  const { 'content-length': length = '0', 'transfer-encoding': encoding } = request.headers;
  if (length === '0' && encoding === undefined) return;
  const late = () => refuse(request.socket, failure('REQUEST_SLOW', { seconds: REQUEST_TIMEOUT / 1000 }));
  const timer = setTimeout(late, REQUEST_TIMEOUT).unref();
  timers.set(request, timer);
  request.once('end', () => clearTimeout(timer));
  request.once('close', () => clearTimeout(timer));
}

/** For a request that is large, or takes long to be answered. */
export function letTakeTime(request: IncomingMessage): void {
  clearTimeout(timers.get(request));
  request.socket.setTimeout(0);
}

/** Digest of the key that the client proved to hold, hexadecimal, where it showed a certificate. */
export function certificateOf(socket: TLSSocket): string | undefined {
  // Several ask for each request, and it stays what it is: there is no renegotiation.
  if (digests.has(socket)) return digests.get(socket);
  const certificate = socket.getPeerX509Certificate();
  const digest = certificate && publicKeyDigest(certificate.publicKey).toString('hex');
  digests.set(socket, digest);
  return digest;
}

const digests = new WeakMap<TLSSocket, string | undefined>();

function counted(error: unknown, bodyLimit?: number): ErrorAnswer {
  const answer = errorAnswer(error, bodyLimit);
  metrics.refused({ port: 'api', code: answer.body.code });
  return answer;
}

interface ErrorAnswer {
  status: number;
  /** Seconds (RFC 9110 §10.2.3). */
  retryAfter?: number | undefined;
  body: { code: ErrorCode; msg: string[]; hint: string; problems?: unknown };
}

function errorAnswer(error: unknown, bodyLimit = BODY_LIMIT): ErrorAnswer {
  const inner = error instanceof Outer ? error.cause : error;
  if (inner instanceof Failure)
    return {
      status: inner.http,
      retryAfter: inner.retryAfter,
      body: { msg: causes(error), code: inner.code, hint: inner.hint },
    };
  if (inner instanceof InvalidText)
    return {
      status: 400,
      body: {
        msg: [errors.POLICY_INVALID.message, inner.message],
        code: 'POLICY_INVALID',
        hint: errors.POLICY_INVALID.hint,
        problems: inner.problems,
      },
    };
  const status = (error as { statusCode?: number }).statusCode ?? 500;
  if (status === 413) return errorAnswer(failure('REQUEST_TOO_LARGE', { limit: bodyLimit }));
  if (status < 500) return errorAnswer(failure('REQUEST_INVALID', { detail: reason(error) }));
  return errorAnswer(failure('INTERNAL', { detail: 'the log of the CAS says more' }));
}

/** What Node could not read as a request. */
function malformed(error: Error & { code?: string }): Failure {
  if (error.code === 'HPE_HEADER_OVERFLOW') return failure('HEADERS_TOO_LARGE', { limit: maxHeaderSize });
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT')
    return failure('REQUEST_SLOW', { seconds: REQUEST_TIMEOUT / 1000 });
  return failure('REQUEST_INVALID', { detail: `it is no HTTP request: ${reason(error)}` });
}

/** Answers what did not become a request, and closes the connection. */
function refuse(socket: Socket, error: Failure): void {
  if (!socket.writable) return void socket.destroy();
  const { status, body } = counted(error);
  const text = JSON.stringify(body);
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    'content-type: application/json; charset=utf-8',
    'connection: close',
  ];
  socket.end(`${head.join('\r\n')}\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
  // The other end may never take it, or never have come as far as TLS.
  setTimeout(() => socket.destroy(), GRACE).unref();
}
