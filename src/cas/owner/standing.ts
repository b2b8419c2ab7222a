import { formatKeyHash } from '../../policy/key-hash.ts';
import { keyOf, readIdentity } from '../identity.ts';
import type { Keyring } from '../keyring.ts';
import { describeMethods, readSeal } from '../seal/record.ts';
import type { State } from '../store/store.ts';
import { readOwner } from './owner.ts';
import { listRegistrations } from './registrations.ts';

/** Rows of `state` that security rests on. */
export const DESCRIBED: readonly string[] = ['identity', 'owner', 'registrations', 'registrations-2', 'seal'];

/** What security rests on in a store, a line each, for people. @throws Failure where it cannot be opened */
async function describe(store: State, keyring: Keyring): Promise<string[]> {
  const kept = { store, keyring };
  const seal = await readSeal(store);
  const identity = (await store.readState('identity')) && (await readIdentity(store, keyring));
  const owner = await readOwner(kept);
  const registrations = await listRegistrations(kept);
  return [
    ...(seal ? [`seal: opens by ${describeMethods(seal.slots)}`] : []),
    ...(identity ? [`identity: ${formatKeyHash(keyOf(identity))}`] : []),
    ...(owner?.keys ?? []).map((key) => `owner: ${key}`),
    ...Object.entries(owner?.configuration ?? {}).flatMap(([key, value]) =>
      [value].flat().map((each) => `configuration: ${key} ${JSON.stringify(each)}`),
    ),
    ...registrations.map(
      ({ id, kind, name, root, measurement, platform, runAs }) =>
        `registration: ${JSON.stringify({ id, kind, name, root, measurement, platform, runAs })}`,
    ),
  ];
}

/** What another state in the place of one takes away (`-`) and brings (`+`) of what security rests on. */
export async function changesBetween(one: State, other: State, keyring: Keyring): Promise<string[]> {
  const [before, after] = [await describe(one, keyring), await describe(other, keyring)];
  return [
    ...before.filter((line) => !after.includes(line)).map((line) => `- ${line}`),
    ...after.filter((line) => !before.includes(line)).map((line) => `+ ${line}`),
  ];
}
