import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, test } from 'node:test';
import { keyring as createKeyring, KEY, type MasterKeys } from '../../src/cas/keyring.ts';
import { openCas, settingsOf } from '../../src/cas/open-cas.ts';
import { authorizeOwner, provision } from '../../src/cas/owner/owner.ts';
import { openFacts, requireFacts } from '../../src/cas/seal/facts.ts';
import { openSeal, readSeal, replaceKeys, replaceSlots, type Seal } from '../../src/cas/seal/record.ts';
import { rotate } from '../../src/cas/seal/rotate.ts';
import type { Database } from '../../src/cas/store/database.ts';
import { openDatabase } from '../../src/cas/store/open.ts';
import { openState } from '../../src/cas/store/sql.ts';
import { keyOf } from '../support/cas.ts';
import { OWNER, type WholeStore, wholeStore } from '../support/whole-store.ts';

/** What is deleted from a store so that its CAS begins anew, or takes for its own what it finds. */

let database: Database;
let store: WholeStore;

beforeEach(async () => {
  database = await openDatabase('sqlite::memory:');
  store = await wholeStore(database, { sessions: 1, versions: 1, bytes: 0, others: 1, entries: 1 });
});
afterEach(() => database.close());

const options = () => ({
  ...{ directory: '/nowhere', host: '', apiPort: 0, enclavePort: 0, names: [], trustedPlatforms: [] },
  ...{ lasSocket: '', log: store.bare.cas.log, rootKey: store.rootKey },
});
const start = () => openCas(database, options());
const state = () => openState(database);
const seal = async () => (await readSeal(state())) as Seal;
/** What 0.1.0 keeps: the keys alone. */
const forgetFacts = async () => {
  const its = await seal();
  const { masters, ...keys } = openSeal(its, store.rootKey);
  const known: MasterKeys = { ...keys, masters: new Map([...masters].filter(([number]) => number < 1000)) };
  await replaceKeys(state(), its, store.rootKey, known);
};
const remove = (...names: string[]) =>
  Promise.all(names.map((name) => database.run('DELETE FROM state WHERE name = $1', name)));

test('a spent token makes nobody an owner again, though the row of the owner is gone, and the row of the token back', async () => {
  const { cas } = store.bare;
  const token = cas.keyring.seal(Buffer.from(store.token), 'state/provisioning-token');
  await database.run('UPDATE state SET name = $1 WHERE name = $2', 'away', 'owner');
  await database.run("INSERT INTO state (name, value) VALUES ('provisioning-token', $1)", token);
  const request = { token: store.token, configuration: { owners: [], trusted_platforms: [] } };
  const seize = () => provision(cas, request, keyOf('mallory'), '192.0.2.1');
  await assert.rejects(seize(), { code: 'PROVISIONED_ALREADY' });
  const gone = { code: 'STORE_DAMAGED', message: /its owner is missing/ };
  for (const who of [OWNER, keyOf('mallory')]) await assert.rejects(authorizeOwner(cas, who), gone);
  await assert.rejects(settingsOf(cas, { names: [] }), gone);
  await assert.rejects(start(), { code: 'STORE_DAMAGED', message: /state owner is missing/ });
  // A process that has seen it goes by that, also with the seal of before.
  const its = await seal();
  await forgetFacts();
  await assert.rejects(seize(), { code: 'PROVISIONED_ALREADY' });
  await database.run("UPDATE state SET value = $1 WHERE name = 'seal'", its.bytes);
  await database.run('UPDATE state SET name = $1 WHERE name = $2', 'owner', 'away');
  await start();
});

test('an emptied log is not begun anew', async () => {
  await database.run('DELETE FROM audit_log');
  await assert.rejects(start(), { code: 'AUDIT_LOG_DAMAGED', message: /the whole log is missing/ });
  await remove('audit-log-key');
  await assert.rejects(start(), { code: 'STORE_DAMAGED', message: /state audit-log-key is missing/ });
  await remove('identity', 'owner');
  await assert.rejects(start(), { code: 'STORE_DAMAGED', message: /state identity is missing/ });
  assert.equal(await state().readState('identity'), undefined, 'nothing is made anew');
});

test('a row without a code becomes authentic by no start, nor by an emptied log', async () => {
  const [key, name] = [randomBytes(32), randomBytes(34)];
  await database.run('INSERT INTO attestation_key (endorsement_key, name) VALUES ($1, $2)', key, name);
  const { cas } = await start();
  await assert.rejects(cas.store.endorsementKey(name), { code: 'STORE_DAMAGED' });
  await forgetFacts();
  await database.run('DELETE FROM audit_log');
  await assert.rejects(start(), { code: 'AUDIT_LOG_DAMAGED' });
  await assert.rejects(cas.store.endorsementKey(name), { code: 'STORE_DAMAGED' });
});

test('a store of 0.1.0 whose owner is gone is not taken for one that had none', async () => {
  await forgetFacts();
  await remove('owner');
  await assert.rejects(start(), { code: 'STORE_DAMAGED', message: /state owner: it is missing/ });
});

test('a store of 0.1.0 is taken once as it is, and missed in it is from then on what was there', async () => {
  await forgetFacts();
  assert.deepEqual(await requireFacts(database, openSeal(await seal(), store.rootKey)), { isOld: true });
  await start();
  const keys = async (rootKey = store.rootKey) => openSeal(await seal(), rootKey);
  assert.deepEqual(await requireFacts(database, await keys()), { isOld: false });

  // Rotations by this version and by 0.1.0, and a new root key, leave it so.
  const keyring = createKeyring(await keys());
  const announce = async () => {};
  const rotated = { database, rootKey: store.rootKey, opened: await seal(), keyring, announce };
  assert.equal((await rotate(rotated)).present, 2);
  const before = await keys();
  const next = Math.max(...before.masters.keys()) + 1;
  const masters = new Map(before.masters).set(next, randomBytes(KEY));
  await replaceKeys(state(), await seal(), store.rootKey, { ...before, masters, present: next });
  assert.equal((await rotate({ ...rotated, opened: await seal() })).present, next + 1);
  const fresh = await replaceSlots(state(), await seal(), store.rootKey, [
    { method: 'file', key: randomBytes(KEY) },
  ]);
  const facts = openFacts(database, fresh.rootKey, await seal());
  for (const fact of ['begun', 'provisioned'] as const) assert.equal(await facts.has(fact), true);
  await remove('owner');
  await assert.rejects(requireFacts(database, await keys(fresh.rootKey)), { code: 'STORE_DAMAGED' });
});
