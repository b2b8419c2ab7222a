import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  X509Certificate,
} from 'node:crypto';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import * as v from 'valibot';
import { failure } from '../errors.ts';
import { publicKeyDigest } from '../policy/key-hash.ts';
import { type Identity, selfSignedCertificate } from '../protocol/certificate.ts';
import type { Keyring } from './keyring.ts';
import type { State, Store } from './store/store.ts';

const YEAR = 365 * 24 * 3600 * 1000;
const CLOCK_SKEW = 3600 * 1000;
const PLACE = 'state/identity';
const stored = v.strictObject({ key: v.string(), certificate: v.string() });

/**
 * The key and certificate that the CAS shows on both ports. The key is made once and kept; it is what others
 * pin. The certificate is good for a year and made anew, for the same key, when a third of that is left or
 * when the names have changed.
 */
export async function openIdentity(
  store: Store,
  keyring: Keyring,
  { commonName, names }: { commonName: string; names: readonly string[] },
  now: number,
): Promise<Identity> {
  const read = (sealed: Buffer) => opened(sealed, keyring);
  const seal = (identity: Identity) => keyring.seal(Buffer.from(JSON.stringify(identity)), PLACE);
  const all = [...new Set(['localhost', 'cas', '127.0.0.1', '::1', hostname(), ...names])].filter(Boolean);
  const issue = async (key: string): Promise<Identity> => ({
    key,
    certificate: await selfSignedCertificate({
      key: createPrivateKey(key),
      commonName,
      names: all,
      notBefore: new Date(now - CLOCK_SKEW),
      notAfter: new Date(now + YEAR),
    }),
  });

  const kept = await store.readState('identity');
  if (!kept) {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const fresh = await issue(privateKey.export({ type: 'pkcs8', format: 'pem' }) as string);
    return read(await store.createState('identity', seal(fresh)));
  }
  const identity = read(kept);
  const certificate = new X509Certificate(identity.certificate);
  const isCalled = certificate.subject === `CN=${commonName}`;
  const named =
    isCalled && all.every((name) => (isIP(name) ? certificate.checkIP(name) : certificate.checkHost(name)));
  if (named && certificate.validToDate.getTime() - now > YEAR / 3) return identity;
  const renewed = await issue(identity.key);
  // Where another process was faster, its certificate is as good.
  const isKept = await store.replaceState('identity', seal(renewed), kept);
  return isKept ? renewed : read((await store.readState('identity')) ?? kept);
}

const opened = (sealed: Buffer, keyring: Keyring): Identity =>
  v.parse(stored, JSON.parse(keyring.open(sealed, PLACE).toString()));

/** SHA-256 of the public key of a CAS, by which others know it. */
export const keyOf = ({ certificate }: Pick<Identity, 'certificate'>): Buffer =>
  publicKeyDigest(createPublicKey(certificate));

/** The identity that is kept. @throws Failure STORE_DAMAGED where there is none */
export async function readIdentity(state: Pick<State, 'readState'>, keyring: Keyring): Promise<Identity> {
  const kept = await state.readState('identity');
  if (!kept) throw failure('STORE_DAMAGED', { store: 'of the CAS', detail: 'its identity is missing' });
  return opened(kept, keyring);
}

/** The X25519 key that opens sessions which were encrypted for this CAS; made once and kept. */
export async function openEncryptionKey(store: Store, keyring: Keyring): Promise<KeyObject> {
  const place = 'state/session-encryption-key';
  const fresh = () =>
    keyring.seal(generateKeyPairSync('x25519').privateKey.export({ type: 'pkcs8', format: 'der' }), place);
  const name = 'session-encryption-key';
  const sealed = (await store.readState(name)) ?? (await store.createState(name, fresh()));
  return createPrivateKey({ key: keyring.open(sealed, place), format: 'der', type: 'pkcs8' });
}
