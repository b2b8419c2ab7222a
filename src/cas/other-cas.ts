import * as v from 'valibot';
import { type Failure, failure, reason } from '../errors.ts';
import { defaultPorts, parseAddress } from '../policy/address.ts';
import { parseKeyHash } from '../policy/key-hash.ts';
import type { ImportSource } from '../policy/schema/sharing.ts';
import { callApi, connectApi } from '../protocol/api-client.ts';
import type { Identity } from '../protocol/certificate.ts';
import { checkKey } from '../protocol/connect.ts';
import { Refused } from '../protocol/refusal.ts';
import { secretKinds, type TypedSecret } from '../secrets/kinds.ts';
import { Secret } from '../secrets/secret.ts';
import type { Cas } from './cas.ts';
import { createResolver, exportedPart } from './secrets.ts';
import { activeSession, type SessionVersion } from './sessions.ts';

/**
 * Sharing between sessions of two CASes, `POST /v1/exports`, over mutual TLS: each CAS knows the other by the key
 * hash that the session on its own side names (`cas_key`). The importing CAS vouches for name and hash of its session.
 */

const base64 = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9+/]*={0,2}$/),
  v.transform((text) => Buffer.from(text, 'base64')),
);
const name = v.pipe(v.string(), v.maxLength(512));
const hash = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));

/** A secret is handed through so many CASes at most; circles end here. */
const MOST_HOPS = 4;
/** Milliseconds for the whole of one request; a launcher waits ten seconds. */
const PATIENCE = 5_000;
/** Requests to other CASes at a time. */
const AT_ONCE = 64;

const exportRequest = v.strictObject({
  session: name,
  secret: name,
  /** The version that the exporting session must have. */
  sessionHash: v.optional(hash),
  importer: v.strictObject({ session: name, hash }),
  hops: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MOST_HOPS)),
});

const exportAnswer = v.strictObject({
  kind: v.picklist(secretKinds),
  secret: base64,
  chain: v.optional(v.pipe(v.array(base64), v.maxLength(32))),
  privateKey: v.optional(base64),
});

/** Brings secrets from other CASes. */
export interface OtherCases {
  /**
   * @param hops how many CASes the request has come through already
   * @param unavailable makes the error
   */
  import(
    importer: SessionVersion,
    source: ImportSource,
    hops: number,
    unavailable: (detail: string, cause?: unknown) => Error,
  ): Promise<TypedSecret>;
}

/** @param identity by which this CAS is known to the others */
export function createOtherCases(identity: Identity): OtherCases {
  let running = 0;
  return {
    async import({ session, hash }, source, hops, unavailable) {
      const { cas_url = '', cas_key = '', session_hash, secret } = source;
      if (hops >= MOST_HOPS) throw unavailable(`it goes through more than ${MOST_HOPS} CASes`);
      if (running >= AT_ONCE) throw failure('CAS_BUSY');
      const request: v.InferInput<typeof exportRequest> = {
        session: source.session,
        secret,
        ...(session_hash !== undefined && { sessionHash: session_hash }),
        importer: { session: session.name, hash },
        hops: hops + 1,
      };
      running++;
      try {
        const answer = await ask(cas_url, cas_key, request, identity);
        return {
          kind: answer.kind,
          secret: new Secret(answer.secret),
          ...(answer.chain && { chain: answer.chain }),
          ...(answer.privateKey && { privateKey: new Secret(answer.privateKey) }),
        };
      } catch (error) {
        if (error instanceof Refused) throw unavailable(`the CAS at ${cas_url} refuses it`, error);
        // In general terms: a session could have the CAS look around in its network otherwise.
        throw unavailable(`the CAS at ${cas_url} with the key ${cas_key} cannot be reached`);
      } finally {
        running--;
      }
    },
  };
}

async function ask(
  url: string,
  key: string,
  request: v.InferInput<typeof exportRequest>,
  identity: Identity,
): Promise<v.InferOutput<typeof exportAnswer>> {
  const address = parseAddress(url, defaultPorts.api, 'cas_url');
  const connection = await connectApi(address, identity, PATIENCE);
  const { socket } = connection;
  const timer = setTimeout(() => socket.destroy(new Error('no answer in time')), PATIENCE);
  try {
    checkKey(connection, parseKeyHash(key, 'cas_key'), 'by the importing session');
    const call = { method: 'POST', path: '/v1/exports', body: JSON.stringify(request) } as const;
    return await callApi(connection, call, exportAnswer);
  } finally {
    clearTimeout(timer);
    socket.destroy();
  }
}

/**
 * Answers another CAS that asks for a secret.
 * @param certificate digest of its key, hexadecimal
 * @throws Failure REQUEST_INVALID, or SECRET_UNAVAILABLE, the same for what is not there and what is not exported
 */
export async function exportToOtherCas(
  cas: Cas,
  body: string,
  certificate: string,
): Promise<v.InferInput<typeof exportAnswer>> {
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
  const resolved = (await resolver(exporter, request.secret)).secret;
  const { kind, secret, chain, privateKey } = exportedPart(exporter, definition, resolved, isExported);
  // What its variables mean is known only where it was written.
  if (kind === 'config-fragment' && secret.reveal().includes('$$'))
    throw failure('SECRET_UNAVAILABLE', {
      secret: request.secret,
      session: request.session,
      detail: 'a config-fragment with variables stays on its CAS',
    });
  cas.log.info({ ...request.importer, secret: request.secret, certificate }, 'exported to another CAS');
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
