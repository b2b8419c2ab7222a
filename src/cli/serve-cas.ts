import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { Entry } from '../audit/entry.ts';
import { followInto } from '../cas/audit-file.ts';
import type { AuditLog } from '../cas/audit-log.ts';
import type { Log } from '../cas/cas.ts';
import { BACKLOG } from '../cas/listen.ts';
import {
  type Answers,
  type Monitoring,
  type Question,
  serveMonitoring,
  type Watched,
} from '../cas/observe/monitoring.ts';
import { openRecorder } from '../cas/open-cas.ts';
import { serveCas } from '../cas/serve.ts';
import { openDatabase } from '../cas/store/open.ts';
import { isWorker, socketOfWorker, startWorkers, work } from '../cas/workers.ts';
import { causes, failure, reason } from '../errors.ts';
import { type ListeningSocket, openListeningSocket } from '../platform/listening-socket.ts';
import { defaultPorts, formatAddress, parseAddress } from '../policy/address.ts';
import { formatKeyHash } from '../policy/key-hash.ts';
import { withConfiguration } from './cas-configuration.ts';
import {
  type CasServeOptions,
  casOptions,
  changeable,
  readPort,
  readWorkers,
  storeOf,
} from './cas-options.ts';
import { openLog } from './log.ts';
import { print, protectMemory, untilSignal } from './server.ts';
import { unseal, unsealByPeople } from './unseal-cas.ts';

/** A CAS that runs, in this process or in others. */
interface Running {
  apiPort: number;
  enclavePort: number;
  /** Key hash, as people write it. */
  key: string;
  provisioningToken: string | undefined;
  /** Resolves when it is to forget its keys. */
  sealed: Promise<void>;
  reload(): void;
  watched: Watched;
  close(): Promise<void>;
}

/** `scone cas serve`: a CAS in the foreground. */
export async function runCas(given: CasServeOptions, command: Command): Promise<void> {
  protectMemory();
  process.umask(0o077);
  const read = () => withConfiguration(given, command);
  const options = read();
  const log = openLog(options.logLevel, 'cas');
  // What is wrong with them is told before anything is made.
  readWorkers(options.workers);
  casOptions(options, log, '');
  const reload: Reload = async (reloadable) => {
    try {
      await reloadable.reload(changeable(read()));
      log.info({}, 'the configuration was read again');
    } catch (error) {
      log.error(
        { error: causes(error).join(': ') },
        'the configuration is not taken over, and nothing is changed',
      );
    }
  };
  if (isWorker)
    return work(async ({ rootKey }: { rootKey: string }, say, want) => {
      const sockets = { api: socketOfWorker(0), enclave: socketOfWorker(1) };
      const recorder = async (entry: Entry) => void (await want(entry));
      const own = { ...casOptions(options, log, rootKey), sockets, recorder };
      const { close, sealed, ...running } = await serveCas(own);
      void sealed.then(() => say('sealed'));
      return {
        ready: { ...running, key: formatKeyHash(running.key) },
        told: () => void reload(running),
        asked: (question) => running.answer(question as Question),
        end: close,
      };
    }, log);

  const end = untilSignal();
  const monitoring = options.metrics === undefined ? undefined : await monitor(options.metrics, log);
  void end.then(() => monitoring?.show('SHUTTING_DOWN'));
  try {
    await serveUntil(end, options, log, reload, monitoring);
  } finally {
    await monitoring?.close();
  }
}

type Reload = (reloadable: { reload: Awaited<ReturnType<typeof serveCas>>['reload'] }) => Promise<void>;

/** Has a CAS run until it is to end, and be unsealed by people each time that an owner seals it. */
async function serveUntil(
  end: Promise<void>,
  options: CasServeOptions,
  log: Log,
  reload: Reload,
  monitoring?: Monitoring,
): Promise<void> {
  const onSealed = () => monitoring?.show('SEALED');
  let ports: Ports = { apiPort: options.apiPort, enclavePort: options.enclavePort };
  let rootKey = await unseal(options, log, end, onSealed);
  while (rootKey) {
    const cas = await start({ ...options, ...ports }, log, rootKey, reload);
    const onHangup = () => cas.reload();
    process.on('SIGHUP', onHangup);
    ports = { apiPort: String(cas.apiPort), enclavePort: String(cas.enclavePort) };
    monitoring?.show(cas.watched);
    announce(options.host, cas);
    const why = await Promise.race([end.then(() => 'end'), cas.sealed.then(() => 'sealed')]);
    process.off('SIGHUP', onHangup);
    monitoring?.show(why === 'end' ? 'SHUTTING_DOWN' : 'NOT_RUNNING');
    await cas.close();
    if (why === 'end') return;
    log.warn({}, 'the CAS has forgotten its keys, as an owner wants');
    rootKey = await unsealByPeople({ ...options, ...ports }, log, end, [], onSealed);
  }
}

