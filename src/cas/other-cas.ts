import { isUtf8 } from 'node:buffer';
import type * as v from 'valibot';
import { Failure, failure } from '../errors.ts';
import { defaultPorts, parseAddress } from '../policy/address.ts';
import { parseKeyHash } from '../policy/key-hash.ts';
import type { ImportSource } from '../policy/schema/sharing.ts';
import { callApi, connectApi } from '../protocol/api-client.ts';
import type { Identity } from '../protocol/certificate.ts';
import { checkKey } from '../protocol/connect.ts';
import { type ExportRequest, exportAnswer, MOST_HOPS } from '../protocol/exports.ts';
import { Refused } from '../protocol/refusal.ts';
import { readPublicKey } from '../quick-key.ts';
import type { TypedSecret } from '../secrets/kinds.ts';
import { publicKeyOf } from '../secrets/private-key.ts';
import { Secret } from '../secrets/secret.ts';
import { certificatePublicKey, certificateValidity } from '../secrets/x509.ts';
import { formatted } from './format.ts';
import { createCounts } from './limits/counts.ts';
import { handshakesOf, mayShakeHands } from './limits/handshakes.ts';
import { asker } from './observe/correlation.ts';
import type { SessionVersion } from './versions.ts';

/** Milliseconds for the whole of one request; a launcher waits ten seconds. */
const PATIENCE = 5_000;
/** Requests to other CASes at a time: in all, and for one source, whose sessions are as many as it likes. */
const AT_ONCE = 256;
const AT_ONCE_OF_SOURCE = 32;
/** Bytes of an answer: keys, certificates and fragments of configuration are far smaller. */
const ANSWER_LIMIT = 512 * 1024;

type Answer = v.InferOutput<typeof exportAnswer>;

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
  /** What is under way: in all, and by the source that it is for. */
  let running = 0;
  const ofSource = createCounts();
  const count = (source: string, more: number) => {
    running += more;
    ofSource.add(source, more);
  };
  return {
    async import({ session, hash }, source, hops, unavailable) {
      const { cas_url = '', cas_key = '', session_hash, secret } = source;
      if (hops >= MOST_HOPS) throw unavailable(`it goes through more than ${MOST_HOPS} CASes`);
      const from = asker().source;
      if (running >= AT_ONCE || ofSource.of(from) >= AT_ONCE_OF_SOURCE || !mayShakeHands(from))
        throw failure('CAS_BUSY');
      const request: ExportRequest = {
        session: source.session,
        secret,
        ...(session_hash !== undefined && { sessionHash: session_hash }),
        importer: { session: session.name, hash },
        hops: hops + 1,
      };
      count(from, 1);
      try {
        const answer = await ask(cas_url, cas_key, request, identity);
        const wrong = await wrongWith(answer);
        if (wrong !== undefined) throw unavailable(`the CAS at ${cas_url} gave something else: ${wrong}`);
        return {
          kind: answer.kind,
          secret: new Secret(answer.secret),
          ...(answer.chain && { chain: answer.chain }),
          ...(answer.privateKey && { privateKey: new Secret(answer.privateKey) }),
        };
      } catch (error) {
        if (error instanceof Failure && error.code === 'SECRET_UNAVAILABLE') throw error;
        if (error instanceof Refused) throw unavailable(`the CAS at ${cas_url} refuses it`, error);
        // In general terms: a session could have the CAS look around in its network otherwise.
        throw unavailable(`the CAS at ${cas_url} with the key ${cas_key} cannot be reached`);
      } finally {
        count(from, -1);
      }
    },
  };
}

/** What another CAS gives is looked at as what a user writes would be; no message quotes from it. */
async function wrongWith(answer: Answer): Promise<string | undefined> {
  const { kind, secret, chain = [], privateKey } = answer;
  const wrong = (what: string) => `it is no ${what}`;
  try {
    if (kind === 'config-fragment') {
      if (secret.includes('$$')) return 'a config-fragment with variables stays on its CAS';
      JSON.parse(secret.toString());
    }
    if (kind === 'private-key') publicKeyOf(secret);
    if (kind === 'public-key') readPublicKey(secret);
    if (kind === 'x509' || kind === 'x509-ca')
      for (const certificate of [secret, ...chain]) certificateValidity(certificate);
    if (privateKey && !publicKeyOf(privateKey).equals(certificatePublicKey(secret)))
      return 'the private key is that of another certificate';
    if ((kind === 'ascii' || kind === 'jwt') && !isUtf8(secret)) return wrong('text');
    if (kind === 'pgp-key') await formatted({ kind, secret: new Secret(secret) }, ':publickey:binary');
    return undefined;
  } catch {
    return wrong(kind);
  }
}

async function ask(url: string, key: string, request: ExportRequest, identity: Identity): Promise<Answer> {
  const address = parseAddress(url, defaultPorts.api, 'cas_url');
  const connection = await connectApi(address, identity, PATIENCE, handshakesOf(asker().source));
  const { socket } = connection;
  const timer = setTimeout(() => socket.destroy(new Error('no answer in time')), PATIENCE);
  try {
    checkKey(connection, parseKeyHash(key, 'cas_key'), 'by the importing session');
    const call = { method: 'POST', path: '/v1/exports', body: JSON.stringify(request) } as const;
    return await callApi(connection, call, exportAnswer, ANSWER_LIMIT);
  } finally {
    clearTimeout(timer);
    socket.destroy();
  }
}
