import { resolve } from 'node:path';
import { keyring as createKeyring, type Keyring, makeMasterKeys } from '../cas/keyring.ts';
import { storeAddress } from '../cas/open-cas.ts';
import { restoreInto, type WithoutCode } from '../cas/owner/backup.ts';
import { requireFacts } from '../cas/seal/facts.ts';
import { openSlot, type Wanted } from '../cas/seal/methods.ts';
import {
  createSeal,
  describeMethods,
  openSeal,
  readSeal,
  replaceSlots,
  type Seal,
} from '../cas/seal/record.ts';
import { rotate } from '../cas/seal/rotate.ts';
import { readKeyFile, readPassphrase, unsealBySelf } from '../cas/seal/unseal.ts';
import { checkStore, requireWhole } from '../cas/store/check.ts';
import type { Database } from '../cas/store/database.ts';
import { checkNotMoved, moveStore } from '../cas/store/move.ts';
import { openDatabase } from '../cas/store/open.ts';
import { openState } from '../cas/store/sql.ts';
import type { State } from '../cas/store/store.ts';
import { failure } from '../errors.ts';
import { makePrivateDirectory } from '../platform/private-file.ts';
import type { Output } from './output.ts';
import { warn } from './report.ts';
import { readSecretLine } from './unseal-input.ts';

/** Commands on a store itself, whether a CAS runs on it or not. */

/** Which store, and what opens it. */
export interface StoreOptions {
  dir: string;
  store?: string;
  keyFile?: string;
  passphraseFile?: string;
}

/** Ways that a store is to open by. */
export interface MethodOptions {
  newKeyFile?: string;
  newPassphrase?: boolean;
  newPassphraseFile?: string;
  shares?: { threshold: number; total: number };
  tpm?: string;
}

async function withStore<Result>(
  options: StoreOptions,
  work: (database: Database) => Promise<Result>,
): Promise<Result> {
  const directory = resolve(options.dir);
  makePrivateDirectory(directory);
  const database = await openDatabase(storeAddress({ store: options.store, directory }));
  try {
    await checkNotMoved(database);
    return await work(database);
  } finally {
    await database.close();
  }
}

/** `scone cas init`: makes an empty store, which opens by the methods that are named. */
export async function initStore(options: StoreOptions & MethodOptions): Promise<Output> {
  return withStore(options, async (database) => {
    const state = openState(database);
    const isOld = (await state.readState('identity')) !== undefined;
    const before = await readSeal(state);
    const refuse = (methods: string) => failure('STORE_SEALED_ALREADY', { store: database.name, methods });
    if (before || isOld) throw refuse(before ? describeMethods(before.slots) : 'master.key');
    const { created, shares } = await createSeal(state, makeMasterKeys(), wantedMethods(options));
    const seal = (await readSeal(state)) as Seal;
    if (!created) throw refuse(describeMethods(seal.slots));
    return made(seal, shares);
  });
}

/** `scone cas rekey`: a new root key, which opens by other methods than before. */
export async function rekeyStore(options: StoreOptions & MethodOptions): Promise<Output> {
  return withStore(options, async (database) => {
    const state = openState(database);
    const { seal, rootKey } = await openByHand(state, options);
    const { shares } = await replaceSlots(state, seal, rootKey, wantedMethods(options));
    return made((await readSeal(state)) as Seal, shares);
  });
}

/** `scone cas rotate --dir`: a new master key, under which everything is wrapped anew. */
export async function rotateStore(options: StoreOptions): Promise<Output> {
  return withStore(options, async (database) => {
    const { seal, rootKey } = await openByHand(openState(database), options);
    const keyring = createKeyring(openSeal(seal, rootKey));
    const { present, rewrapped } = await rotate({
      database,
      rootKey,
      opened: seal,
      keyring,
      announce: async () => {},
    });
    return {
      text: `Master key ${present} is used from now on; ${rewrapped} values were wrapped under it\n`,
      json: { present, rewrapped },
    };
  });
}

/** `scone cas check-store`: looks at every row. */
export async function checkWholeStore(options: StoreOptions): Promise<Output> {
  return withStore(options, async (database) => {
    const { seal, rootKey } = await openByHand(openState(database), options);
    const keys = openSeal(seal, rootKey);
    const { rows, problems } = await checkStore(database, createKeyring(keys));
    for (const problem of problems) warn(problem);
    requireWhole(database.name, problems);
    await requireFacts(database, keys);
    return { text: `All ${rows} rows of ${database.name} are as they were written\n`, json: { rows } };
  });
}

export interface WithoutCodeOptions {
  /** Takes a backup of 0.1.0, which has no code. */
  withoutCode?: boolean;
  /** Takes it without a look at what it changes. */
  yes?: boolean;
}

