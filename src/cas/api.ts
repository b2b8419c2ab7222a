import { createPublicKey } from 'node:crypto';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { reportData } from '../attestation/report-data.ts';
import { causes, errors, Failure, failure, reason } from '../errors.ts';
import { publicKeyDigest } from '../policy/key-hash.ts';
import { InvalidText } from '../policy/problem.ts';
import type { Identity } from '../protocol/certificate.ts';
import { ENCRYPTED_SESSION_LIMIT } from '../protocol/encrypted-session.ts';
import { connectLas } from '../protocol/las.ts';
import { version } from '../version.ts';
import type { Cas } from './cas.ts';
import { addRoutes, Outer } from './routes.ts';

/** Largest body of a request, in bytes: that of an encrypted session. */
const BODY_LIMIT = ENCRYPTED_SESSION_LIMIT;
const CONNECTIONS = 1024;
/** Requests at a time of one client, so that others find room. */
const AT_ONCE = 128;
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
    },
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
    clientErrorHandler: refuseMalformed,
  });
  app.server.maxConnections = CONNECTIONS;
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));

  app.setErrorHandler((error, request, reply) => {
    const { status, body } = errorAnswer(error);
    if (status >= 500)
      cas.log.error({ route: request.routeOptions.url, error: reason(error) }, 'request failed');
    return reply.code(status).send(body);
  });
  app.setNotFoundHandler((request, reply) => {
    const { status, body } = errorAnswer(failure('PATH_UNKNOWN', { path: request.url.split('?')[0] ?? '' }));
    return reply.code(status).send(body);
  });

  const busy = new Map<string, number>();
  const count = (request: FastifyRequest, by: number) => {
    const who = clientOf(request) ?? request.ip;
    const now = (busy.get(who) ?? 0) + by;
    if (now > 0) busy.set(who, now);
    else busy.delete(who);
    return now;
  };
  app.addHook('onRequest', async (request) => {
    if (count(request, 1) > AT_ONCE) throw failure('TOO_MANY_REQUESTS', { limit: AT_ONCE });
  });
  app.addHook('onResponse', async (request) => void count(request, -1));

  addRoutes(app, cas, clientOf);

  // One after the other, since the process takes another name for each.
  let ownEvidence: Promise<unknown> = Promise.resolve();
  let waiting = 0;
  app.get<{ Querystring: { nonce?: string } }>('/v1/attest', async (request) => {
    const { nonce } = request.query;
    if (!nonce || !/^([0-9a-f]{2}){16,64}$/.test(nonce))
      throw failure('REQUEST_INVALID', { detail: 'nonce must be 32 to 128 hexadecimal digits' });
    const channel = Buffer.from(nonce, 'hex');
    const data = reportData({ role: 'cas', channel, casKey: cas.key, configId: '' });
    if (waiting >= MOST_WAITING) throw failure('CAS_BUSY');
    waiting++;
    const evidence = ownEvidence.then(() => evidenceOf(lasSocket, data)).finally(() => waiting--);
    ownEvidence = evidence.catch(() => {});
    return { evidence: await evidence, version };
  });

  const publicKey = createPublicKey(cas.encryptionKey).export({ type: 'spki', format: 'pem' });
  app.get('/v1/session-encryption-key', async () => ({ publicKey }));
  app.get('/v1/version', async () => ({ version }));
  return app;
}

async function evidenceOf(lasSocket: string, data: Buffer): Promise<string> {
  const las = await connectLas(lasSocket, undefined, Date.now() + LAS_PATIENCE);
  try {
    return await las.evidence(data);
  } finally {
    las.close();
  }
}

/** Digest of the key that the client proved to hold, hexadecimal, where it showed a certificate. */
function clientOf(request: FastifyRequest): string | undefined {
  const certificate = (request.raw.socket as TLSSocket).getPeerX509Certificate();
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
  if (status < 500) return { ...errorAnswer(failure('REQUEST_INVALID', { detail: reason(error) })), status };
  return { status: 500, body: { msg: ['an error of the CAS itself; its log says more'], code: 'INTERNAL' } };
}

/** Answers what is no HTTP. */
function refuseMalformed(error: Error, socket: Socket): void {
  if (!socket.writable) return void socket.destroy();
  const { body } = errorAnswer(
    failure('REQUEST_INVALID', { detail: `it is no HTTP request: ${reason(error)}` }),
  );
  const text = JSON.stringify(body);
  const head = ['HTTP/1.1 400 Bad Request', 'content-type: application/json', 'connection: close'];
  socket.end(`${head.join('\r\n')}\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
  // The other end may never take it, or never have come as far as TLS.
  setTimeout(() => socket.destroy(), GRACE).unref();
}
