import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  X509Certificate,
} from 'node:crypto';
import { failure } from '../errors.ts';
import { type Address, defaultPorts, parseAddress } from '../policy/address.ts';
import type { Identity } from '../protocol/certificate.ts';
import {
  type ClientState,
  chainKey,
  clientStatePath,
  readClientState,
  updateClientState,
} from '../protocol/client-state.ts';
import { readPem, toPem } from '../secrets/private-key.ts';
import { NO_EXPIRY } from '../secrets/x509.ts';
import { readInput } from './input.ts';

/** Bytes of a key and a certificate in PEM, with text around them. */
const LARGEST_IDENTITY = 262_144;

/**
 * Who the user is: whoever the file says, or the user's own identity, made on first use.
 * @param file PEM of a PKCS#8 key and its certificate, in any order
 * @throws Failure FILE_INVALID, which quotes nothing of the file
 */
export async function openIdentity(env: NodeJS.ProcessEnv, file?: string): Promise<Identity> {
  if (file !== undefined) return readIdentity(file, readInput(file, LARGEST_IDENTITY).toString('latin1'));
  const present = readClientState(env).identity;
  if (present !== undefined) return readIdentity(clientStatePath(env), present);
  // Certificates take a while to load, and are made once.
  const { selfSignedCertificate } = await import('../protocol/certificate.ts');
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
  return readIdentity(clientStatePath(env), state.identity ?? '');
}

function readIdentity(path: string, pem: string): Identity {
  const wrong = (detail: string) => failure('FILE_INVALID', { path, detail });
  const blocks = readPem(pem) ?? [];
  const only = (label: string) => blocks.find((block) => block.label === label);
  const [key, certificate] = [only('PRIVATE KEY'), only('CERTIFICATE')];
  if (!key || !certificate)
    throw wrong('its identity is no PKCS#8 key (BEGIN PRIVATE KEY) with a certificate');
  try {
    const privateKey = createPrivateKey({ key: key.der, format: 'der', type: 'pkcs8' });
    if (new X509Certificate(certificate.der).checkPrivateKey(privateKey))
      return { key: toPem('PRIVATE KEY', key.der), certificate: toPem('CERTIFICATE', certificate.der) };
  } catch {
    throw wrong('the key or the certificate of its identity is damaged');
  }
  throw wrong('the certificate of its identity is for another key');
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
  /** Address for launchers. */
  enclave: string | undefined;
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
  const { url, chain, enclave, session_encryption_key: encryptionKey } = entry;
  return {
    name: wanted,
    address: parseAddress(url.replace(/^https:\/\/|\/$/g, ''), defaultPorts.api, 'url'),
    url,
    chain,
    key: chainKey(env, chain),
    enclave,
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
