import { makeMasterKeys } from '../../src/cas/keyring.ts';
import type { Wanted } from '../../src/cas/seal/methods.ts';
import { createSeal, readSeal, type Seal } from '../../src/cas/seal/record.ts';
import { serveSealed } from '../../src/cas/sealed.ts';
import { openDatabase } from '../../src/cas/store/open.ts';
import { openState } from '../../src/cas/store/sql.ts';
import { balancers } from '../support/proxy-protocol.ts';

/** A sealed CAS in this process, whose store opens by some methods. */
export async function sealedCas(...wanted: Wanted[]) {
  const state = openState(await openDatabase('sqlite::memory:'));
  const made = await createSeal(state, makeMasterKeys(), wanted);
  const seal = (await readSeal(state)) as Seal;
  const log = { info() {}, warn() {}, error() {} };
  const options = { host: '127.0.0.1', apiPort: 0, names: [], lasSocket: '/nowhere', balancers, seal, log };
  return { cas: await serveSealed(options), seal, ...made };
}
