import type { FastifyInstance, FastifyRequest } from 'fastify';
import * as v from 'valibot';
import { Failure, failure } from '../errors.ts';
import {
  formatConfigId,
  namePattern,
  parseServiceName,
  ROOT,
  type ServiceName,
  sessionNamePattern,
} from '../policy/names.ts';

import type { Client } from './access.ts';
import { invalid, parseJson, readText } from './body.ts';
import type { Cas } from './cas.ts';
import { explainAdmission, readSharedSecret } from './explain.ts';
import { exportToOtherCas } from './export.ts';
import { planLaunch } from './plan.ts';
import { listSessions, readHash, readHistory, readSession } from './sessions.ts';
import { inThread } from './threads.ts';
import { challengeTpm, enrolmentAnswer, enrolmentRequest, enrolTpm } from './tpm.ts';
import { uploadSession } from './upload.ts';
import { publicValue, publicValues } from './values.ts';

/** For requests that anybody makes, and that have a few fields. */
export const SMALL = { bodyLimit: 256 * 1024 };

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
    const uploaded = await uploadSession(cas, textOf(request), clientOf(request));
    reply.code(201);
    return uploaded;
  });
  app.put('/v1/encrypted_sessions', async (request, reply) => {
    const uploaded = await uploadSession(cas, textOf(request), clientOf(request), 'encrypted');
    reply.code(201);
    return uploaded;
  });

  const read = (request: FastifyRequest, name: string, hash?: string) =>
    within(`Failed to read session '${name}'`, () => readSession(cas, name, client(request), hash));
  app.get<Named>('/session/*', { onRequest }, async (request) => read(request, sessionIn(request)));
  app.get<Named>('/v1/sessions/*', { onRequest }, async (request) => {
    const { hash } = query(request, { hash: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))) });
    return read(request, sessionIn(request), hash);
  });
  app.get('/v1/sessions', { onRequest }, async (request) => {
    const { namespace, after } = query(request, {
      namespace: v.optional(v.pipe(v.string(), v.regex(sessionNamePattern)), ROOT),
      after: v.optional(v.string(), ''),
    });
    return within(`Failed to list the sessions of '${namespace}'`, () =>
      listSessions(cas, namespace, client(request), after),
    );
  });
  app.get<Named>('/v1/hashes/*', async (request) => {
    const name = sessionIn(request);
    const certificate = clientOf(request);
    return within(`Failed to read the hash of session '${name}'`, async () => ({
      hash: await readHash(cas, name, certificate === undefined ? undefined : client(request)),
    }));
  });
  app.get<Named>('/v1/history/*', { onRequest }, async (request) => {
    const number = v.pipe(v.string(), v.regex(/^[1-9][0-9]{0,9}$/), v.transform(Number));
    const { before = Number.MAX_SAFE_INTEGER } = query(request, { before: v.optional(number) });
    const name = sessionIn(request);
    return within(`Failed to read the history of session '${name}'`, () =>
      readHistory(cas, name, client(request), before),
    );
  });
  app.get<Named>('/v1/admission/*', { onRequest }, async (request) => {
    const service = serviceIn(request);
    return within(`Failed to explain '${formatConfigId(service)}'`, () =>
      explainAdmission(cas, service, client(request)),
    );
  });
  app.get<Named>('/v1/launch-plan/*', { onRequest }, async (request) => {
    const service = serviceIn(request);
    return within(`Failed to plan a launch of '${formatConfigId(service)}'`, () =>
      planLaunch(cas, service, client(request)),
    );
  });
  app.get<Named>('/v1/otp/*', { onRequest }, async (request) => {
    const service = serviceIn(request);
    return within(`Failed to read the one-time password of '${formatConfigId(service)}'`, () =>
      readSharedSecret(cas, service, client(request)),
    );
  });
  app.post('/v1/exports', { onRequest, ...SMALL }, async (request) =>
    exportToOtherCas(cas, textOf(request), known(request)),
  );

  app.get('/v1/collateral', { onRequest }, async () => ({ documents: cas.collateral.list() }));
  // Whose it is does not matter: it is kept only where its maker has signed it.
  app.post('/v1/collateral', { onRequest }, async (request) => {
    const files = await inThread('short', 'readCollateral', textOf(request));
    const documents = await cas.collateral.add(
      files.map(({ name, bytes }) => ({ name, bytes: Buffer.from(bytes) })),
    );
    const kept = documents.filter(({ outcome }) => outcome === 'kept').map(({ key }) => key);
    if (kept.length > 0)
      await cas.audit.record({ operation: 'collateral_added', keys: kept, certificate: known(request) });
    return { documents };
  });
  // A TPM shows by itself that it is the one.
  app.post('/v1/tpm/challenges', SMALL, async (request) =>
    challengeTpm(cas, body(request, enrolmentRequest)),
  );
  app.post('/v1/tpm/enrolments', SMALL, async (request) => enrolTpm(cas, body(request, enrolmentAnswer)));

  // For everybody: no certificate is asked for.
  app.get<Named>('/v1/values/*', async (request, reply) => {
    const [, session = '', secret] = /^session=([^,]+)(?:,secret=([^,]+))?$/.exec(request.params['*']) ?? [];
    if (!sessionNamePattern.test(session) || (secret !== undefined && !namePattern.test(secret)))
      throw invalid('expected session=NAME or session=NAME,secret=NAME');
    const what = secret === undefined ? 'values' : `value '${secret}'`;
    return within(
      `Failed to read ${what} of '/session=${session}' requested by a public client`,
      async () => {
        if (secret !== undefined) return publicValue(cas, session, secret);
        const values = await publicValues(cas, session);
        return reply.type('application/json; charset=utf-8').send(`{"values":${values}}`);
      },
    );
  });
}

/** What comes after the path of a call: the name of a session, or of a service in one. */
interface Named {
  Params: { '*': string };
}

/** What stands behind the `?` of a call; anything else there is passed over, as HTTP clients add things. */
export function query<Entries extends v.ObjectEntries>(
  request: FastifyRequest,
  entries: Entries,
): v.InferOutput<v.ObjectSchema<Entries, undefined>> {
  const parsed = v.safeParse(v.object(entries), request.query);
  if (parsed.success) return parsed.output;
  throw invalid(`the value of ${v.getDotPath(parsed.issues[0])} is malformed, or there twice`);
}

function sessionIn({ params: { '*': name } }: FastifyRequest<Named>): string {
  if (!sessionNamePattern.test(name)) throw invalid('expected the name of a session at the end of the path');
  return name;
}

function serviceIn({ params: { '*': path } }: FastifyRequest<Named>): ServiceName {
  const name = parseServiceName(path);
  if (!name) throw invalid('expected SESSION/SERVICE at the end of the path');
  return name;
}

function textOf(request: FastifyRequest): string {
  if (!Buffer.isBuffer(request.body)) throw invalid('the body is empty');
  return readText(request.body);
}

/** A body in JSON. */
export function body<Schema extends v.GenericSchema>(
  request: FastifyRequest,
  schema: Schema,
): v.InferOutput<Schema> {
  return parseJson(textOf(request), schema);
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
