import { rmSync } from 'node:fs';
import { availableParallelism, homedir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Property } from '../attestation/claims.ts';
import { parseCollateral } from '../attestation/collateral.ts';
import type { TrustedTpms } from '../attestation/tpm/credential.ts';
import type { Sources } from '../cas/collateral-source.ts';
import { type CasOptions, serveCas } from '../cas/serve.ts';
import { isWorker, startWorkers, work } from '../cas/workers.ts';
import { failure } from '../errors.ts';
import { openLasKey } from '../las/key.ts';
import { openMachine } from '../las/machine.ts';
import { serveLas } from '../las/serve.ts';
import { forbidCoreDumps, makeNonDumpable } from '../platform/libc.ts';
import { type Mode, readMode } from '../platform/mode.ts';
import { makePrivateDirectory, writePrivate } from '../platform/private-file.ts';
import { defaultPorts, formatAddress, parseAddress } from '../policy/address.ts';
import { formatKeyHash, parseKeyHash } from '../policy/key-hash.ts';
import { pinnedKey } from '../protocol/client-state.ts';
import { readDigest } from './digest.ts';
import { readInput } from './input.ts';
import { openLog } from './log.ts';
import { shellQuote } from './shell.ts';

/** Options of `scone cas serve`. */
export interface CasServeOptions {
  dir: string;
  store?: string;
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
  logLevel: string;
}

/** `scone cas serve`: a CAS in the foreground. */
export async function runCas(options: CasServeOptions): Promise<void> {
  protectMemory();
  process.umask(0o077);
  const log = openLog(options.logLevel, 'cas');
  const serve = () => serveCas(casOptions(options, log));
  const count = readWorkers(options.workers);
  if (isWorker)
    return work(async () => {
      const { close, ...ready } = await serve();
      return { ready: { ...ready, key: formatKeyHash(ready.key) }, told() {}, end: close };
    });
  if (count === 1) {
    const cas = await serve();
    const end = untilSignal();
    announce(options.host, { ...cas, key: formatKeyHash(cas.key) });
    await end;
    return cas.close();
  }
  const workers = await startWorkers<ReadyCas>(count, {}, log);
  const end = untilSignal();
  announce(options.host, workers.ready);
  await end;
  await workers.stop();
}

interface ReadyCas {
  apiPort: number;
  enclavePort: number;
  /** Key hash, as people write it. */
  key: string;
}

function announce(host: string, { apiPort, enclavePort, key }: ReadyCas): void {
  print(
    `CAS ready at https://${formatAddress({ host, port: apiPort })}/, launchers at port ${enclavePort}`,
    `CAS key hash: ${key}`,
  );
}

function casOptions(options: CasServeOptions, log: CasOptions['log']): CasOptions {
  return {
    directory: resolve(options.dir),
    store: options.store,
    host: options.host,
    apiPort: readPort(options.apiPort, '--api-port'),
    enclavePort: readPort(options.enclavePort, '--enclave-port'),
    names: options.name ?? [],
    trustedPlatforms: (options.trustedPlatform ?? []).map((text) => readDigest(text, 'a LAS key')),
    lasSocket: options.las,
    sources: options.offline ? undefined : readSources(options),
    trustedTpms: readTpms(options),
    log,
  };
}

const MOST_WORKERS = 64;

function readWorkers(text: string): number {
  if (text === 'all') return Math.min(MOST_WORKERS, availableParallelism());
  if (/^[1-9]\d?$/.test(text) && Number(text) <= MOST_WORKERS) return Number(text);
  throw failure('USAGE', {
    detail: `--workers takes 1 to ${MOST_WORKERS}, or all, not ${JSON.stringify(text)}`,
  });
}

/** Options of `scone las serve`. */
export interface LasServeOptions {
  dir: string;
  socket: string;
  cas?: string[];
  require?: Property[];
  containers?: boolean;
  mode: Mode;
  logLevel: string;
}

