import { createPublicKey } from 'node:crypto';
import { maxHeaderSize, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import fastify, { type FastifyInstance, type FastifyReply } from 'fastify';
import { fileList } from '../attestation/collateral.ts';
import type { Evidence } from '../attestation/hardware-evidence.ts';
import { reportData } from '../attestation/report-data.ts';
import { causes, errors, Failure, failure, reason } from '../errors.ts';
import { createTurns } from '../in-turn.ts';
import { enclaveQuote, isInEnclave } from '../platform/gramine.ts';
import { publicKeyDigest } from '../policy/key-hash.ts';
import { InvalidText } from '../policy/problem.ts';
import type { Identity } from '../protocol/certificate.ts';
import { ENCRYPTED_SESSION_LIMIT } from '../protocol/encrypted-session.ts';
import { connectLas } from '../protocol/las.ts';
import { version } from '../version.ts';
import type { Cas } from './cas.ts';
import { endorse } from './evidence.ts';
import { limitRequests } from './request-limit.ts';
import { addRoutes, Outer } from './routes.ts';

/** Largest body of a request, in bytes: that of an encrypted session. */
const BODY_LIMIT = ENCRYPTED_SESSION_LIMIT;
const CONNECTIONS = 1024;
const HANDSHAKE = 10_000;
const GRACE = 1000;
const REQUEST_TIMEOUT = 30_000;
const LAS_PATIENCE = 10_000;
const MOST_WAITING = 64;

/**
 * The REST interface for people and their tools. Who asks is told by the TLS client certificate, of which
 * only the key counts.
 * @param lasSocket the LAS that vouches for this CAS
 */
export function createApi(cas: Cas, identity: Identity, lasSocket: string): FastifyInstance {
  const app = fastify({
    https: {
      key: identity.key,
      cert: identity.certificate,
      minVersion: 'TLSv1.2',
      requestCert: true,
      rejectUnauthorized: false,
      handshakeTimeout: HANDSHAKE,
      // Looked for below, so that who sends none is told in the form that all errors have.
      requireHostHeader: false,
    },
    exposeHeadRoutes: false,
    bodyLimit: BODY_LIMIT,
    requestTimeout: REQUEST_TIMEOUT,
    connectionTimeout: REQUEST_TIMEOUT,
    forceCloseConnections: true,
    logger: false,
    // What fastify and Node answer by themselves, in the form that all errors have here.
    frameworkErrors: (error, _request, reply: FastifyReply) => {
      const { status, body } = errorAnswer(error);
      return reply.code(status).send(body);
    },
    clientErrorHandler: (error: Error, socket: Socket) => refuse(socket, malformed(error)),
  });
  app.server.maxConnections = CONNECTIONS;
  // What Node would answer without a body, or not at all.
  app.server.on('checkExpectation', (request, response) => app.routing(request, response));
  app.server.on('connect', (_request, socket: Socket) =>
    refuse(socket, failure('REQUEST_INVALID', { detail: 'a CAS is no proxy' })),
  );
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));

  app.setErrorHandler((error, request, reply) => {
    const { status, body } = errorAnswer(error);
    if (status === 500)
      cas.log.error({ route: request.routeOptions.url, error: causes(error).join(': ') }, 'request failed');
    return reply.code(status).send(body);
  });

  limitRequests(app, (socket) => certificateOf(socket) ?? String(socket.remoteAddress));
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
    if (allowed.length === 0) throw failure('PATH_UNKNOWN', { path });
    reply.header('allow', allowed.join(', '));
    throw failure('METHOD_NOT_ALLOWED', { path, allowed: allowed.join(' and ') });
  });
  addRoutes(app, cas, ({ raw }) => certificateOf(raw.socket as TLSSocket));

  // One after the other, since the process takes another name for each.
  const inTurn = createTurns();
  let waiting = 0;
  app.get<{ Querystring: { nonce?: string } }>('/v1/attest', async (request) => {
    const { nonce } = request.query;
    if (!nonce || !/^([0-9a-f]{2}){16,64}$/.test(nonce))
      throw failure('REQUEST_INVALID', { detail: 'nonce must be 32 to 128 hexadecimal digits' });
    const channel = Buffer.from(nonce, 'hex');
    const data = reportData({ role: 'cas', channel, casKey: cas.key, configId: '' });
    if (waiting >= MOST_WAITING) throw failure('CAS_BUSY');
    waiting++;
    try {
      const { evidence, hardware } = await inTurn(() => evidenceOf(lasSocket, data, channel)).finally(
        () => waiting--,
      );
      const collateral = hardware && fileList((await endorse(cas, hardware)).collateral);
      return { evidence, hardware, collateral, certificate: identity.certificate, version };
    } catch (error) {
      cas.log.error({ error: causes(error).join(': ') }, 'no Evidence about this CAS');
      throw failure('CAS_NOT_VOUCHED_FOR');
    }
  });

  const publicKey = createPublicKey(cas.encryptionKey).export({ type: 'spki', format: 'pem' });
  app.get('/v1/session-encryption-key', async () => ({ publicKey }));
  app.get('/v1/version', async () => ({ version }));
  return app;
}

/** Evidence about this process: from the enclave that it runs in, or from its LAS. */
async function evidenceOf(lasSocket: string, data: Buffer, nonce: Buffer): Promise<Evidence> {
  if (isInEnclave()) return { hardware: { type: 'sgx', quote: enclaveQuote(data).toString('base64') } };
  const las = await connectLas(lasSocket, undefined, Date.now() + LAS_PATIENCE);
  try {
    return await las.evidence(data, nonce.toString('base64'));
  } finally {
    las.close();
  }
}

/** Digest of the key that the client proved to hold, hexadecimal, where it showed a certificate. */
function certificateOf(socket: TLSSocket): string | undefined {
  const certificate = socket.getPeerX509Certificate();
  return certificate && publicKeyDigest(certificate.publicKey).toString('hex');
}

function errorAnswer(error: unknown): { status: number; body: object } {
  const inner = error instanceof Outer ? error.cause : error;
  if (inner instanceof Failure)
    return { status: inner.http, body: { msg: causes(error), code: inner.code, hint: inner.hint } };
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
  if (status === 413) return errorAnswer(failure('REQUEST_TOO_LARGE', { limit: BODY_LIMIT }));
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
  const { status, body } = errorAnswer(error);
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
