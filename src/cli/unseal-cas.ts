import { hostname } from 'node:os';
import { resolve } from 'node:path';
import type { Log } from '../cas/cas.ts';
import { askForRootKey, type OtherCas } from '../cas/seal/other-cas.ts';
import { describeMethods, openSeal, readSeal, type Seal } from '../cas/seal/record.ts';
import { type Unsealed, unsealBySelf } from '../cas/seal/unseal.ts';
import { serveSealed } from '../cas/sealed.ts';
import { checkNotMoved } from '../cas/store/move.ts';
import { openDatabase } from '../cas/store/open.ts';
import { codeRowsOf, openState } from '../cas/store/sql.ts';
import { causes, failure } from '../errors.ts';
import { makePrivateDirectory } from '../platform/private-file.ts';
import { formatAddress } from '../policy/address.ts';
import { formatKeyHash } from '../policy/key-hash.ts';
import {
  balancersOf,
  type CasServeOptions,
  keyFileOf,
  readOtherCas,
  readPort,
  storeOf,
} from './cas-options.ts';
import { print } from './server.ts';

/**
 * Opens the store: by what is here, by another CAS, or by people.
 * @returns undefined where it is to end before
 */
export async function unseal(
  options: CasServeOptions,
  log: Log,
  end: Promise<void>,
  onSealed: () => void,
): Promise<Buffer | undefined> {
  const unsealed = await unsealByMachine(options, log);
  if ('rootKey' in unsealed) return unsealed.rootKey;
  for (const reason of unsealed.reasons) log.warn({ reason }, 'the store does not open by itself');
  return unsealByPeople(options, log, end, unsealed.reasons, onSealed);
}

async function unsealByMachine(options: CasServeOptions, log: Log): Promise<Unsealed> {
  const directory = resolve(options.dir);
  makePrivateDirectory(directory);
  const others = (options.unsealFrom ?? []).map(readOtherCas);
  const database = await openDatabase(storeOf(options));
  try {
    await checkNotMoved(database);
    const means = {
      ...{ directory, env: process.env, keyFile: keyFileOf(options) },
      passphraseFile: options.passphraseFile,
    };
    let unsealed: Unsealed;
    try {
      unsealed = await unsealBySelf(openState(database), means, codeRowsOf(database));
    } catch (error) {
      const seal = others.length > 0 ? await readSeal(openState(database)) : undefined;
      if (!seal) throw error;
      unsealed = { seal, reasons: [causes(error).join(': ')] };
    }
    if ('rootKey' in unsealed) {
      if (unsealed.isSealedNow)
        log.info({ keyFile: means.keyFile }, 'the store was sealed now, and opens by this key file alone');
      return unsealed;
    }
    const { rootKey, reasons } = await askOthers(options, unsealed.seal, log);
    return rootKey ? { rootKey } : { ...unsealed, reasons: [...unsealed.reasons, ...reasons] };
  } finally {
    await database.close();
  }
}

/** Asks the CASes that this one may be registered at, one after the other. */
async function askOthers(
  { unsealFrom = [], las, host, apiPort }: CasServeOptions,
  seal: Seal,
  log: Log,
): Promise<{ rootKey?: Buffer; reasons: string[] }> {
  const reasons: string[] = [];
  const isSelf = ({ address }: OtherCas) =>
    [host, hostname()].includes(address.host) && String(address.port) === apiPort;
  for (const other of unsealFrom.map(readOtherCas)) {
    // All replicas may have the same list.
    if (isSelf(other)) continue;
    try {
      const rootKey = await askForRootKey(other, las);
      // One that has not heard of new methods yet has the key from before.
      openSeal(seal, rootKey);
      log.info({ other: formatAddress(other.address) }, 'another CAS has given the root key');
      return { rootKey, reasons };
    } catch (error) {
      reasons.push(`${formatAddress(other.address)}: ${causes(error).join(': ')}`);
    }
  }
  return { reasons };
}

export async function unsealByPeople(
  options: CasServeOptions,
  log: Log,
  end: Promise<void>,
  reasons: readonly string[],
  onSealed: () => void,
): Promise<Buffer | undefined> {
  const database = await openDatabase(storeOf(options));
  const seal = await readSeal(openState(database)).finally(() => database.close());
  if (!seal) throw failure('SEAL_DAMAGED', { detail: 'it is missing' });
  const methods = describeMethods(seal.slots);
  const sealed = await serveSealed({
    ...{ host: options.host, names: options.name ?? [], lasSocket: options.las, seal, log },
    apiPort: readPort(options.apiPort, '--api-port'),
    balancers: balancersOf(options),
  });
  onSealed();
  const host = isAnywhere(options.host) ? hostname() : options.host;
  const address = formatAddress({ host, port: sealed.apiPort });
  print(
    `CAS is sealed, at https://${address}/, and opens by: ${methods}`,
    ...reasons.map((reason) => `  ${reason}`),
    `Its key until then: ${formatKeyHash(sealed.key)}`,
    `To open it: scone cas unseal ${address}`,
  );
  // It may be registered by now, or the other one be there again.
  const registered = Promise.withResolvers<Buffer>();
  let isOver = false;
  const askAgain = async () => {
    const { rootKey } = await askOthers(options, seal, log);
    if (rootKey) registered.resolve(rootKey);
    else if (!isOver) setTimeout(askAgain, ASK_AGAIN).unref();
  };
  if (options.unsealFrom) setTimeout(askAgain, ASK_AGAIN).unref();
  const rootKey = await Promise.race([sealed.rootKey, registered.promise, end.then(() => undefined)]);
  isOver = true;
  await sealed.close();
  return rootKey;
}

/** Whether an address is all that a host has, which says nothing elsewhere. */
const isAnywhere = (address: string) => address === '0.0.0.0' || address === '::';

/** Milliseconds between two questions of a CAS that is sealed to others. */
const ASK_AGAIN = 5_000;
