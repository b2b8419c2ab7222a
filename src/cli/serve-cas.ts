import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { parseCollateral } from '../attestation/collateral.ts';
import type { TrustedTpms } from '../attestation/tpm/credential.ts';
import type { Entry } from '../audit/entry.ts';
import { followInto } from '../cas/audit-file.ts';
import type { Log } from '../cas/cas.ts';
import type { Sources } from '../cas/collateral/source.ts';
import {
  type Answers,
  type Monitoring,
  type Question,
  serveMonitoring,
  type Watched,
} from '../cas/observe/monitoring.ts';
import { openRecorder, storeAddress } from '../cas/open-cas.ts';
import { askForRootKey, type OtherCas } from '../cas/seal/other-cas.ts';
import { describeMethods, openSeal, readSeal, type Seal } from '../cas/seal/record.ts';
import { type Unsealed, unsealBySelf } from '../cas/seal/unseal.ts';
import { serveSealed } from '../cas/sealed.ts';
import { BACKLOG, type CasOptions, serveCas } from '../cas/serve.ts';
import { checkNotMoved } from '../cas/store/move.ts';
import { openDatabase } from '../cas/store/open.ts';
import { openState } from '../cas/store/sql.ts';
import { isWorker, socketOfWorker, startWorkers, work } from '../cas/workers.ts';
import { causes, failure, reason } from '../errors.ts';
import { type ListeningSocket, openListeningSocket } from '../platform/listening-socket.ts';
import { makePrivateDirectory } from '../platform/private-file.ts';
import { defaultPorts, formatAddress, parseAddress } from '../policy/address.ts';
import { formatKeyHash, parseKeyHash } from '../policy/key-hash.ts';
import { withConfiguration } from './cas-configuration.ts';
import { readDigest } from './digest.ts';
import { readInput } from './input.ts';
import { openLog } from './log.ts';
import { print, protectMemory, untilSignal } from './server.ts';

/** Options of `scone cas serve`. */
export interface CasServeOptions {
  config?: string;
  dir: string;
  store?: string;
  keyFile?: string;
  passphraseFile?: string;
  unsealFrom?: string[];
  host: string;
  apiPort: string;
  enclavePort: string;
  name?: string[];
  trustedPlatform?: string[];
  las: string;
  pccs: string;
  pccsCa?: string;
  kds: string;
  offline?: boolean;
  tpmRoots?: string;
  trustedTpm?: string[];
  /** Processes: a number, or `all` for one on each core. */
  workers: string;
  sessionsPerClient: string;
  /** File that the audit log is appended to. */
  auditLog?: string;
  /** HOST:PORT for metrics and health. */
  metrics?: string;
  /** Where traces go. */
  otlp?: string;
  logLevel: string;
}

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
  if (count === 1) {
    const cas = await serveCas(casOptions(options, log, key));
    const record = options.auditLog === undefined ? undefined : await openRecord(options, log, key);
    return {
      ...cas,
      async close() {
        await cas.close();
        await record?.close();
      },
      key: formatKeyHash(cas.key),
      reload: () => void reload(cas),
      watched: { ask: async (question) => new Map([[process.pid, await cas.answer(question)]]) },
    };
  }
  const record = await openRecord(options, log, key);
  const api = await listen(options.host, readPort(options.apiPort, '--api-port'));
  const enclave = await listen(options.host, readPort(options.enclavePort, '--enclave-port'));
  const workers = await startWorkers<Omit<Running, 'sealed' | 'close' | 'watched'>>(
    count,
    { rootKey: key },
    [api, enclave],
    // They come from processes of this program, over a pipe that nobody else has.
    (entry) => record.audit.record(entry as Entry),
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
    async close() {
      await workers.stop();
      await record.close();
    },
  };
}

/** The audit log in this process, for its workers, and for the file that it is appended to. */
async function openRecord(options: CasServeOptions, log: Log, rootKey: string) {
  const database = await openDatabase(storeOf(options));
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

/**
 * Opens the store: by what is here, by another CAS, or by people.
 * @returns undefined where it is to end before
 */
async function unseal(
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
      unsealed = await unsealBySelf(database, means);
    } catch (error) {
      const seal = others.length > 0 ? await readSeal(openState(database)) : undefined;
      if (!seal) throw error;
      unsealed = { seal, reasons: [causes(error).join(': ')] };
    }
    if ('rootKey' in unsealed) return unsealed;
    const { rootKey, reasons } = await askOthers(options, unsealed.seal, log);
    return rootKey ? { rootKey } : { ...unsealed, reasons: [...unsealed.reasons, ...reasons] };
  } finally {
    await database.close();
  }
}

