import { join } from 'node:path';
import { noTpms } from '../attestation/tpm/credential.ts';
import { failure } from '../errors.ts';
import type { Identity } from '../protocol/certificate.ts';
import { type AuditLog, openAuditLog } from './audit-log.ts';
import type { Cas, Operator } from './cas.ts';
import { openCollateral } from './collateral/collateral.ts';
import { keyOf, openEncryptionKey, openIdentity } from './identity.ts';
import { keyring as createKeyring, type MasterKeys } from './keyring.ts';
import { MEBIBYTES_PER_CLIENT, SESSIONS_PER_CLIENT } from './limits/stored.ts';
import { openMachineNonces } from './machine-nonce.ts';
import { createOtherCases } from './other-cas.ts';
import { checkRestored } from './owner/backup.ts';
import { presentOwner, readOwner } from './owner/owner.ts';
import { type Fact, openFacts, requireFacts } from './seal/facts.ts';
import { openSeal, readSeal, type Seal } from './seal/record.ts';
import { unsealBySelf } from './seal/unseal.ts';
import type { CasOptions } from './serve.ts';
import { checkStore, requireWhole } from './store/check.ts';
import type { Database } from './store/database.ts';
import { checkNotMoved } from './store/move.ts';
import { codeRowsOf, openState, openStore } from './store/sql.ts';
import { createOpenedVersions } from './versions.ts';
import { createWatches } from './watch.ts';

/** A CAS without its ports. */
export interface OpenedCas {
  cas: Cas;
  audit: AuditLog;
  identity: Identity;
  rootKey: Buffer;
  /** How the store was sealed when it was opened. */
  seal: Seal;
  /** Reads the master keys, which other processes may have added to. */
  readKeys(): Promise<MasterKeys>;
}

export const storeAddress = ({ store, directory }: Pick<CasOptions, 'store' | 'directory'>): string =>
  store ?? `sqlite:${join(directory, 'cas.db')}`;

/** What a CAS keeps, and what opens it. */
async function openKept(database: Database, options: CasOptions) {
  await checkNotMoved(database);
  await checkRestored(database);
  const rootKey = options.rootKey ?? (await rootKeyByFile(database, options));
  const readPresent = async () => {
    const present = await readSeal(openState(database));
    if (present) return present;
    throw failure('SEAL_DAMAGED', { detail: 'it is missing' });
  };
  const seal = await readPresent();
  const readKeys = async () => openSeal(await readPresent(), rootKey, seal);
  const keys = openSeal(seal, rootKey);
  const keyring = createKeyring(keys);
  const { isOld } = await requireFacts(database, keys);
  const facts = openFacts(database, rootKey, seal);
  const store = openStore(database, keyring.authenticate);
  const kept = { store, keyring, facts };
  if (isOld) {
    // Where there is no owner, the log says whether there was one, and so whether the token is spent.
    if (!(await readOwner(kept))) requireWhole(database.name, (await checkStore(database, keyring)).problems);
    await noteBegun(kept);
    options.log.warn(
      {},
      'a version of before has begun this store: from now on, what it has is missed if it is gone',
    );
  }
  const settings = await settingsOf(kept, options);
  const identity = await openIdentity(store, keyring, settings, Date.now());
  const key = keyOf(identity);
  const { recorder } = options;
  const audit = await openAuditLog({ database, ...kept, cas: key, clock: Date.now, recorder });
  return { ...kept, audit, identity, key, rootKey, seal, readKeys };
}

/** Opens the audit log alone, for a process that writes it for others, or into a file. @throws Failure as openCas */
export async function openRecorder(
  database: Database,
  options: CasOptions,
): Promise<Pick<AuditLog, 'record' | 'lines'>> {
  return (await openKept(database, options)).audit;
}

/** Opens everything that a CAS works with. @throws Failure STORE_*, SEAL_DAMAGED, CAS_SEALED or AUDIT_LOG_DAMAGED */
export async function openCas(database: Database, options: CasOptions): Promise<OpenedCas> {
  const opened = await openKept(database, options);
  const { audit, identity, key, rootKey, seal, readKeys, ...kept } = opened;
  const { store, keyring } = kept;
  const cas: Cas = {
    ...kept,
    audit,
    opened: createOpenedVersions(),
    key,
    encryptionKey: await openEncryptionKey(store, keyring),
    otherCases: createOtherCases(identity),
    watches: createWatches(Date.now),
    collateral: await openCollateral({ ...options, roots: options.hardwareRoots, store, clock: Date.now }),
    hardwareRoots: options.hardwareRoots,
    machineNonces: await openMachineNonces(store, keyring),
    trustedTpms: options.trustedTpms ?? noTpms,
    operator: options,
    sessionsPerClient: options.sessionsPerClient ?? SESSIONS_PER_CLIENT,
    mebibytesPerClient: options.mebibytesPerClient ?? MEBIBYTES_PER_CLIENT,
    clock: Date.now,
    log: options.log,
  };
  return { cas, audit, identity, rootKey, seal, readKeys };
}

/** Notes that a store has its keys, its audit log, and its owner where there is one. */
export async function noteBegun(cas: Pick<Cas, 'store' | 'keyring' | 'facts'>): Promise<void> {
  const isOwned = (await readOwner(cas)) !== undefined;
  const facts: Fact[] = isOwned ? ['begun', 'provisioned'] : ['begun'];
  for (const fact of facts) if (!(await cas.facts.has(fact))) return cas.facts.note(facts);
}

/** What the certificate of a CAS says: what the operator wants, and the owner. */
export async function settingsOf(
  kept: Pick<Cas, 'store' | 'keyring' | 'facts'>,
  { names }: Pick<Operator, 'names'>,
): Promise<{ commonName: string; names: string[] }> {
  const { api_identity } = (await presentOwner(kept))?.configuration ?? {};
  return {
    commonName: api_identity?.common_name ?? 'cas',
    names: [...names, ...(api_identity?.alt_names ?? [])],
  };
}

/** @throws Failure CAS_SEALED where people have to open the store */
async function rootKeyByFile(database: Database, { directory }: CasOptions): Promise<Buffer> {
  const keyFile = join(directory, 'master.key');
  const means = { keyFile, directory, env: process.env };
  const unsealed = await unsealBySelf(openState(database), means, codeRowsOf(database));
  if ('rootKey' in unsealed) return unsealed.rootKey;
  throw failure('CAS_SEALED');
}
