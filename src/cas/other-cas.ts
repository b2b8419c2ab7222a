import type * as v from 'valibot';
import { failure } from '../errors.ts';
import { defaultPorts, parseAddress } from '../policy/address.ts';
import { parseKeyHash } from '../policy/key-hash.ts';
import type { ImportSource } from '../policy/schema/sharing.ts';
import { callApi, connectApi } from '../protocol/api-client.ts';
import type { Identity } from '../protocol/certificate.ts';
import { checkKey } from '../protocol/connect.ts';
import { type ExportRequest, exportAnswer, MOST_HOPS } from '../protocol/exports.ts';
import { Refused } from '../protocol/refusal.ts';
import type { TypedSecret } from '../secrets/kinds.ts';
import { Secret } from '../secrets/secret.ts';
import type { SessionVersion } from './versions.ts';

/** Milliseconds for the whole of one request; a launcher waits ten seconds. */
const PATIENCE = 5_000;
/** Requests to other CASes at a time. */
const AT_ONCE = 64;

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
      const request: ExportRequest = {
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
  request: ExportRequest,
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