/** Asks the CASes that this one may be registered at, one after the other. */
async function askOthers(
  { unsealFrom = [], las }: CasServeOptions,
  seal: Seal,
  log: Log,
): Promise<{ rootKey?: Buffer; reasons: string[] }> {
  const reasons: string[] = [];
  for (const other of unsealFrom.map(readOtherCas))
    try {
      const rootKey = await askForRootKey(other, las);
      // One that has not heard of new methods yet has the key from before.
      openSeal(seal, rootKey);
      log.info({ other: formatAddress(other.address) }, 'another CAS has given the root key');
      return { rootKey, reasons };
    } catch (error) {
      reasons.push(`${formatAddress(other.address)}: ${causes(error).join(': ')}`);
    }
  return { reasons };
}

async function unsealByPeople(
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
  });
  onSealed();
  const address = formatAddress({ host: options.host, port: sealed.apiPort });
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

/** Milliseconds between two questions of a CAS that is sealed to others. */
const ASK_AGAIN = 5_000;

const storeOf = ({ store, dir }: CasServeOptions): string => storeAddress({ store, directory: resolve(dir) });
const keyFileOf = ({ keyFile, dir }: CasServeOptions): string => keyFile ?? join(resolve(dir), 'master.key');

/** What is taken over while the CAS runs. */
function changeable({ name = [], trustedPlatform = [] }: CasServeOptions) {
  return { names: name, trustedPlatforms: trustedPlatform.map((text) => readDigest(text, 'a LAS key')) };
}

function casOptions(options: CasServeOptions, log: Log, rootKey: string): CasOptions {
  return {
    directory: resolve(options.dir),
    store: options.store,
    rootKey: Buffer.from(rootKey, 'base64'),
    host: options.host,
    apiPort: readPort(options.apiPort, '--api-port'),
    enclavePort: readPort(options.enclavePort, '--enclave-port'),
    ...changeable(options),
    lasSocket: options.las,
    sources: options.offline ? undefined : readSources(options),
    trustedTpms: readTpms(options),
    sessionsPerClient: readCount(options.sessionsPerClient),
    otlp: readCollector(options.otlp ?? process.env.OTEL_EXPORTER_OTLP_ENDPOINT),
    log,
  };
}

function readCount(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw failure('USAGE', { detail: `--sessions-per-client takes a number, not ${JSON.stringify(text)}` });
}

function readCollector(text: string | undefined): string | undefined {
  if (!text) return undefined;
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return text;
  throw failure('USAGE', { detail: `--otlp takes the address of a collector, not ${JSON.stringify(text)}` });
}

const MOST_WORKERS = 64;

function readWorkers(text: string): number {
  if (text === 'all') return Math.min(MOST_WORKERS, availableParallelism());
  if (/^[1-9]\d?$/.test(text) && Number(text) <= MOST_WORKERS) return Number(text);
  throw failure('USAGE', {
    detail: `--workers takes 1 to ${MOST_WORKERS}, or all, not ${JSON.stringify(text)}`,
  });
}

/** ADDRESS=KEYHASH */
function readOtherCas(text: string): OtherCas {
  const [addressText = '', keyText = ''] = text.split('=', 2);
  return {
    address: parseAddress(addressText, defaultPorts.api, '--unseal-from'),
    key: parseKeyHash(keyText, '--unseal-from'),
  };
}

const LARGEST_CERTIFICATES = 4 * 1024 * 1024;

function readSources({ pccs, pccsCa, kds }: CasServeOptions): Sources {
  const address = (text: string, option: string) => {
    const url = URL.canParse(text) ? new URL(text) : undefined;
    const isLocal = url?.protocol === 'http:' && /^(localhost|127\.0\.0\.1|\[::1\])$/.test(url.hostname);
    if (url && (url.protocol === 'https:' || isLocal)) return url;
    throw failure('USAGE', { detail: `${option} takes an https address, not ${JSON.stringify(text)}` });
  };
  return {
    pccs: address(pccs, '--pccs'),
    kds: address(kds, '--kds'),
    ...(pccsCa !== undefined && { pccsCa: readInput(pccsCa, LARGEST_CERTIFICATES).toString() }),
  };
}

/** Certificates that have signed themselves are the roots; the others lead to them. */
function readTpms({ tpmRoots, trustedTpm = [] }: CasServeOptions): TrustedTpms {
  const files =
    tpmRoots === undefined ? [] : [{ name: tpmRoots, bytes: readInput(tpmRoots, LARGEST_CERTIFICATES) }];
  const { certificates, revocationLists } = parseCollateral(files);
  const roots = certificates.filter(({ subject, issuer }) => subject === issuer);
  if (files.length > 0 && roots.length === 0)
    throw failure('FILE_INVALID', { path: tpmRoots ?? '', detail: 'there is no root certificate in it' });
  return {
    certificates,
    revocationLists,
    roots: new Set(roots.map(({ fingerprint }) => fingerprint)),
    trustedKeys: trustedTpm.map((text) => readDigest(text.replace(/^TPM_EK:/, ''), 'an endorsement key')),
  };
}

function readPort(text: string, option: string): number {
  if (!/^\d{1,5}$/.test(text) || Number(text) > 65535)
    throw failure('USAGE', { detail: `${option} takes a port, not ${JSON.stringify(text)}` });
  return Number(text);
}