/** `scone las serve`: a LAS in the foreground. */
export async function runLas(options: LasServeOptions): Promise<void> {
  protectMemory();
  const directory = resolve(options.dir);
  const log = openLog(options.logLevel, 'las');
  const key = openLasKey(join(directory, 'las.key'));
  const machine = await openMachine({ mode: options.mode, directory, env: process.env, log });
  const las = await serveLas({
    socket: resolve(options.socket),
    key,
    machine,
    casKeys: new Map((options.cas ?? []).map(readCas)),
    demands: { require: options.require ?? [], containers: options.containers ?? false },
    log,
  });
  const end = untilSignal();
  print(
    `LAS ready at ${resolve(options.socket)}`,
    ...(machine
      ? [
          `Root of trust: ${machine.root}. The key of this LAS is new each time it starts; policies name the machine.`,
        ]
      : [`LAS key (platform): ${key.platform}`, SOFTWARE_ROOT]),
  );
  await end;
  await las.close();
}

export interface UpOptions {
  dir?: string;
  freePorts?: boolean;
  logLevel: string;
}

/** `scone up`: a CAS and a LAS for one machine, everything they keep in one folder. */
export async function up(options: UpOptions): Promise<void> {
  if (readMode(process.env) === 'hw')
    throw failure('HARDWARE_MISSING', {
      detail: '`scone up` has a LAS in software; start servers by themselves',
    });
  protectMemory();
  process.umask(0o077);
  const host = 'localhost';
  const directory = resolve(options.dir ?? defaultDirectory(process.env));
  makePrivateDirectory(directory);
  const environment = join(directory, 'env');
  const socket = join(directory, 'las.sock');
  const log = openLog(options.logLevel, 'scone');
  const key = openLasKey(join(directory, 'las', 'las.key'));
  const casKeys = new Map<string, string>();
  const las = await serveLas({ socket, key, casKeys, demands: { require: [], containers: false }, log });
  // Now that no other LAS answers there, what it left behind is of no use.
  rmSync(environment, { force: true });
  try {
    const cas = await serveCas({
      directory: join(directory, 'cas'),
      host: '127.0.0.1',
      apiPort: options.freePorts ? 0 : defaultPorts.api,
      enclavePort: options.freePorts ? 0 : defaultPorts.enclave,
      names: [],
      trustedPlatforms: [key.platform],
      lasSocket: socket,
      log,
    });
    try {
      casKeys.set(formatAddress({ host, port: cas.enclavePort }), formatKeyHash(cas.key));
      const variables = {
        SCONE_CAS_ADDR: host,
        SCONE_CAS_API_PORT: cas.apiPort,
        SCONE_CAS_ENCLAVE_PORT: cas.enclavePort,
        SCONE_LAS_ADDR: socket,
      };
      const lines = Object.entries(variables).map(
        ([name, value]) => `export ${name}=${shellQuote(String(value))}\n`,
      );
      writePrivate(environment, Buffer.from(lines.join('')), 'replace');
      const end = untilSignal();
      print(
        `CAS ready at https://${formatAddress({ host, port: cas.apiPort })}/, launchers at port ${cas.enclavePort}`,
        `CAS key hash: ${formatKeyHash(cas.key)}`,
        `LAS ready at ${socket}`,
        `LAS key (platform): ${key.platform}`,
        SOFTWARE_ROOT,
        `To use them: . ${shellQuote(environment)}`,
      );
      await end;
    } finally {
      rmSync(environment, { force: true });
      await cas.close();
    }
  } finally {
    await las.close();
  }
}

const SOFTWARE_ROOT =
  'The LAS is a software root of trust: it proves nothing against the administrator of this machine.';

function defaultDirectory(env: NodeJS.ProcessEnv): string {
  return join(env.XDG_STATE_HOME || join(env.HOME || homedir(), '.local', 'state'), 'scone');
}

/**
 * No core dump holds what is in memory, and as root no other process reads it. As an ordinary user, that user's
 * processes can read the key files as well, and a LAS of that user has to look at the CAS.
 */
function protectMemory(): void {
  forbidCoreDumps();
  if (process.getuid?.() === 0) makeNonDumpable();
}

/** To be called before anything is said to be ready: who reads that may send one at once. */
function untilSignal(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
  });
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

/** ADDRESS or ADDRESS=KEYHASH; without the hash, the CAS must have been attested by this user. */
function readCas(text: string): [string, string] {
  const [addressText = '', keyText] = text.split('=', 2);
  const address = parseAddress(addressText, defaultPorts.enclave, '--cas');
  const key = keyText === undefined ? pinnedKey(process.env, address) : parseKeyHash(keyText, '--cas');
  if (!key) throw failure('CAS_KEY_UNKNOWN', { address: addressText, host: address.host });
  return [formatAddress(address), formatKeyHash(key)];
}

function print(...lines: string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}
