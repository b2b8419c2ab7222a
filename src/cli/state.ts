import { generateKeyPairSync } from 'node:crypto';
import { failure } from '../errors.ts';
import { type Address, defaultPorts, parseAddress } from '../protocol/address.ts';
import { type Identity, selfSignedCertificate } from '../protocol/certificate.ts';
import {
  type ClientState,
  chainKey,
  PINNED_BY_ATTEST,
  readClientState,
  updateClientState,
} from '../protocol/client-state.ts';
import { type CasConnection, checkKey } from '../protocol/connect.ts';
import { connectApi } from './client.ts';

/** Nobody checks the validity of a client certificate, only its key; RFC 5280 §4.1.2.5 calls this no expiry. */
const NEVER = new Date('9999-12-31T23:59:59Z');

/** The user's identity, made on first use. */
export async function openClientIdentity(env: NodeJS.ProcessEnv): Promise<Identity> {
  const present = readClientState(env).identity;
  if (present) return splitIdentity(present);
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  const certificate = await selfSignedCertificate({
    key: privateKey,
    commonName: 'scone',
    names: ['scone-client'],
    notBefore: new Date(Date.now() - 3600_000),
    notAfter: NEVER,
  });
  const state = updateClientState(env, (before) => ({ identity: key + certificate, ...before }));
  return splitIdentity(state.identity ?? '');
}

function splitIdentity(pem: string): Identity {
  const end = '-----END PRIVATE KEY-----\n';
  const split = pem.indexOf(end) + end.length;
  return { key: pem.slice(0, split), certificate: pem.slice(split) };
}

/** An attested CAS. */
export interface KnownCas {
  name: string;
  address: Address;
  chain: string;
  key: Buffer;
}

/**
 * The CAS of this name, or the default one.
 * @throws Failure CAS_UNKNOWN
 */
export function knownCas(env: NodeJS.ProcessEnv, name: string | undefined): KnownCas {
  const state: ClientState = readClientState(env);
  const wanted = name ?? state.default_cas;
  const entry = wanted === undefined ? undefined : state.cas_db[wanted];
  if (wanted === undefined || !entry)
    throw failure('CAS_UNKNOWN', { name: wanted ?? '(there is no default)' });
  return {
    name: wanted,
    address: parseAddress(entry.url.replace(/^https:\/\/|\/$/g, ''), defaultPorts.api, 'url'),
    chain: entry.chain,
    key: chainKey(env, entry.chain),
  };
}

/** Connects to an attested CAS as this user, and makes sure that it has the key it was attested with. */
export async function connectAsUser(
  env: NodeJS.ProcessEnv,
  name: string | undefined,
): Promise<CasConnection> {
  const cas = knownCas(env, name);
  const connection = await connectApi(cas.address, await openClientIdentity(env));
  checkKey(connection, cas.key, PINNED_BY_ATTEST);
  return connection;
}
