import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { parseCollateral } from '../attestation/collateral.ts';
import type { TrustedTpms } from '../attestation/tpm/credential.ts';
import type { Log } from '../cas/cas.ts';
import type { Sources } from '../cas/collateral/source.ts';
import { readBalancers } from '../cas/limits/proxy-protocol.ts';
import { storeAddress } from '../cas/open-cas.ts';
import type { OtherCas } from '../cas/seal/other-cas.ts';
import type { CasOptions } from '../cas/serve.ts';
import { failure } from '../errors.ts';
import { defaultPorts, parseAddress } from '../policy/address.ts';
import { parseKeyHash } from '../policy/key-hash.ts';
import { readDigest } from './digest.ts';
import { readInput } from './input.ts';

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
  mebibytesPerClient: string;
  /** Addresses of balancers. */
  proxyProtocolFrom?: string[];
  /** File that the audit log is appended to. */
  auditLog?: string;
  /** HOST:PORT for metrics and health. */
  metrics?: string;
  /** Where traces go. */
  otlp?: string;
  logLevel: string;
}

export const storeOf = ({ store, dir }: CasServeOptions): string =>
  storeAddress({ store, directory: resolve(dir) });
export const keyFileOf = ({ keyFile, dir }: CasServeOptions): string =>
  keyFile ?? join(resolve(dir), 'master.key');

/** What is taken over while the CAS runs. */
export function changeable({ name = [], trustedPlatform = [] }: CasServeOptions) {
  return { names: name, trustedPlatforms: trustedPlatform.map((text) => readDigest(text, 'a LAS key')) };
}

export function casOptions(options: CasServeOptions, log: Log, rootKey: string): CasOptions {
  return {
    directory: resolve(options.dir),
    store: options.store,
    rootKey: Buffer.from(rootKey, 'base64'),
    host: options.host,
    apiPort: readPort(options.apiPort, '--api-port'),
    enclavePort: readPort(options.enclavePort, '--enclave-port'),
    ...changeable(options),
    balancers: balancersOf(options),
    lasSocket: options.las,
    sources: options.offline ? undefined : readSources(options),
    trustedTpms: readTpms(options),
    sessionsPerClient: readCount(options.sessionsPerClient, '--sessions-per-client'),
    mebibytesPerClient: readCount(options.mebibytesPerClient, '--mebibytes-per-client'),
    otlp: readCollector(options.otlp ?? process.env.OTEL_EXPORTER_OTLP_ENDPOINT),
    log,
  };
}

function readCount(text: string, option: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw failure('USAGE', { detail: `${option} takes a number, not ${JSON.stringify(text)}` });
}

function readCollector(text: string | undefined): string | undefined {
  if (!text) return undefined;
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return text;
  throw failure('USAGE', { detail: `--otlp takes the address of a collector, not ${JSON.stringify(text)}` });
}

const MOST_WORKERS = 64;

export function readWorkers(text: string): number {
  if (text === 'all') return Math.min(MOST_WORKERS, availableParallelism());
  if (/^[1-9]\d?$/.test(text) && Number(text) <= MOST_WORKERS) return Number(text);
  throw failure('USAGE', {
    detail: `--workers takes 1 to ${MOST_WORKERS}, or all, not ${JSON.stringify(text)}`,
  });
}

/** ADDRESS=KEYHASH */
export function readOtherCas(text: string): OtherCas {
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

export const balancersOf = ({ proxyProtocolFrom }: CasServeOptions) =>
  proxyProtocolFrom && readBalancers(proxyProtocolFrom);

export function readPort(text: string, option: string): number {
  if (!/^\d{1,5}$/.test(text) || Number(text) > 65535)
    throw failure('USAGE', { detail: `${option} takes a port, not ${JSON.stringify(text)}` });
  return Number(text);
}