/** `scone cas restore --dir … FILE`: puts a backup into an empty store. */
export async function restoreStore(
  file: string,
  options: StoreOptions & WithoutCodeOptions,
): Promise<Output> {
  return withStore(options, async (database) => {
    let keyring: Keyring | undefined;
    const open = async (state: State) => {
      // Once, since shares are read from standard input.
      if (!keyring) {
        const { seal, rootKey } = await openByHand(state, options);
        keyring = createKeyring(openSeal(seal, rootKey));
      }
      return keyring;
    };
    const restore = (how: WithoutCode) => restoreInto(database, resolve(file), open, how);
    if (options.withoutCode) confirmChanges((await restore('listed')).changes, options.yes);
    const { rows, created } = await restore(options.withoutCode ? 'taken' : 'refused');
    const seal = await readSeal(openState(database));
    const methods = seal ? describeMethods(seal.slots) : 'master.key';
    const at = new Date(created).toISOString();
    return {
      text: `${rows} rows of ${at} are in ${database.name}; the CAS that starts on it opens by: ${methods}\n`,
      json: { rows, created: at, store: database.name, methods },
    };
  });
}

/**
 * Shows what a backup without a code changes of what security rests on.
 * @throws Failure USAGE where nobody has said that this is wanted
 */
export function confirmChanges(changes: readonly string[], isWanted = false): void {
  for (const change of changes) warn(change);
  if (changes.length === 0) warn('it changes neither seal, identity, owner nor registrations');
  if (!isWanted)
    throw failure('USAGE', {
      detail: 'the backup has no code, and the lines above are what it changes; say --yes if that is wanted',
    });
}

/** `scone cas migrate --from ADDRESS --to ADDRESS`: moves a store to another database. */
export async function migrateStore({ from, to }: { from: string; to: string }): Promise<Output> {
  const source = await openDatabase(from);
  try {
    const target = await openDatabase(to);
    try {
      const rows = await moveStore(source, target);
      return {
        text: `${rows} rows were copied from ${source.name} to ${target.name}; start the CAS with --store ${to}\n`,
        json: { rows, from: source.name, to: target.name },
      };
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

/** By what is there, or by whoever is at the keyboard. */
async function openByHand(state: State, options: StoreOptions): Promise<{ seal: Seal; rootKey: Buffer }> {
  const directory = resolve(options.dir);
  const unsealed = await unsealBySelf(state, {
    ...{ directory, env: process.env, keyFile: options.keyFile ?? resolve(directory, 'master.key') },
    passphraseFile: options.passphraseFile,
  });
  const seal = (await readSeal(state)) as Seal;
  if ('rootKey' in unsealed) return { seal, rootKey: unsealed.rootKey };
  const passphrase = seal.slots.find(({ method }) => method === 'passphrase');
  if (passphrase) {
    const given = Buffer.from(readSecretLine(undefined, 'Passphrase of the store'));
    return { seal, rootKey: await openSlot(passphrase, { method: 'passphrase', passphrase: given }) };
  }
  const slot = seal.slots.find(({ method }) => method === 'shares');
  if (slot?.method !== 'shares') throw failure('CAS_SEALED');
  const shares = Array.from({ length: slot.threshold }, (_, at) =>
    readSecretLine(undefined, `Share ${at + 1} of ${slot.threshold}`),
  );
  return { seal, rootKey: await openSlot(slot, { method: 'shares', shares }) };
}

/** @throws Failure USAGE where there is none */
function wantedMethods(options: MethodOptions & Pick<StoreOptions, 'dir'>): Wanted[] {
  const { newKeyFile, newPassphrase, newPassphraseFile, shares, tpm } = options;
  const wanted: Wanted[] = [];
  if (newKeyFile !== undefined) wanted.push({ method: 'file', key: readKeyFile(resolve(newKeyFile)) });
  if (newPassphraseFile !== undefined)
    wanted.push({ method: 'passphrase', passphrase: readPassphrase(newPassphraseFile) });
  else if (newPassphrase)
    wanted.push({
      method: 'passphrase',
      passphrase: Buffer.from(readSecretLine(undefined, 'New passphrase')),
    });
  if (shares) wanted.push({ method: 'shares', ...shares });
  if (tpm !== undefined)
    wanted.push({ method: 'tpm', pcrs: tpm, directory: resolve(options.dir), env: process.env });
  if (wanted.length > 0) return wanted;
  throw failure('USAGE', {
    detail: 'say by what it opens: --new-key-file, --new-passphrase, --shares or --tpm; several may be said',
  });
}

function made(seal: Seal, shares: readonly string[]): Output {
  const methods = describeMethods(seal.slots);
  const handOut =
    shares.length > 0
      ? `Hand out these shares, each to another person; they are shown now and never again:\n${shares.map((share) => `${share}\n`).join('')}`
      : '';
  return { text: `The store opens by: ${methods}\n${handOut}`, json: { methods, shares } };
}
