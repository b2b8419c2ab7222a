import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto';
import { failure } from '../errors.ts';
import { type Address, defaultPorts, parseAddress } from '../protocol/address.ts';
import { connectApi } from '../protocol/api-client.ts';
import type { Identity } from '../protocol/certificate.ts';
import {
  type ClientState,
  chainKey,
  clientStatePath,
  PINNED_BY_ATTEST,
  readClientState,
  updateClientState,
} from '../protocol/client-state.ts';
import { type CasConnection, checkKey } from '../protocol/connect.ts';
import { withRetries } from './retry.ts';

/** The user's identity, made on first use. */
export async function openClientIdentity(env: NodeJS.ProcessEnv): Promise<Identity> {
  const present = readClientState(env).identity;
  if (present !== undefined) return splitIdentity(env, present);
  // Certificates take a while to load, and are made once.
  const { selfSignedCertificate } = await import('../protocol/certificate.ts');
  const { NO_EXPIRY } = await import('../secrets/x509.ts');
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  const certificate = await selfSignedCertificate({
    key: privateKey,
    commonName: 'scone',
    names: ['scone-client'],
    notBefore: new Date(Date.now() - 3600_000),
    // Nobody checks the validity of a client certificate, only its key.
    notAfter: NO_EXPIRY,
  });
  const state = updateClientState(env, (before) => ({ identity: key + certificate, ...before }));
  return splitIdentity(env, state.identity ?? '');
}

function splitIdentity(env: NodeJS.ProcessEnv, pem: string): Identity {
  const parts =
    /^(-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----\s+)(-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\s*)$/;
  const [, key, certificate] = parts.exec(pem) ?? [];
  if (key === undefined || certificate === undefined)
    throw failure('FILE_INVALID', {
      path: clientStatePath(env),
      detail: 'its identity is no PKCS#8 key followed by a certificate',
    });
  return { key, certificate };
}

/** RFC 8410 §7: all of a PKCS#8 Ed25519 key in DER but the 32 bytes of its seed, which come last. */
const ED25519_PKCS8 = Buffer.from('302e020100300506032b657004220420', 'hex');

/** The user's private key (Ed25519) for signing sessions, made on first use. */
export function openSigningKey(env: NodeJS.ProcessEnv): KeyObject {
  const name = 'session_signing_keypair_ed25519_seed';
  const state = readClientState(env);
  const { [name]: seed } =
    name in state
      ? state
      : updateClientState(env, (before) => ({ [name]: randomBytes(32).toString('hex'), ...before }));
  if (typeof seed !== 'string' || !/^[0-9a-fA-F]{64}$/.test(seed))
    throw failure('FILE_INVALID', {
      path: clientStatePath(env),
      detail: `its ${name} has not 64 hexadecimal digits`,
    });
  const der = Buffer.concat([ED25519_PKCS8, Buffer.from(seed, 'hex')]);
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
}

/** An attested CAS. */
export interface KnownCas {
  name: string;
  address: Address;
  url: string;
  chain: string;
  key: Buffer;
  /** Public key for sessions that only this CAS can open, as PEM, where it gave one when it was attested. */
  encryptionKey: string | undefined;
}

/**
 * The CAS of this name, or the default one.
 * @throws Failure CAS_UNKNOWN
 */
export function knownCas(env: NodeJS.ProcessEnv, name: string | undefined): KnownCas {
  const state: ClientState = readClientState(env);
  const wanted = name ?? state.default_cas;
  if (wanted === undefined) throw failure('CAS_UNKNOWN', { name: '(there is no default)' });
  const entry = Object.hasOwn(state.cas_db, wanted) ? state.cas_db[wanted] : undefined;
  if (!entry) throw failure('CAS_UNKNOWN', { name: wanted });
  const { url, chain, session_encryption_key: encryptionKey } = entry;
  return {
    name: wanted,
    address: parseAddress(url.replace(/^https:\/\/|\/$/g, ''), defaultPorts.api, 'url'),
    url,
    chain,
    key: chainKey(env, chain),
    encryptionKey: typeof encryptionKey === 'string' ? encryptionKey : undefined,
  };
}

/**
 * The public key for sessions that only this CAS can open.
 * @throws Failure ENCRYPTION_KEY_UNKNOWN
 */
export function sessionEncryptionKey({ name, encryptionKey }: KnownCas): KeyObject {
  if (encryptionKey === undefined) throw failure('ENCRYPTION_KEY_UNKNOWN', { name });
  return createPublicKey(encryptionKey);
}

/** Connects to an attested CAS, and makes sure that it has the key it was attested with. */
export async function connectKnown(
  cas: KnownCas,
  options: { identity?: Identity; retries?: number } = {},
): Promise<CasConnection> {
  const connection = await withRetries(options.retries ?? 0, () => connectApi(cas.address, options.identity));
  checkKey(connection, cas.key, PINNED_BY_ATTEST);
  return connection;
}

/** Connects to an attested CAS as this user, and makes sure that it has the key it was attested with. */
export async function connectAsUser(
  env: NodeJS.ProcessEnv,
  name: string | undefined,
  retries = 0,
): Promise<CasConnection> {
  const cas = knownCas(env, name);
  return connectKnown(cas, { identity: await openClientIdentity(env), retries });
}
