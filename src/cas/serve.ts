import type { BlockList } from 'node:net';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Server as TlsServer } from 'node:tls';
import type { FastifyInstance } from 'fastify';
import type { TrustedTpms } from '../attestation/tpm/credential.ts';
import type { Entry } from '../audit/entry.ts';
import { introduce } from '../audit/introduction.ts';
import { reason } from '../errors.ts';
import { makePrivateDirectory } from '../platform/private-file.ts';
import { version } from '../version.ts';
import { createApi } from './api.ts';
import type { Log } from './cas.ts';
import type { Sources } from './collateral/source.ts';
import { API_TLS } from './http.ts';
import { openIdentity } from './identity.ts';
import { createLaunchPort, LAUNCH_TLS } from './launch-port.ts';
import { listen } from './listen.ts';
import { followNews } from './news.ts';
import { observeDatabase } from './observe/database.ts';
import { watchTables } from './observe/tables.ts';
import { startTracing, stopTracing } from './observe/tracing.ts';
import { watchSelf } from './observe/watched.ts';
import { noteBegun, openCas, settingsOf, storeAddress } from './open-cas.ts';
import { provisioningToken } from './owner/owner.ts';
import type { Control } from './owner/routes.ts';
import { rotate } from './seal/rotate.ts';
import { openDatabase } from './store/open.ts';

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
  /** Descriptors of sockets to accept connections on, instead. */
  sockets?: { api: number; enclave: number };
  /** Whose connections begin with whom they are from (PROXY protocol, version 2). */
  balancers?: BlockList | undefined;
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
  /** How many sessions one client may create; absent: {@link SESSIONS_PER_CLIENT}. */
  sessionsPerClient?: number | undefined;
  /** How much all versions may have that one client has uploaded; absent: {@link MEBIBYTES_PER_CLIENT}. */
  mebibytesPerClient?: number | undefined;
  /** Writes the audit log in the place of this process. */
  recorder?: ((entry: Entry) => Promise<void>) | undefined;
  /** Where traces go, as startTracing takes it; absent: none are made. */
  otlp?: string | undefined;
  log: Log;
}

export interface RunningCas {
  apiPort: number;
  enclavePort: number;
  /** SHA-256 of the CAS's public key. */
  key: Buffer;
  /** What whoever makes it his own must know; undefined once it has an owner. */
  provisioningToken: string | undefined;
  /** Resolves when an owner has it forget its keys. */
  sealed: Promise<void>;
  /** Answers whoever watches it. */
  answer: ReturnType<typeof watchSelf>['answer'];
  /** Takes over what may change while it runs. @throws Failure, and then nothing was changed */
  reload(changes: Pick<CasOptions, 'names' | 'trustedPlatforms'>): Promise<void>;
  close(): Promise<void>;
}

/** Milliseconds that requests in hand have when the CAS ends. */
const GRACE = 30_000;
/** Milliseconds between two looks for connections that are done. */
const LOOK = 50;
const DAY = 24 * 3600 * 1000;
/** Milliseconds between two looks at the log by all processes, and some more. */
const NOTICE = 3_000;

/**
 * Starts a CAS, making what it keeps on the first start.
 * @throws Failure STATE_UNUSABLE, STATE_SEALED, STORE_*, CAS_SEALED or ADDRESS_IN_USE
 */
export async function serveCas(options: CasOptions): Promise<RunningCas> {
  makePrivateDirectory(options.directory);
  const { log } = options;
  const database = observeDatabase(await openDatabase(storeAddress(options)));
  try {
    if (options.otlp !== undefined) await startTracing(options.otlp);
    const { cas, audit, rootKey, seal, readKeys, ...opened } = await openCas(database, options);
    const sealed = Promise.withResolvers<void>();
    let { identity } = opened;
    const control: Control = {
      database,
      rootKey,
      seal: sealed.resolve,
      async rotate() {
        const announce = async () => {
          await audit.record({ operation: 'keys_rotated' });
          await sleep(NOTICE);
        };
        return rotate({ database, rootKey, opened: seal, keyring: cas.keyring, announce });
      },
    };
    const api = createApi(cas, { identity: () => identity, lasSocket: options.lasSocket, control });
    const launchPort = createLaunchPort(cas, identity);
    await api.ready();
    const { host, sockets, balancers } = options;
    const apiPort = await listen(
      api.server,
      sockets ? { fd: sockets.api } : { host, port: options.apiPort },
      balancers,
      log,
    );
    const enclavePort = await listen(
      launchPort.server,
      sockets ? { fd: sockets.enclave } : { host, port: options.enclavePort },
      balancers,
      log,
    ).catch(async (error) => {
      api.server.close();
      throw error;
    });

    /** What operator and owner say, and a certificate that runs out before long. */
    const refresh = async () => {
      const settings = await settingsOf(cas, cas.operator);
      const renewed = await openIdentity(cas.store, cas.keyring, settings, Date.now());
      if (renewed.certificate === identity.certificate) return;
      identity = renewed;
      const context = { key: identity.key, cert: identity.certificate };
      (api.server as unknown as TlsServer).setSecureContext({ ...context, ...API_TLS });
      launchPort.server.setSecureContext({ ...context, ...LAUNCH_TLS });
      log.info({}, 'the certificate was made anew');
    };
    const newConfiguration = async () => {
      await refresh();
      // A replica of 0.1.0 does not note that there is an owner.
      await noteBegun(cas);
    };
    const daily = setInterval(
      () => void refresh().catch((error: unknown) => log.warn({ error: reason(error) }, 'not refreshed')),
      DAY,
    ).unref();
    const tables = watchTables(database, log);
    const watched = watchSelf({ cas, database, identity: () => identity, held: launchPort.held });
    const self = { host: hostname(), pid: process.pid };
    await audit.record({ operation: 'cas_started', ...self, version, ...introduce(audit, identity) });
    await noteBegun(cas);
    const news = followNews(cas, audit, {
      newKeys: async () => cas.keyring.use(await readKeys()),
      newConfiguration,
      sealed: sealed.resolve,
    });
    return {
      apiPort,
      enclavePort,
      key: cas.key,
      provisioningToken: await provisioningToken(cas),
      sealed: sealed.promise,
      answer: watched.answer,
      async reload(changes) {
        const before = cas.operator;
        cas.operator = changes;
        await refresh().catch((error: unknown) => {
          cas.operator = before;
          throw error;
        });
      },
      async close() {
        news.stop();
        watched.stop();
        tables.stop();
        clearInterval(daily);
        cas.collateral.close();
        await Promise.all([closeApi(api), launchPort.close()]);
        await audit.record({ operation: 'cas_stopped', ...self }).catch((error: unknown) => {
          log.warn({ error: reason(error) }, 'that this CAS stops could not be recorded');
        });
        await database.close();
        await stopTracing();
      },
    };
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** Accepts nothing any more, and ends when what was asked for is answered, or some time has passed. */
async function closeApi(api: FastifyInstance): Promise<void> {
  const closed = new Promise((resolve) => api.server.close(resolve));
  const late = setTimeout(() => api.server.closeAllConnections(), GRACE);
  // Connections that a client would use again become idle one by one.
  const idle = setInterval(() => api.server.closeIdleConnections(), LOOK);
  await closed;
  clearInterval(idle);
  clearTimeout(late);
  await api.close();
}
