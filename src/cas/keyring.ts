import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from 'node:crypto';
import { failure } from '../errors.ts';

/**
 * Encrypts what goes into the store: AES-256-GCM, each text under a data key of its own, which a master key wraps. Master keys
 * have numbers, and a new one leaves what was sealed under those before readable. Every ciphertext is bound to the place it
 * belongs to, so that one that was moved does not decrypt.
 */
export interface Keyring {
  /** @param place where the ciphertext is kept, such as a table and the keys of its row */
  seal(plaintext: Buffer, place: string): Buffer;
  /** @throws Failure STATE_SEALED */
  open(sealed: Buffer, place: string): Buffer;
  /** A new data key for a place, and what stands before what is encrypted with it ({@link sealWith}). */
  makeKey(place: string): DataKey;
  /** The data key of a ciphertext, and what {@link openWith} takes. @throws Failure STATE_SEALED */
  keyOf(sealed: Buffer, place: string): { key: Buffer; content: Buffer };
  /** The same under the present master key, or undefined where it is already. @throws Failure STATE_SEALED */
  rewrap(sealed: Buffer, place: string): Buffer | undefined;
  /** A name for a secret that tells nothing about it, the same under all master keys: HMAC-SHA-256, 32 bytes. */
  pseudonym(secret: Buffer): Buffer;
  /** A code that only this keyring makes, over what is kept in the clear at a place: HMAC-SHA-256, 32 bytes. */
  authenticate(content: Buffer, place: string): Buffer;
  /** Takes over keys that were added, and which one is used from now on. */
  use(keys: MasterKeys): void;
}

/** 32 bytes, and how they are kept: wrapped by a master key. */
export interface DataKey {
  key: Buffer;
  head: Buffer;
}

/** All keys of a CAS's store. */
export interface MasterKeys {
  /** 32 bytes each, by number, from 1 on. */
  masters: ReadonlyMap<number, Buffer>;
  /** Number of the one that seals. */
  present: number;
  /** 32 bytes that pseudonyms and codes are made with. */
  naming: Buffer;
}

export const KEY = 32;
const NONCE = 12;
const TAG = 16;
const WRAPPED = NONCE + KEY + TAG;
/** The first byte: sealed under the first master key, as older versions of this program did; or under the one whose number follows. */
const FIRST_KEY = 1;
const NUMBERED = 2;
const NUMBER = 4;

/** Keys for a new store. */
export function makeMasterKeys(): MasterKeys {
  return { masters: new Map([[1, randomBytes(KEY)]]), present: 1, naming: randomBytes(KEY) };
}

/** Keys of a store that an older version of this program has made, which had one. */
export function keysOfOne(master: Buffer): MasterKeys {
  return { masters: new Map([[1, master]]), present: 1, naming: derive(master, 'keyring naming') };
}

export function keyring(keys: MasterKeys): Keyring {
  const authenticating = derive(keys.naming, 'keyring authenticating');
  let wrapping = wrappingKeys(keys);
  let present = keys.present;
  /** @throws Error */
  const partsOf = (sealed: Buffer) => {
    const number = sealed[0] === NUMBERED ? sealed.readUInt32BE(1) : 1;
    const start = sealed[0] === NUMBERED ? 1 + NUMBER : 1;
    const key = wrapping.get(number);
    if (sealed[0] !== FIRST_KEY && sealed[0] !== NUMBERED) throw new Error('unknown format');
    if (!key) throw new Error(`master key ${number} is not known here`);
    return {
      number,
      key,
      wrapped: sealed.subarray(start, start + WRAPPED),
      content: sealed.subarray(start + WRAPPED),
    };
  };
  const wrap = (dataKey: Buffer, place: string): Buffer[] => {
    const number = Buffer.alloc(NUMBER);
    number.writeUInt32BE(present);
    return [Buffer.of(NUMBERED), number, encrypt(wrapping.get(present) as Buffer, dataKey, `key:${place}`)];
  };
  const makeKey = (place: string): DataKey => {
    const key = randomBytes(KEY);
    return { key, head: Buffer.concat(wrap(key, place)) };
  };
  const keyOf = (sealed: Buffer, place: string) =>
    guarded(place, () => {
      const { key, wrapped, content } = partsOf(sealed);
      return { key: decrypt(key, wrapped, `key:${place}`), content };
    });
  return {
    makeKey,
    keyOf,
    seal: (plaintext, place) => sealWith(makeKey(place), plaintext, place),
    open(sealed, place) {
      const { key, content } = keyOf(sealed, place);
      return openWith(key, content, place);
    },
    rewrap: (sealed, place) =>
      guarded(place, () => {
        const { number, key, wrapped, content } = partsOf(sealed);
        if (number === present) return undefined;
        return Buffer.concat([...wrap(decrypt(key, wrapped, `key:${place}`), place), content]);
      }),
    pseudonym: (secret) => createHmac('sha256', keys.naming).update(secret).digest(),
    authenticate: (content, place) =>
      createHmac('sha256', authenticating).update(`${place.length} ${place}`).update(content).digest(),
    use(others) {
      wrapping = wrappingKeys(others);
      present = others.present;
    },
  };
}

/** Encrypts with a data key that was made for the place. */
export const sealWith = ({ key, head }: DataKey, plaintext: Uint8Array, place: string): Buffer =>
  Buffer.concat([head, ...encrypted(key, plaintext, place)]);

/** Decrypts with the data key of a ciphertext. @throws Failure STATE_SEALED */
export const openWith = (key: Uint8Array, content: Uint8Array, place: string): Buffer =>
  guarded(place, () => decrypt(key, content, place));

function guarded<Result>(place: string, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    throw failure('STATE_SEALED', { path: `the store's ${place}` }, error);
  }
}

function wrappingKeys({ masters }: MasterKeys): Map<number, Buffer> {
  return new Map([...masters].map(([number, master]) => [number, derive(master, 'keyring wrapping')]));
}

/** HKDF with SHA-256 (RFC 5869), 32 bytes. */
export function derive(key: Buffer, purpose: string): Buffer {
  return Buffer.from(hkdfSync('sha256', key, '', `envcas ${purpose}`, KEY));
}

/** AES-256-GCM: nonce, ciphertext, tag. @param place is authenticated with it */
export const encrypt = (key: Buffer, plaintext: Buffer, place: string): Buffer =>
  Buffer.concat(encrypted(key, plaintext, place));

function encrypted(key: Uint8Array, plaintext: Uint8Array, place: string): Buffer[] {
  const nonce = randomBytes(NONCE);
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(place));
  return [nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()];
}

/** @throws Error where it was changed, or belongs to another key or place */
export function decrypt(key: Uint8Array, sealed: Uint8Array, place: string): Buffer {
  if (sealed.length < NONCE + TAG) throw new Error('too short');
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, NONCE), { authTagLength: TAG })
    .setAAD(Buffer.from(place))
    .setAuthTag(sealed.subarray(-TAG));
  return Buffer.concat([decipher.update(sealed.subarray(NONCE, -TAG)), decipher.final()]);
}
