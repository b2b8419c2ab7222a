import type { Readable } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import * as v from 'valibot';
import { failure } from '../../errors.ts';
import type { Cas } from '../cas.ts';
import { letTakeTime, STREAMED } from '../http.ts';
import { sourceOf } from '../limits/source.ts';
import { body, type ClientOf, query, SMALL } from '../routes.ts';
import { removeTpm } from '../tpm.ts';
import { type Backed, makeBackup, restoreBackup } from './backup.ts';
import { ownerConfiguration } from './configuration.ts';
import { authorizeOwner, presentOwner, provision, updateOwnerConfiguration } from './owner.ts';
import {
  listRegistrations,
  ROOT_KEY_EXPORTER,
  register,
  registrationRequest,
  releaseRootKey,
  rootKeyRequest,
  startUpgrade,
  unregister,
} from './registrations.ts';

/** What the owner's commands work on, beside what all parts share. */
export interface Control {
  database: Backed['database'];
  rootKey: Buffer;
  /** Makes a new master key. */
  rotate(): Promise<{ present: number; rewrapped: number }>;
  /** Forgets all keys, in all processes. */
  seal(): void;
}

const number = (least: number, most: number) =>
  v.pipe(v.string(), v.regex(/^\d{1,15}$/), v.transform(Number), v.minValue(least), v.maxValue(most));
const MOST_LINES = 1000;

/** The calls around the CAS itself: whose it is, what it has decided, and how it is kept safe. */
export function addOwnerRoutes(app: FastifyInstance, cas: Cas, control: Control, clientOf: ClientOf): void {
  const known = (request: FastifyRequest): string => {
    const certificate = clientOf(request);
    if (certificate === undefined) throw failure('IDENTITY_REQUIRED');
    return certificate;
  };
  // Before anything of the body is read.
  const identified = { onRequest: async (request: FastifyRequest) => void known(request) };
  const owned = {
    onRequest: async (request: FastifyRequest) => void (await authorizeOwner(cas, known(request))),
  };

  app.get('/v1/provisioning', async () => {
    const owner = await presentOwner(cas);
    return { provisioned: owner !== undefined, version: owner?.version ?? 0 };
  });
  app.post('/v1/provisioning', { ...identified, ...SMALL }, async (request, reply) => {
    const asked = body(
      request,
      v.strictObject({ token: v.pipe(v.string(), v.maxLength(64)), configuration: ownerConfiguration }),
    );
    reply.code(201);
    return provision(cas, asked, known(request), sourceOf(request.raw.socket));
  });
  app.get('/v1/owner-configuration', owned, async () => {
    const owner = await presentOwner(cas);
    if (!owner) throw failure('NOT_PROVISIONED');
    return { version: owner.version, configuration: owner.configuration };
  });
  app.put('/v1/owner-configuration', owned, async (request) => {
    const wanted = body(request, v.strictObject({ version: v.number(), configuration: ownerConfiguration }));
    return updateOwnerConfiguration(cas, known(request), wanted.configuration, wanted.version);
  });

  // For everybody: it tells how many decisions there were, and none of them.
  app.get('/v1/audit-log/head', async (request) => {
    const { first } = query(request, { first: v.optional(number(0, Number.MAX_SAFE_INTEGER)) });
    return cas.audit.head(first);
  });
  app.get('/v1/audit-log/entries', owned, async (request) => {
    const { first, limit } = query(request, {
      first: v.optional(number(1, Number.MAX_SAFE_INTEGER), '1'),
      limit: v.optional(number(1, MOST_LINES), String(MOST_LINES)),
    });
    return { lines: (await cas.audit.lines(first, limit)).map(String) };
  });

  app.post('/v1/rotations', owned, async (request) => {
    letTakeTime(request.raw);
    return control.rotate();
  });
  app.post('/v1/seal', owned, async (request, reply) => {
    await cas.audit.record({ operation: 'cas_sealed', certificate: known(request) });
    reply.raw.once('close', () => control.seal());
    return { sealed: true };
  });

  app.get('/v1/backup', owned, async (request, reply) => {
    await cas.audit.record({ operation: 'backup_made', certificate: known(request) });
    letTakeTime(request.raw);
    reply.type(STREAMED);
    return makeBackup({ ...control, ...cas }, cas.clock());
  });
  app.addContentTypeParser(STREAMED, (_request, payload, done) => done(null, payload));
  for (const [path, withoutCode] of [
    ['/v1/restorations', 'refused'],
    ['/v1/restorations/without-code', 'taken'],
    ['/v1/restorations/without-code/changes', 'listed'],
  ] as const)
    app.post(path, owned, async (request) => {
      if (request.headers['content-type'] !== STREAMED)
        throw failure('REQUEST_INVALID', { detail: `a backup comes as ${STREAMED}` });
      letTakeTime(request.raw);
      const backed = { ...control, ...cas };
      const { created, rows, changes } = await restoreBackup(backed, request.body as Readable, withoutCode);
      return { created, rows, ...(withoutCode !== 'refused' && { changes }) };
    });

  app.get('/v1/registrations', owned, async () => ({ registrations: await listRegistrations(cas) }));
  // The first one takes what commands of older versions say, who do not know `runAs`.
  for (const path of ['/v1/registrations', '/v2/registrations'])
    app.post(path, owned, async (request, reply) => {
      reply.code(201);
      return register(cas, body(request, registrationRequest), known(request));
    });
  app.delete<{ Params: { '*': string } }>('/v1/registrations/*', owned, async (request) => {
    await unregister(cas, request.params['*'], known(request));
    return { removed: request.params['*'] };
  });
  app.delete<{ Params: { '*': string } }>('/v1/tpm/enrolments/*', owned, async (request) => {
    await removeTpm(cas, request.params['*'], known(request));
    return { removed: request.params['*'] };
  });
  app.post('/v1/upgrades', owned, async (request) => {
    letTakeTime(request.raw);
    await startUpgrade(cas, known(request));
    return control.rotate();
  });
  // Who asks shows by Evidence that it is one that was registered.
  app.post('/v1/root-key', SMALL, async (request) => {
    const socket = request.raw.socket as TLSSocket;
    if (socket.getProtocol() !== 'TLSv1.3')
      throw failure('REQUEST_INVALID', { detail: 'this needs TLS 1.3' });
    const channel = socket.exportKeyingMaterial(32, ROOT_KEY_EXPORTER, Buffer.alloc(0));
    const key = await releaseRootKey(cas, control.rootKey, body(request, rootKeyRequest), channel);
    return { rootKey: key.toString('base64') };
  });
}
