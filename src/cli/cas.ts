import { X509Certificate } from 'node:crypto';
import * as v from 'valibot';
import { failure } from '../errors.ts';
import { formatKeyHash } from '../policy/key-hash.ts';
import { callApi } from '../protocol/api-client.ts';
import { readClientState, updateClientState } from '../protocol/client-state.ts';
import { printable } from '../protocol/refusal.ts';
import { connectTo } from './connect.ts';
import type { Output } from './output.ts';
import { knownCas, sessionEncryptionKey } from './state.ts';

/** `scone cas list`: the attested CASes, the default one marked. */
export function listCas(): Output {
  const { default_cas, cas_db } = readClientState(process.env);
  const list = Object.entries(cas_db).map(([name, { url }]) => ({
    name,
    url,
    default: name === default_cas,
  }));
  const text = list.map((cas) => `${cas.default ? '*' : ' '} ${cas.name}: ${cas.url}\n`).join('');
  return { text, json: list };
}

/** `scone cas set-default CAS`: the CAS that commands go to which name none. */
export function setDefaultCas(name: string): Output {
  updateClientState(process.env, (state) => {
    if (!Object.hasOwn(state.cas_db, name)) throw failure('CAS_UNKNOWN', { name });
    return { ...state, default_cas: name };
  });
  return { text: `The default CAS is ${name}\n`, json: { default: name } };
}

/** `scone cas show-certificate [CAS]`: its certificate chain as PEM. */
export function showCertificate(name: string | undefined): Output {
  const { chain } = knownCas(process.env, name);
  return { text: chain, json: { chain } };
}

/** Which part of its identification is wanted; the key hash where none is named. */
export interface IdentificationOptions {
  casKeyHash?: boolean;
  certificate?: boolean;
  chain?: boolean;
  sessionEncryptionKey?: boolean;
}

/** `scone cas show-identification [CAS]`: what there is to know it by. */
export function showIdentification(name: string | undefined, options: IdentificationOptions): Output {
  const cas = knownCas(process.env, name);
  const { chain, encryptionKey } = cas;
  const keyHash = formatKeyHash(cas.key);
  const certificate = new X509Certificate(chain).toString();
  const shown = () => {
    if (options.chain) return chain;
    if (options.certificate) return certificate;
    if (options.sessionEncryptionKey)
      return sessionEncryptionKey(cas).export({ type: 'spki', format: 'pem' }).toString();
    return `${keyHash}\n`;
  };
  const json = {
    name: cas.name,
    url: cas.url,
    keyHash,
    certificate,
    chain,
    sessionEncryptionKey: encryptionKey,
  };
  return { text: shown(), json };
}

/** `scone cas version [CAS]`: what an attested CAS says that its version is. */
export async function showCasVersion(
  name: string | undefined,
  { retries }: { retries: number },
): Promise<Output> {
  const cas = knownCas(process.env, name);
  const connection = await connectTo(cas, retries);
  const call = { method: 'GET', path: '/v1/version' } as const;
  const { version } = await callApi(connection, call, v.object({ version: v.string() }));
  return { text: `${printable(version)}\n`, json: { name: cas.name, version } };
}
