import type { FastifyInstance, FastifyRequest } from 'fastify';
import * as v from 'valibot';
import { Failure, failure } from '../errors.ts';
import { ROOT } from '../policy/names.ts';
import type { Client } from './access.ts';
import type { Cas } from './cas.ts';
import { explainAdmission, readSharedSecret } from './explain.ts';
import { exportToOtherCas } from './export.ts';
import { listSessions, readHash, readHistory, readSession } from './sessions.ts';
import { uploadSession } from './upload.ts';
import { publicValue, publicValues } from './values.ts';

/** Someone who asks: the digest of the client certificate's key, hexadecimal, where there is one. */
export type ClientOf = (request: FastifyRequest) => string | undefined;

/**
 * The calls of the REST interface around sessions; they carry, and decide nothing. docs/openapi.yaml describes them.
 * @param clientOf tells who asks
 */
export function addRoutes(app: FastifyInstance, cas: Cas, clientOf: ClientOf): void {
  const known = (request: FastifyRequest): string => {
    const certificate = clientOf(request);
    if (certificate === undefined) throw failure('IDENTITY_REQUIRED');
    return certificate;
  };
  const client = (request: FastifyRequest): Client => ({ certificate: known(request), signers: [] });
  // Before anything of the body is read.
  const onRequest = async (request: FastifyRequest) => void known(request);

  // A signed session speaks for itself, so a certificate is asked for only where there is no signature.
  app.post('/session', async (request, reply) => {
    const { hash, warnings } = await uploadSession(cas, textOf(request), clientOf(request));
    return reply.code(201).send({ hash, warnings });
  });
  app.put('/v1/encrypted_sessions', async (request, reply) => {
    const { hash, warnings } = await uploadSession(cas, textOf(request), clientOf(request), 'encrypted');
    return reply.code(201).send({ hash, warnings });
  });

  const read = (request: FastifyRequest, name: string, hash?: string) =>
    within(`Failed to read session '${name}'`, () => readSession(cas, name, client(request), hash));
  app.get<Named>('/session/*', { onRequest }, (request) => read(request, request.params['*']));
  app.get<Named>('/v1/sessions/*', { onRequest }, (request) => {
    const { hash } = query(request, { hash: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))) });
    return read(request, request.params['*'], hash);
  });
  app.get('/v1/sessions', { onRequest }, (request) => {
    const { namespace, after } = query(request, {
      namespace: v.optional(v.string(), ROOT),
      after: v.optional(v.string(), ''),
    });
    return within(`Failed to list the sessions of '${namespace}'`, () =>
      listSessions(cas, namespace, client(request), after),
    );
  });
  app.get<Named>('/v1/hashes/*', (request) => {
    const name = request.params['*'];
    const certificate = clientOf(request);
    return within(`Failed to read the hash of session '${name}'`, async () => ({
      hash: await readHash(cas, name, certificate === undefined ? undefined : client(request)),
    }));
  });
  app.get<Named>('/v1/history/*', { onRequest }, (request) => {
    const number = v.pipe(v.string(), v.regex(/^[1-9][0-9]{0,9}$/), v.transform(Number));
    const { before = Number.MAX_SAFE_INTEGER } = query(request, { before: v.optional(number) });
    const name = request.params['*'];
    return within(`Failed to read the history of session '${name}'`, () =>
      readHistory(cas, name, client(request), before),
    );
  });
  app.get<Named>('/v1/admission/*', { onRequest }, (request) =>
    within(`Failed to explain '${request.params['*']}'`, () =>
      explainAdmission(cas, request.params['*'], client(request)),
    ),
  );
  app.get<Named>('/v1/otp/*', { onRequest }, (request) =>
    within(`Failed to read the one-time password of '${request.params['*']}'`, () =>
      readSharedSecret(cas, request.params['*'], client(request)),
    ),
  );
  app.post('/v1/exports', { onRequest }, (request) => exportToOtherCas(cas, textOf(request), known(request)));

  // For everybody: no certificate is asked for.
  app.get<Named>('/v1/values/*', (request) => {
    const match = /^session=([^,]+)(?:,secret=([^,]+))?$/.exec(request.params['*']);
    if (!match) throw invalid('expected session=NAME or session=NAME,secret=NAME');
    const [, session = '', secret] = match;
    const what = secret === undefined ? 'values' : `value '${secret}'`;
    return within(`Failed to read ${what} of '/session=${session}' requested by a public client`, async () =>
      secret === undefined ? { values: await publicValues(cas, session) } : publicValue(cas, session, secret),
    );
  });
}

/** What comes after the path of a call: the name of a session, or of a service in one. */
interface Named {
  Params: { '*': string };
}

const invalid = (detail: string) => failure('REQUEST_INVALID', { detail });

/** What stands behind the `?` of a call; anything else there is passed over, as HTTP clients add things. */
function query<Entries extends v.ObjectEntries>(
  request: FastifyRequest,
  entries: Entries,
): v.InferOutput<v.ObjectSchema<Entries, undefined>> {
  const parsed = v.safeParse(v.object(entries), request.query);
  if (parsed.success) return parsed.output;
  throw invalid(`the value of ${v.getDotPath(parsed.issues[0])} is malformed, or there twice`);
}

function textOf(request: FastifyRequest): string {
  if (!Buffer.isBuffer(request.body)) throw invalid('the body is empty');
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(request.body);
  } catch {
    throw invalid('the body is not a text in UTF-8');
  }
}

/** Says in what an error happened, and keeps its code and status. */
export class Outer extends Error {}

async function within<Result>(what: string, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof Failure ? new Outer(what, { cause: error }) : error;
  }
}