async function monitor(address: string, log: Log): Promise<Monitoring> {
  const monitoring = await serveMonitoring(parseAddress(address, defaultPorts.metrics, '--metrics'), log);
  log.info({ port: monitoring.port }, 'metrics and health can be asked for');
  return monitoring;
}

interface Ports {
  apiPort: string;
  enclavePort: string;
}

async function start(options: CasServeOptions, log: Log, rootKey: Buffer, reload: Reload): Promise<Running> {
  const count = readWorkers(options.workers);
  const key = rootKey.toString('base64');
  const record =
    count > 1 || options.auditLog !== undefined ? await openRecord(options, log, key) : undefined;
  try {
    const cas =
      count > 1 && record
        ? await startSeveral(count, options, key, record.audit, log)
        : await startOne(options, key, reload, log);
    return {
      ...cas,
      async close() {
        await cas.close();
        await record?.close();
      },
    };
  } catch (error) {
    await record?.close();
    throw error;
  }
}

async function startOne(
  options: CasServeOptions,
  rootKey: string,
  reload: Reload,
  log: Log,
): Promise<Running> {
  const cas = await serveCas(casOptions(options, log, rootKey));
  return {
    ...cas,
    key: formatKeyHash(cas.key),
    reload: () => void reload(cas),
    watched: { ask: async (question) => new Map([[process.pid, await cas.answer(question)]]) },
  };
}

async function startSeveral(
  count: number,
  options: CasServeOptions,
  rootKey: string,
  audit: Pick<AuditLog, 'record'>,
  log: Log,
): Promise<Running> {
  const api = await listen(options.host, readPort(options.apiPort, '--api-port'));
  const enclave = await listen(options.host, readPort(options.enclavePort, '--enclave-port'));
  const workers = await startWorkers<Omit<Running, 'sealed' | 'close' | 'watched'>>(
    count,
    { rootKey },
    [api, enclave],
    // They come from processes of this program, over a pipe that nobody else has.
    (entry) => audit.record(entry as Entry),
    log,
  );
  return {
    ...workers.ready,
    ...{ apiPort: api.port, enclavePort: enclave.port },
    sealed: workers.said('sealed'),
    reload: () => workers.tell({}),
    watched: {
      ask: <Asked extends Question>(question: Asked) =>
        workers.ask(question) as Promise<Map<number, Answers[Asked]>>,
    },
    close: () => workers.stop(),
  };
}

/** The audit log in this process, for its workers, and for the file that it is appended to. */
async function openRecord(options: CasServeOptions, log: Log, rootKey: string) {
  const database = await openDatabase(storeOf(options));
  try {
    const audit = await openRecorder(database, casOptions(options, log, rootKey));
    const file =
      options.auditLog === undefined ? undefined : await followInto(resolve(options.auditLog), audit, log);
    return {
      audit,
      async close() {
        await file?.stop();
        await database.close();
      },
    };
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** @throws Failure ADDRESS_IN_USE */
function listen(host: string, port: number): Promise<ListeningSocket> {
  return openListeningSocket(host, port, BACKLOG).catch((error: unknown) => {
    throw failure('ADDRESS_IN_USE', { address: formatAddress({ host, port }), detail: reason(error) });
  });
}

function announce(host: string, { apiPort, enclavePort, key, provisioningToken }: Running): void {
  print(
    `CAS ready at https://${formatAddress({ host, port: apiPort })}/, launchers at port ${enclavePort}`,
    `CAS key hash: ${key}`,
    ...(provisioningToken === undefined ? [] : [`CAS provisioning token: ${provisioningToken}`]),
  );
}
