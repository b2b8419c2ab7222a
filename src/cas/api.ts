import type { TLSSocket } from 'node:tls';
import fastify, { type FastifyInstance, type FastifyRequest } from 'fastify';
import { reportData } from '../attestation/report-data.ts';
import { causes, errors, Failure, failure, reason } from '../errors.ts';
import { InvalidText } from '../policy/problem.ts';
import type { Identity } from '../protocol/certificate.ts';
import { publicKeyDigest } from '../protocol/key-hash.ts';
import { connectLas } from '../protocol/las.ts';
import { version } from '../version.ts';
import type { Cas } from './cas.ts';
import { createSession, readSession } from './sessions.ts';
import { publicValue, publicValues } from './values.ts';

/** Largest session text, in bytes. */
const BODY_LIMIT = 2 * 1024 * 1024;
const CONNECTIONS = 1024;
const HANDSHAKE = 10_000;
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
  app.setNotFoundHandler((_request, reply) =>
    reply.code(404).send({ msg: ['there is nothing at this path'] }),
  );

  // Before anything of the body is read.
  const onRequest = async (request: FastifyRequest) => void clientOf(request);
  app.post('/session', { onRequest }, async (request, reply) => {
    const client = clientOf(request);
    const { hash, warnings } = await createSession(cas, textOf(request), client);
    return reply.code(201).send({ hash, warnings });
  });

  const read = async (request: FastifyRequest, name: string, hash?: string) => {
    try {
      return await readSession(cas, name, clientOf(request), hash);
    } catch (error) {
      throw outer(`Failed to read session '${name}'`, error);
    }
  };
  app.get<{ Params: { '*': string } }>('/session/*', { onRequest }, (request) =>
    read(request, request.params['*']),
  );
  app.get<{ Params: { '*': string }; Querystring: { hash?: string } }>(
    '/v1/sessions/*',
    { onRequest },
    async (request) => {
      const { hash } = request.query;
      if (hash !== undefined && !/^[0-9a-f]{64}$/.test(hash))
        throw failure('REQUEST_INVALID', { detail: 'hash has 64 hexadecimal digits' });
      return read(request, request.params['*'], hash);
    },
  );

  // For everybody: no certificate is asked for.
  app.get<{ Params: { '*': string } }>('/v1/values/*', async (request) => {
    const match = /^session=([^,]+)(?:,secret=([^,]+))?$/.exec(request.params['*']);
    if (!match)
      throw failure('REQUEST_INVALID', { detail: 'expected session=NAME or session=NAME,secret=NAME' });
    const [, session = '', secret] = match;
    try {
      if (secret !== undefined) return await publicValue(cas, session, secret);
      return { values: await publicValues(cas, session) };
    } catch (error) {
      const what = secret === undefined ? 'values' : `value '${secret}'`;
      throw outer(`Failed to read ${what} of '/session=${session}' requested by a public client`, error);
    }
  });

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

/** Digest of the key that the client proved to hold. */
function clientOf(request: FastifyRequest): string {
  const certificate = (request.raw.socket as TLSSocket).getPeerX509Certificate();
  if (!certificate) throw failure('IDENTITY_REQUIRED');
  return publicKeyDigest(certificate.publicKey).toString('hex');
}

function textOf(request: FastifyRequest): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(request.body as Buffer);
  } catch {
    throw failure('REQUEST_INVALID', { detail: 'the body is not a text in UTF-8' });
  }
}

/** Says in what an error happened, and keeps its code and status. */
class Outer extends Error {}
function outer(message: string, cause: unknown): Error {
  return new Outer(message, { cause });
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
  if (status === 413)
    return { status, body: { msg: [`a session has at most ${BODY_LIMIT} bytes`], code: 'REQUEST_INVALID' } };
  if (status < 500) return { status, body: { msg: [reason(error)], code: 'REQUEST_INVALID' } };
  return { status: 500, body: { msg: ['an error of the CAS itself; its log says more'], code: 'INTERNAL' } };
}
