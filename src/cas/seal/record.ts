import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import * as v from 'valibot';
import { failure } from '../../errors.ts';
import { decrypt, derive, encrypt, KEY, type MasterKeys } from '../keyring.ts';
import type { State } from '../store/store.ts';
import { type Method, makeSlot, type Slot, type StoredSlot, slot, type Wanted } from './methods.ts';

/**
 * How a store is sealed: one row of `state`, in the clear. The root key, which each slot opens, encrypts the master keys, and
 * authenticates all of it.
 */
const stored = v.strictObject({
  format: v.literal(1),
  slots: v.pipe(v.array(v.unknown()), v.minLength(1), v.maxLength(32)),
  /** The master keys, encrypted. */
  keys: v.pipe(v.string(), v.maxLength(256 * 1024), v.base64()),
  code: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
});

export interface Seal {
  slots: readonly Slot[];
  /** As it is stored. */
  record: v.InferOutput<typeof stored>;
  /** The bytes of the row. */
  bytes: Buffer;
}

const NAME = 'seal';
const PLACE = 'seal/keys';
const masterKeys = v.strictObject({
  masters: v.record(
    v.pipe(v.string(), v.regex(/^[1-9]\d{0,8}$/)),
    v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  ),
  present: v.pipe(v.number(), v.integer(), v.minValue(1)),
  naming: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
});

/** How the store is sealed, or undefined of one that is new, or of an older version. @throws Failure SEAL_DAMAGED */
export async function readSeal(state: State): Promise<Seal | undefined> {
  const bytes = await state.readState(NAME);
  if (!bytes) return undefined;
  try {
    const record = v.parse(stored, JSON.parse(bytes.toString()));
    return { slots: record.slots.map((each) => v.parse(slot, each)), record, bytes };
  } catch (error) {
    throw failure('SEAL_DAMAGED', { detail: 'it cannot be read' }, error);
  }
}

/**
 * The master keys.
 * @param opened the record that this root key has opened before
 * @throws Failure SEAL_DAMAGED where anything in the record was changed, or it is another root key; STORE_REKEYED where
 * nothing is left of the one that was opened
 */
export function openSeal({ record, slots }: Seal, rootKey: Buffer, opened?: Seal): MasterKeys {
  const code = codeOf(record, rootKey);
  if (!timingSafeEqual(code, Buffer.from(record.code, 'hex'))) {
    const known = opened?.slots.map(({ id }) => id);
    if (known && record.keys !== opened?.record.keys && !slots.some(({ id }) => known.includes(id)))
      throw failure('STORE_REKEYED');
    throw failure('SEAL_DAMAGED', { detail: 'it was changed by somebody who does not have the root key' });
  }
  try {
    const plaintext = decrypt(derive(rootKey, 'seal keys'), Buffer.from(record.keys, 'base64'), PLACE);
    const { masters, present, naming } = v.parse(masterKeys, JSON.parse(plaintext.toString()));
    return {
      masters: new Map(
        Object.entries(masters).map(([number, key]) => [Number(number), Buffer.from(key, 'hex')]),
      ),
      present,
      naming: Buffer.from(naming, 'hex'),
    };
  } catch (error) {
    throw failure('SEAL_DAMAGED', { detail: 'the master keys in it cannot be read' }, error);
  }
}

/** The row for slots and keys. */
function formatSeal(slots: readonly unknown[], keys: MasterKeys, rootKey: Buffer): Buffer {
  const form: v.InferInput<typeof masterKeys> = {
    masters: Object.fromEntries(
      [...keys.masters].map(([number, key]) => [String(number), key.toString('hex')]),
    ),
    present: keys.present,
    naming: keys.naming.toString('hex'),
  };
  const sealed = encrypt(derive(rootKey, 'seal keys'), Buffer.from(JSON.stringify(form)), PLACE);
  const unsigned = { format: 1 as const, slots: [...slots], keys: sealed.toString('base64') };
  return Buffer.from(JSON.stringify({ ...unsigned, code: codeOf(unsigned, rootKey).toString('hex') }));
}

function codeOf({ slots, keys }: { slots: readonly unknown[]; keys: string }, rootKey: Buffer): Buffer {
  return createHmac('sha256', derive(rootKey, 'seal code')).update(JSON.stringify({ slots, keys })).digest();
}

/**
 * Seals a store that is not sealed yet. Of two processes that do so at once, one does.
 * @returns whether it was this one, the root key then, and the shares to hand out
 */
export async function createSeal(
  state: State,
  keys: MasterKeys,
  wanted: readonly Wanted[],
  rootKey: Buffer = randomBytes(KEY),
): Promise<{ created: boolean; rootKey: Buffer; shares: string[] }> {
  const { slots, shares } = await makeSlots(rootKey, wanted);
  const row = formatSeal(slots, keys, rootKey);
  const kept = await state.createState(NAME, row);
  return { created: kept.equals(row), rootKey, shares };
}

/** New ways to a new root key, in place of all there were. @throws Failure SEAL_CHANGED where another was faster */
export async function replaceSlots(
  state: State,
  seal: Seal,
  rootKey: Buffer,
  wanted: readonly Wanted[],
): Promise<{ rootKey: Buffer; shares: string[] }> {
  const keys = openSeal(seal, rootKey);
  const fresh = randomBytes(KEY);
  const { slots, shares } = await makeSlots(fresh, wanted);
  if (!(await state.replaceState(NAME, formatSeal(slots, keys, fresh), seal.bytes)))
    throw failure('SEAL_CHANGED');
  return { rootKey: fresh, shares };
}

/** Other master keys, under the same root key. @throws Failure SEAL_CHANGED */
export async function replaceKeys(
  state: State,
  seal: Seal,
  rootKey: Buffer,
  keys: MasterKeys,
): Promise<void> {
  openSeal(seal, rootKey);
  if (!(await state.replaceState(NAME, formatSeal(seal.record.slots, keys, rootKey), seal.bytes)))
    throw failure('SEAL_CHANGED');
}

async function makeSlots(rootKey: Buffer, wanted: readonly Wanted[]) {
  const slots: StoredSlot[] = [];
  const shares: string[] = [];
  for (const each of wanted) {
    const made = await makeSlot(rootKey, each);
    slots.push(made.slot);
    shares.push(...made.shares);
  }
  return { slots, shares };
}

/** For people: the methods, such as `file, shares (2 of 3)`. */
export function describeMethods(slots: readonly Slot[]): string {
  return slots.map(describeMethod).join(', ');
}

function describeMethod(its: Slot): string {
  if (its.method === 'shares') return `shares (${its.threshold} of ${its.total})`;
  if (its.method === 'tpm') return `tpm (${its.object.pcrs})`;
  return its.method satisfies Method;
}
