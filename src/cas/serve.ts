import { createPublicKey } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { noTpms, type TrustedTpms } from '../attestation/tpm/credential.ts';
import { introduce } from '../audit/introduction.ts';
import { failure, reason } from '../errors.ts';
import { makePrivateDirectory } from '../platform/private-file.ts';
import { formatAddress } from '../policy/address.ts';
import { publicKeyDigest } from '../policy/key-hash.ts';
import { version } from '../version.ts';
import { createApi } from './api.ts';
import { openAuditLog } from './audit-log.ts';
import type { Cas, Log } from './cas.ts';
import { openCollateral } from './collateral.ts';
import type { Sources } from './collateral-source.ts';
import { openEncryptionKey, openIdentity } from './identity.ts';
import { keyring as createKeyring } from './keyring.ts';
import { createLaunchPort } from './launch-port.ts';
import { openMachineNonces } from './machine-nonce.ts';
import { followNews } from './news.ts';
import { createOtherCases } from './other-cas.ts';
import { openSeal, readSeal } from './seal/record.ts';
import { unsealBySelf } from './seal/unseal.ts';
import type { Database } from './store/database.ts';
import { checkNotMoved } from './store/move.ts';
import { openDatabase } from './store/open.ts';
import { codeRows, openState, openStore } from './store/sql.ts';
import { createWatches } from './watch.ts';

export interface CasOptions {
  /** Folder with everything the CAS keeps. */
  directory: string;
  /** Its database, as openDatabase takes it; absent: a file in the folder. */
  store?: string | undefined;
  /** Opens the store; absent: what is in the folder does. */
  rootKey?: Buffer | undefined;
  /** Address to listen on. */
  host: string;
  /** 0 is any free port. */
  apiPort: number;
  enclavePort: number;
  /** Further host names and addresses for the certificate. */
  names: readonly string[];
  /** LAS keys that the operator trusts, hexadecimal. */
  trustedPlatforms: readonly string[];
  /** The LAS that vouches for this CAS. */
  lasSocket: string;
  /** Where collateral is fetched from; absent: nowhere. */
  sources?: Sources | undefined;
  /** Whose TPMs may be enrolled. */
  trustedTpms?: TrustedTpms | undefined;
  /** SHA-256 of the root certificates of hardware, instead of the makers' own. */
  hardwareRoots?: ReadonlySet<string> | undefined;
  log: Log;
}

export interface RunningCas {
  apiPort: number;
  enclavePort: number;
  /** SHA-256 of the CAS's public key. */
  key: Buffer;
  close(): Promise<void>;
}

/**
 * Starts a CAS, making what it keeps on the first start.
 * @throws Failure STATE_UNUSABLE, STATE_SEALED or ADDRESS_IN_USE
 */
export async function serveCas(options: CasOptions): Promise<RunningCas> {
  makePrivateDirectory(options.directory);
  const database = await openDatabase(options.store ?? `sqlite:${join(options.directory, 'cas.db')}`);
  try {
    await checkNotMoved(database);
    const rootKey = options.rootKey ?? (await rootKeyByFile(database, options));
    const readKeys = async () => {
      const seal = await readSeal(openState(database));
      if (!seal) throw failure('SEAL_DAMAGED', { detail: 'it is missing' });
      return openSeal(seal, rootKey);
    };
    const keyring = createKeyring(await readKeys());
    const store = openStore(database, keyring.authenticate);
    await codeRows(database, keyring.authenticate);
    const identity = await openIdentity(store, keyring, options.names, Date.now());
    const key = publicKeyDigest(createPublicKey(identity.certificate));
    const audit = await openAuditLog({ database, store, keyring, cas: key, clock: Date.now });
    const cas: Cas = {
      store,
      audit,
      keyring,
      key,
      encryptionKey: await openEncryptionKey(store, keyring),
      otherCases: createOtherCases(identity),
      watches: createWatches(Date.now),
      collateral: await openCollateral({ ...options, roots: options.hardwareRoots, store, clock: Date.now }),
      hardwareRoots: options.hardwareRoots,
      machineNonces: await openMachineNonces(store, keyring),
      trustedTpms: options.trustedTpms ?? noTpms,
      trustedPlatforms: options.trustedPlatforms,
      clock: Date.now,
      log: options.log,
    };
    const self = { host: hostname(), pid: process.pid };
    const listening = async (port: number, start: () => Promise<number>) => {
      try {
        return await start();
      } catch (error) {
        const address = formatAddress({ host: options.host, port });
        throw failure('ADDRESS_IN_USE', { address, detail: reason(error) });
      }
    };
    const api = createApi(cas, identity, options.lasSocket);
    const apiPort = await listening(options.apiPort, async () => {
      await api.listen({ host: options.host, port: options.apiPort });
      return (api.server.address() as AddressInfo).port;
    });
    const launchPort = createLaunchPort(cas, identity);
    const enclavePort = await listening(
      options.enclavePort,
      () =>
        new Promise((resolve, reject) => {
          launchPort.server.once('error', reject);
          launchPort.server.listen(options.enclavePort, options.host, () =>
            resolve((launchPort.server.address() as AddressInfo).port),
          );
        }),
    ).catch(async (error) => {
      await api.close();
      throw error;
    });
    await audit.record({ operation: 'cas_started', ...self, version, ...introduce(audit, identity) });
    const news = followNews(cas, audit, { newKeys: async () => keyring.use(await readKeys()) });
    return {
      apiPort,
      enclavePort,
      key,
      async close() {
        news.stop();
        cas.collateral.close();
        await Promise.all([api.close(), launchPort.close()]);
        await audit.record({ operation: 'cas_stopped', ...self }).catch((error: unknown) => {
          options.log.warn({ error: reason(error) }, 'that this CAS stops could not be recorded');
        });
        await database.close();
      },
    };
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** @throws Failure CAS_SEALED where people have to open the store */
async function rootKeyByFile(database: Database, { directory }: CasOptions): Promise<Buffer> {
  const keyFile = join(directory, 'master.key');
  const unsealed = await unsealBySelf(database, { keyFile, directory, env: process.env });
  if ('rootKey' in unsealed) return unsealed.rootKey;
  throw failure('CAS_SEALED');
}
