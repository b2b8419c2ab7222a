import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { causes, failure } from '../../errors.ts';
import { readOrCreatePrivate, readPrivate } from '../../platform/private-file.ts';
import { KEY, type Keyring, keyring, keysOfOne, makeMasterKeys } from '../keyring.ts';
import type { State } from '../store/store.ts';
import { type Given, openSlot, type Slot } from './methods.ts';
import { createSeal, describeMethods, openSeal, readSeal, type Seal } from './record.ts';

/** What a CAS can open its store with, without anybody's help. */
export interface OwnMeans {
  /** File with a key, 32 bytes, mode 0600. */
  keyFile: string;
  /** File with a passphrase. */
  passphraseFile?: string | undefined;
  /** Of the CAS, for the files of the TPM's programs. */
  directory: string;
  env: NodeJS.ProcessEnv;
}

export type Unsealed = { rootKey: Buffer; isSealedNow?: boolean } | { seal: Seal; reasons: string[] };

/**
 * Opens the store by what is here; makes a new one with a key file. One that an older version of this program has made, with its
 * master key in that file, is taken over.
 * @param takeOver does what else is to be done with one from before there were seals, before it has one
 * @returns the root key; or how the store is sealed, and why nothing here opens it, where people may
 * @throws Failure UNSEAL_REFUSED, SEAL_DAMAGED, STATE_UNUSABLE, or of the store
 */
export async function unsealBySelf(
  state: State,
  means: OwnMeans,
  takeOver = async (_keyring: Keyring): Promise<void> => {},
): Promise<Unsealed> {
  const sealed = await readSeal(state);
  const seal = sealed ?? (await makeSeal(state, means, takeOver));
  const errors: unknown[] = [];
  for (const slot of seal.slots) {
    const given = givenFor(slot, means);
    if (!given) continue;
    try {
      const rootKey = await openSlot(slot, given);
      openSeal(seal, rootKey);
      return { rootKey, ...(!sealed && { isSealedNow: true }) };
    } catch (error) {
      errors.push(error);
    }
  }
  const reasons = errors.map((error) => causes(error).join(': '));
  if (seal.slots.some(({ method }) => method === 'passphrase' || method === 'shares'))
    return { seal, reasons };
  if (errors.length === 1) throw errors[0];
  throw failure('UNSEAL_REFUSED', {
    method: describeMethods(seal.slots),
    detail: reasons.join('; ') || `there is no key file ${means.keyFile}`,
  });
}

function givenFor({ method }: Slot, means: OwnMeans): Given | undefined {
  if (method === 'file') {
    const key = readPrivate(means.keyFile, 'folder');
    return key && { method, key };
  }
  if (method === 'passphrase' && means.passphraseFile !== undefined)
    return { method, passphrase: readPassphrase(means.passphraseFile) };
  if (method === 'tpm') return { method, directory: means.directory, env: means.env };
  return undefined;
}

/** A passphrase in a file, without the end of its line. @throws Failure STATE_UNUSABLE */
export function readPassphrase(path: string): Buffer {
  const content = readPrivate(path, 'anybody');
  if (!content) throw failure('STATE_UNUSABLE', { path, detail: 'there is no such file' });
  return Buffer.from(content.toString().replace(/\r?\n$/, ''));
}

/** Key in a file, made where there is none. @throws Failure STATE_UNUSABLE */
export function readKeyFile(path: string): Buffer {
  const key = readOrCreatePrivate(path, () => randomBytes(KEY), 'folder');
  if (key.length === KEY) return key;
  throw failure('STATE_UNUSABLE', { path, detail: `a key has ${KEY} bytes, this has ${key.length}` });
}

/** @throws Failure SEAL_DAMAGED where a key is not the one that an older version has sealed the store with */
function requireMaster(key: Buffer, identity: Buffer): void {
  try {
    keyring(keysOfOne(key)).open(identity, 'state/identity');
  } catch (error) {
    throw failure('SEAL_DAMAGED', { detail: 'it is missing' }, error);
  }
}

async function makeSeal(
  state: State,
  { keyFile }: OwnMeans,
  takeOver: (keyring: Keyring) => Promise<void>,
): Promise<Seal> {
  const identity = await state.readState('identity');
  const isOld = identity !== undefined;
  if (isOld && !existsSync(keyFile))
    throw failure('STATE_UNUSABLE', { path: keyFile, detail: 'the master key of the store is missing' });
  const key = readKeyFile(keyFile);
  if (isOld) {
    requireMaster(key, identity);
    await takeOver(keyring(keysOfOne(key)));
  }
  await createSeal(
    state,
    isOld ? keysOfOne(key) : makeMasterKeys(),
    [{ method: 'file', key }],
    ...(isOld ? [key] : []),
  );
  return (await readSeal(state)) as Seal;
}
