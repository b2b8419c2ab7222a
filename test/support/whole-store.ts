import { randomBytes } from 'node:crypto';
import { openIdentity } from '../../src/cas/identity.ts';
import { KEY, type Keyring, makeMasterKeys } from '../../src/cas/keyring.ts';
import { provision, provisioningToken } from '../../src/cas/owner/owner.ts';
import { register } from '../../src/cas/owner/registrations.ts';
import { openFacts } from '../../src/cas/seal/facts.ts';
import { createSeal, readSeal, type Seal } from '../../src/cas/seal/record.ts';
import type { Database } from '../../src/cas/store/database.ts';
import { openState } from '../../src/cas/store/sql.ts';
import { type BareCas, bareCas, keyOf } from './cas.ts';

/** A store with rows in every table, as a CAS has written them. */
export interface WholeStore {
  bare: BareCas;
  database: Database;
  keyring: Keyring;
  rootKey: Buffer;
  /** What its owner has shown to become that. */
  token: string;
}

export interface Counts {
  sessions: number;
  /** Of one session. */
  versions: number;
  /** Of the largest version, public or sealed. */
  bytes: number;
  /** Of each other table. */
  others: number;
  entries: number;
}

export const OWNER = keyOf('owner');
const MEASUREMENT = 'ab'.repeat(32);

export async function wholeStore(database: Database, counts: Counts): Promise<WholeStore> {
  const masters = makeMasterKeys();
  const state = openState(database);
  const { rootKey } = await createSeal(state, masters, [{ method: 'file', key: randomBytes(KEY) }]);
  const bare = bareCas([], database, masters);
  const { cas } = bare;
  cas.facts = openFacts(database, rootKey, (await readSeal(state)) as Seal);
  const { store, keyring } = cas;
  await openIdentity(store, keyring, { commonName: 'cas', names: [] }, bare.now);
  await cas.audit.record({ operation: 'cas_started' });
  await cas.facts.note(['begun']);
  const token = (await provisioningToken(cas)) ?? '';
  const configuration = { owners: [], trusted_platforms: [MEASUREMENT] };
  await provision(cas, { token, configuration }, OWNER, '192.0.2.1');
  await register(
    cas,
    {
      ...{ kind: 'backup', name: 'other', root: 'software', measurement: MEASUREMENT, platform: MEASUREMENT },
      ...{ debug: false, weaknesses: [], advisories: [], runAs: ['uid:0'] },
    },
    OWNER,
  );
  for (let session = 1; session <= counts.sessions; session++) {
    const hash = await bare.upload(`name: s${session}\nversion: "0.3"\n`);
    let predecessor = hash;
    for (let version = 2; version <= (session === 1 ? counts.versions : 1); version++)
      predecessor = await bare.upload(
        `name: s${session}\nversion: "0.3"\npredecessor: ${predecessor}\nsalt: ${version.toString(16).padStart(32, '0')}\n`,
      );
  }
  for (let other = 1; other <= counts.others; other++) {
    const bytes = Buffer.alloc(32, other);
    const now = bare.now;
    await store.admitProcess('s1', bytes, now);
    await store.enrol(Buffer.concat([bytes, bytes]), bytes);
    await store.attempt({ account: 's1/s', source: `192.0.2.${other}`, right: false, now });
    const once = { secret: bytes, step: other };
    await store.attempt({ account: 's1/t', source: '198.51.100.1', right: true, once, now });
    await store.keepIssued({
      ...{ session: 's1', number: 1, name: `n${other}`, generation: other },
      sealed: keyring.seal(bytes, `certificate/s1/1/n${other}/${other}`),
    });
    const times = { issued: other, until: other + 1, kept: other };
    await store.keepCollateral({ key: `crl/${other}`, ...times, content: randomBytes(1000) });
  }
  if (counts.bytes > 0) {
    const hash = randomBytes(32);
    const place = `version/large/1/${hash.toString('hex')}`;
    const sealed = keyring.seal(randomBytes(counts.bytes), place);
    await store.addVersion({ session: 'large', number: 1, hash, sealed, upload: null });
    const times = { issued: 1, until: 2, kept: 3 };
    await store.keepCollateral({ key: 'large', ...times, content: randomBytes(counts.bytes) });
  }
  for (let entry = 1; entry <= counts.entries; entry++)
    await cas.audit.record({ operation: 'session_read', session: `s${entry}` });
  return { bare, database, keyring, rootKey, token };
}
