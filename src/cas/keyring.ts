import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from 'node:crypto';
import { failure } from '../errors.ts';
import { readOrCreatePrivate } from '../platform/private-file.ts';

/**
 * Encrypts what goes into the store: AES-256-GCM, each text under a data key of its own, which the master key
 * wraps. Every ciphertext is bound to the place it belongs to, so that one that was moved does not decrypt.
 */
export interface Keyring {
  /** @param place where the ciphertext is kept, such as a table and the keys of its row */
  seal(plaintext: Buffer, place: string): Buffer;
  /** @throws Failure STATE_SEALED */
  open(sealed: Buffer, place: string): Buffer;
  /** A name for a secret that tells nothing about it: HMAC-SHA-256, 32 bytes. */
  pseudonym(secret: Buffer): Buffer;
  /** A code that only this keyring makes, over what is kept in the clear at a place: HMAC-SHA-256, 32 bytes. */
  authenticate(content: Buffer, place: string): Buffer;
}

const NONCE = 12;
const TAG = 16;
const KEY = 32;
const WRAPPED = NONCE + KEY + TAG;
const FORMAT = 1;

/** Reads the master key (32 bytes, mode 0600), or makes it on the first start. */
export function openKeyring(path: string): Keyring {
  const master = readOrCreatePrivate(path, () => randomBytes(KEY));
  if (master.length !== KEY)
    throw failure('STATE_UNUSABLE', {
      path,
      detail: `a master key has ${KEY} bytes, this has ${master.length}`,
    });
  return keyring(master);
}

export function keyring(master: Buffer): Keyring {
  const wrapping = derive(master, 'wrapping');
  const naming = derive(master, 'naming');
  const authenticating = derive(master, 'authenticating');
  return {
    seal(plaintext, place) {
      const dataKey = randomBytes(KEY);
      return Buffer.concat([
        Buffer.of(FORMAT),
        encrypt(wrapping, dataKey, `key:${place}`),
        encrypt(dataKey, plaintext, place),
      ]);
    },
    open(sealed, place) {
      try {
        if (sealed[0] !== FORMAT) throw new Error('unknown format');
        const dataKey = decrypt(wrapping, sealed.subarray(1, 1 + WRAPPED), `key:${place}`);
        return decrypt(dataKey, sealed.subarray(1 + WRAPPED), place);
      } catch (error) {
        throw failure('STATE_SEALED', { path: `the store's ${place}` }, error);
      }
    },
    pseudonym: (secret) => createHmac('sha256', naming).update(secret).digest(),
    authenticate: (content, place) =>
      createHmac('sha256', authenticating).update(`${place.length} ${place}`).update(content).digest(),
  };
}

function derive(master: Buffer, purpose: string): Buffer {
  return Buffer.from(hkdfSync('sha256', master, '', `envcas keyring ${purpose}`, KEY));
}

function encrypt(key: Buffer, plaintext: Buffer, place: string): Buffer {
  const nonce = randomBytes(NONCE);
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(place));
  return Buffer.concat([nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

function decrypt(key: Buffer, sealed: Buffer, place: string): Buffer {
  if (sealed.length < NONCE + TAG) throw new Error('too short');
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, NONCE), { authTagLength: TAG })
    .setAAD(Buffer.from(place))
    .setAuthTag(sealed.subarray(-TAG));
  return Buffer.concat([decipher.update(sealed.subarray(NONCE, -TAG)), decipher.final()]);
}
