import * as v from 'valibot';
import { type Failure, failure, reason } from '../errors.ts';
import { parseKeyHash } from '../policy/key-hash.ts';
import { type ExportAnswer, exportRequest } from '../protocol/exports.ts';
import type { Cas } from './cas.ts';
import { createResolver, exportedPart } from './secrets.ts';
import { activeSession } from './versions.ts';

/**
 * Answers another CAS that asks for a secret.
 * @param certificate digest of its key, hexadecimal
 * @throws Failure REQUEST_INVALID, or SECRET_UNAVAILABLE, the same for what is not there and what is not exported
 */
export async function exportToOtherCas(cas: Cas, body: string, certificate: string): Promise<ExportAnswer> {
  const request = readRequest(body);
  const notExported = (): Failure =>
    failure('SECRET_UNAVAILABLE', {
      secret: request.secret,
      session: request.session,
      detail: `it is not exported to ${request.importer.session} on this CAS`,
    });
  const exporter = await activeSession(cas, request.session);
  const definition = exporter?.session.secrets.find((secret) => secret.name === request.secret);
  const isExported = (it: typeof definition) =>
    (it?.export ?? []).some(
      ({ cas_key, session, session_hash }) =>
        cas_key !== undefined &&
        parseKeyHash(cas_key, 'cas_key').toString('hex') === certificate &&
        session === request.importer.session &&
        [undefined, request.importer.hash].includes(session_hash),
    );
  if (!exporter || !definition || !isExported(definition)) throw notExported();
  if (request.sessionHash !== undefined && request.sessionHash !== exporter.hash)
    throw failure('SECRET_UNAVAILABLE', {
      secret: request.secret,
      session: request.session,
      detail: 'the session is of another version than session_hash says',
    });
  const resolver = createResolver(cas, { hops: request.hops });
  const resolved = (await resolver.find(exporter, request.secret)).secret;
  const { kind, secret, chain, privateKey } = exportedPart(exporter, definition, resolved, isExported);
  // What its variables mean is known only where it was written.
  if (kind === 'config-fragment' && secret.reveal().includes('$$'))
    throw failure('SECRET_UNAVAILABLE', {
      secret: request.secret,
      session: request.session,
      detail: 'a config-fragment with variables stays on its CAS',
    });
  const what = {
    session: request.session,
    secret: request.secret,
    importer: request.importer.session,
    certificate,
  };
  await cas.audit.record({ operation: 'secret_exported', ...what });
  cas.log.info(what, 'exported to another CAS');
  return {
    kind,
    secret: secret.reveal().toString('base64'),
    ...(chain && { chain: chain.map((der) => der.toString('base64')) }),
    ...(privateKey && { privateKey: privateKey.reveal().toString('base64') }),
  };
}

function readRequest(body: string): v.InferOutput<typeof exportRequest> {
  let content: unknown;
  try {
    content = JSON.parse(body);
  } catch (error) {
    throw failure('REQUEST_INVALID', { detail: reason(error) });
  }
  const parsed = v.safeParse(exportRequest, content);
  if (parsed.success) return parsed.output;
  throw failure('REQUEST_INVALID', { detail: `unexpected value at ${v.getDotPath(parsed.issues[0])}` });
}
