import { argon2, createHash, randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import { base58 } from '@scure/base';
import { combine, split } from 'shamir-secret-sharing';
import * as v from 'valibot';
import { failure } from '../../errors.ts';
import { decrypt, derive, encrypt, KEY } from '../keyring.ts';
import { type SealedInTpm, sealedInTpm, sealInTpm, unsealInTpm } from './tpm.ts';

/**
 * Ways to the root key of a store. Each is a slot: the root key, encrypted under a key that somebody has or can compute.
 * Any one of them opens the store.
 */
const bytes = (most: number) =>
  v.pipe(
    v.string(),
    v.maxLength(2 * most),
    v.base64(),
    v.transform((text) => Buffer.from(text, 'base64')),
  );
const number = (least: number, most: number) =>
  v.pipe(v.number(), v.integer(), v.minValue(least), v.maxValue(most));
const common = { id: v.pipe(v.string(), v.regex(/^[0-9a-f]{16}$/)), wrapped: bytes(128) };

export const slot = v.variant('method', [
  /** A file with 32 random bytes. */
  v.strictObject({ ...common, method: v.literal('file') }),
  /** Argon2id (RFC 9106); memory in KiB. */
  v.strictObject({
    ...common,
    method: v.literal('passphrase'),
    salt: bytes(32),
    memory: number(8192, 1024 * 1024),
    passes: number(1, 16),
    parallelism: number(1, 16),
  }),
  /** Shamir's secret sharing: `threshold` of `total` people together. */
  v.strictObject({
    ...common,
    method: v.literal('shares'),
    threshold: number(2, 255),
    total: number(2, 255),
  }),
  /** A TPM, while its registers have the values they had. */
  v.strictObject({ ...common, method: v.literal('tpm'), object: sealedInTpm }),
]);
export type Slot = v.InferOutput<typeof slot>;
export type StoredSlot = v.InferInput<typeof slot>;
export type Method = Slot['method'];

/** A method that somebody wants to have. */
export type Wanted =
  | { method: 'file'; key: Buffer }
  | { method: 'passphrase'; passphrase: Buffer }
  | { method: 'shares'; threshold: number; total: number }
  | { method: 'tpm'; pcrs: string; directory: string; env: NodeJS.ProcessEnv };

/** What a slot is opened with. */
export type Given =
  | { method: 'file'; key: Buffer }
  | { method: 'passphrase'; passphrase: Buffer }
  | { method: 'shares'; shares: readonly string[] }
  | { method: 'tpm'; directory: string; env: NodeJS.ProcessEnv };

/** RFC 9106 §4, second recommended option: 64 MiB, three passes, four lanes; a tenth of a second. */
const ARGON2 = { memory: 64 * 1024, passes: 3, parallelism: 4 };
const SALT = 16;
const LEAST_CHARACTERS = 12;

/**
 * Makes a slot.
 * @returns it, and the shares to hand out where it is shared; they are kept nowhere
 * @throws Failure PASSPHRASE_WEAK or TPM_UNUSABLE
 */
export async function makeSlot(
  rootKey: Buffer,
  wanted: Wanted,
): Promise<{ slot: StoredSlot; shares: string[] }> {
  const id = randomBytes(8).toString('hex');
  const { method } = wanted;
  const wrappedBy = (key: Buffer) => ({
    id,
    wrapped: encrypt(derive(key, `unlock ${method}`), rootKey, placeOf({ id, method })).toString('base64'),
  });
  switch (wanted.method) {
    case 'file':
      return { slot: { method: 'file', ...wrappedBy(wanted.key) }, shares: [] };
    case 'passphrase': {
      if (wanted.passphrase.toString().length < LEAST_CHARACTERS)
        throw failure('PASSPHRASE_WEAK', { least: LEAST_CHARACTERS });
      const salt = randomBytes(SALT);
      const key = await stretch(wanted.passphrase, { salt, ...ARGON2 });
      return {
        slot: { method: 'passphrase', salt: salt.toString('base64'), ...ARGON2, ...wrappedBy(key) },
        shares: [],
      };
    }
    case 'shares': {
      const { threshold, total } = wanted;
      const key = randomBytes(KEY);
      const parts = await split(new Uint8Array(key), total, threshold);
      return {
        slot: { method: 'shares', threshold, total, ...wrappedBy(key) },
        shares: parts.map((part) => formatShare(id, part)),
      };
    }
    case 'tpm': {
      const key = randomBytes(KEY);
      const object = await sealInTpm(key, wanted);
      return { slot: { method: 'tpm', object, ...wrappedBy(key) }, shares: [] };
    }
  }
}

/**
 * Opens a slot with what was given for it.
 * @throws Failure UNSEAL_REFUSED, SHARE_INVALID or TPM_UNUSABLE
 */
export async function openSlot(its: Slot, given: Given): Promise<Buffer> {
  const refused = (detail: string, cause?: unknown) =>
    failure('UNSEAL_REFUSED', { method: `${its.method} ${its.id}`, detail }, cause);
  const unwrap = (key: Buffer, detail: string) => {
    try {
      return decrypt(derive(key, `unlock ${its.method}`), its.wrapped, placeOf(its));
    } catch (error) {
      throw refused(detail, error);
    }
  };
  if (its.method === 'file' && given.method === 'file')
    return unwrap(given.key, 'the key file is another one, or the record was changed');
  if (its.method === 'passphrase' && given.method === 'passphrase')
    return unwrap(
      await stretch(given.passphrase, its),
      'the passphrase is another one, or the record was changed',
    );
  if (its.method === 'shares' && given.method === 'shares') {
    const parts = given.shares.map((text) => readShare(its, text).part);
    if (parts.length < its.threshold)
      throw refused(`${parts.length} of the ${its.threshold} shares that are needed are here`);
    const key = Buffer.from(await combine(parts.map((part) => new Uint8Array(part))));
    return unwrap(key, 'one of the shares is wrong, or the record was changed');
  }
  if (its.method === 'tpm' && given.method === 'tpm')
    return unwrap(await unsealInTpm(its.object as SealedInTpm, given), 'the TPM gave another key');
  throw refused('it is opened with something else');
}

const placeOf = ({ id, method }: { id: string; method: Method }) => `seal/${method}/${id}`;

async function stretch(
  passphrase: Buffer,
  {
    salt,
    memory,
    passes,
    parallelism,
  }: { salt: Buffer; memory: number; passes: number; parallelism: number },
): Promise<Buffer> {
  // However somebody's keyboard writes them, the same characters are the same bytes.
  const message = Buffer.from(passphrase.toString().normalize('NFC'));
  return promisify(argon2)('argon2id', { message, nonce: salt, memory, passes, parallelism, tagLength: KEY });
}

const SHARE = 'envcas-share-';
const CHECK = 4;
const ID = 8;

/** `envcas-share-` and in base58: id of the slot, part, and the beginning of the SHA-256 of both. */
function formatShare(id: string, part: Uint8Array): string {
  const content = Buffer.concat([Buffer.from(id, 'hex'), part]);
  return SHARE + base58.encode(Buffer.concat([content, checksum(content)]));
}

/**
 * @returns the part; the last byte of it is the number of the share
 * @throws Failure SHARE_INVALID where it has a typing error, or is for another store
 */
export function readShare({ id }: Pick<Slot, 'id'>, text: string): { part: Buffer; index: number } {
  const invalid = (detail: string) => failure('SHARE_INVALID', { detail });
  let all: Buffer;
  try {
    if (!text.startsWith(SHARE) || text.length > 256) throw new Error();
    all = Buffer.from(base58.decode(text.slice(SHARE.length)));
  } catch {
    throw invalid(`a share begins with ${SHARE}, and letters and digits follow`);
  }
  const content = all.subarray(0, -CHECK);
  if (content.length < ID + 2 || !checksum(content).equals(all.subarray(-CHECK)))
    throw invalid('there is a typing error in it');
  if (content.subarray(0, ID).toString('hex') !== id)
    throw invalid('it belongs to another store, or to shares that were replaced');
  const part = content.subarray(ID);
  return { part, index: part.at(-1) ?? 0 };
}

function checksum(content: Buffer): Buffer {
  return createHash('sha256').update(content).digest().subarray(0, CHECK);
}
