import type { Command } from 'commander';
import { parse, TomlError } from 'smol-toml';
import * as v from 'valibot';
import { failure } from '../errors.ts';
import type { CasServeOptions } from './cas-options.ts';
import { readInput } from './input.ts';
import type { Output } from './output.ts';

/**
 * What the administrator of a host says about the CAS on it (TOML 1.0): where it keeps its store, where it listens, whom it
 * asks. What security rests on is said by the owner (cas/owner/configuration.ts).
 */
const text = v.pipe(v.string(), v.minLength(1), v.maxLength(4096));
const texts = v.pipe(v.array(text), v.maxLength(4096));
const count = v.pipe(v.number(), v.integer(), v.minValue(1));
const address = v.pipe(text, v.regex(/^(\[[0-9a-fA-F:.]+\]|[^:[\]]+):\d{1,5}$/, 'is HOST:PORT'));

const configuration = v.strictObject({
  database: v.optional(
    v.pipe(
      v.strictObject({ path: v.optional(text), url: v.optional(text) }),
      v.check(({ path, url }) => path === undefined || url === undefined, 'has path, or url'),
    ),
  ),
  api: v.optional(
    v.strictObject({
      api_listen: v.optional(address),
      enclave_listen: v.optional(address),
      proxy_protocol_from: v.optional(texts),
      names: v.optional(texts),
    }),
  ),
  processes: v.optional(
    v.strictObject({ workers: v.optional(v.union([v.pipe(v.number(), v.integer()), v.literal('all')])) }),
  ),
  seal: v.optional(
    v.strictObject({
      key_file: v.optional(text),
      passphrase_file: v.optional(text),
      from: v.optional(texts),
    }),
  ),
  las: v.optional(v.strictObject({ socket: v.optional(text), trusted_platforms: v.optional(texts) })),
  collateral: v.optional(
    v.strictObject({
      pccs: v.optional(text),
      pccs_ca: v.optional(text),
      kds: v.optional(text),
      offline: v.optional(v.boolean()),
    }),
  ),
  tpm: v.optional(v.strictObject({ roots: v.optional(text), trusted: v.optional(texts) })),
  audit_log: v.optional(v.strictObject({ path: v.optional(text) })),
  limits: v.optional(
    v.strictObject({ sessions_per_client: v.optional(count), mebibytes_per_client: v.optional(count) }),
  ),
  metrics: v.optional(v.strictObject({ listen: v.optional(address) })),
  telemetry: v.optional(v.strictObject({ otlp_endpoint: v.optional(text) })),
  log: v.optional(
    v.strictObject({
      level: v.optional(v.picklist(['trace', 'debug', 'info', 'warn', 'error', 'fatal'])),
    }),
  ),
});
type Configuration = v.InferOutput<typeof configuration>;

const LARGEST = 1024 * 1024;

/** @throws Failure FILE_INVALID with the line, or the key */
export function readCasConfiguration(path: string): Partial<CasServeOptions> {
  const invalid = (detail: string) => failure('FILE_INVALID', { path, detail });
  let content: unknown;
  try {
    content = parse(readInput(path, LARGEST).toString());
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [first] = error.message.split('\n');
    throw invalid(`line ${error.line}, column ${error.column}: ${first}`);
  }
  const parsed = v.safeParse(configuration, content);
  if (parsed.success) return optionsOf(parsed.output, invalid);
  const [issue] = parsed.issues;
  const at = v.getDotPath(issue) ?? 'the top';
  throw invalid(issue.type === 'strict_object' ? `${at} is no key of it` : `${at}: ${issue.message}`);
}

/** As options of the command; those that are not said are not there. */
function optionsOf(its: Configuration, invalid: (detail: string) => Error): Partial<CasServeOptions> {
  const { database, api, processes, seal, las, collateral, tpm, limits, metrics, telemetry, log } = its;
  const { audit_log: auditLog } = its;
  const [host, apiPort] = splitAddress(api?.api_listen);
  const [enclaveHost, enclavePort] = splitAddress(api?.enclave_listen);
  if (host !== undefined && enclaveHost !== undefined && host !== enclaveHost)
    throw invalid('api.api_listen and api.enclave_listen have the same host');
  const options = {
    store: database?.url ?? (database?.path === undefined ? undefined : `sqlite:${database.path}`),
    host: host ?? enclaveHost,
    apiPort,
    enclavePort,
    proxyProtocolFrom: api?.proxy_protocol_from,
    name: api?.names,
    workers: processes?.workers === undefined ? undefined : String(processes.workers),
    keyFile: seal?.key_file,
    passphraseFile: seal?.passphrase_file,
    unsealFrom: seal?.from,
    las: las?.socket,
    trustedPlatform: las?.trusted_platforms,
    pccs: collateral?.pccs,
    pccsCa: collateral?.pccs_ca,
    kds: collateral?.kds,
    offline: collateral?.offline,
    tpmRoots: tpm?.roots,
    trustedTpm: tpm?.trusted,
    auditLog: auditLog?.path,
    sessionsPerClient:
      limits?.sessions_per_client === undefined ? undefined : String(limits.sessions_per_client),
    mebibytesPerClient:
      limits?.mebibytes_per_client === undefined ? undefined : String(limits.mebibytes_per_client),
    metrics: metrics?.listen,
    otlp: telemetry?.otlp_endpoint,
    logLevel: log?.level,
  };
  return Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined),
  ) as Partial<CasServeOptions>;
}

function splitAddress(text: string | undefined): [string?, string?] {
  if (text === undefined) return [];
  const at = text.lastIndexOf(':');
  return [text.slice(0, at).replace(/^\[|\]$/g, ''), text.slice(at + 1)];
}

/** Options as they were given, those that were not from the file that `--config` names, and the defaults. */
export function withConfiguration(given: CasServeOptions, command: Command): CasServeOptions {
  if (given.config === undefined) return given;
  const file = Object.entries(readCasConfiguration(given.config)).filter(
    ([name]) => command.getOptionValueSource(name) !== 'cli',
  );
  return { ...given, ...Object.fromEntries(file) };
}

/** `scone cas check-config FILE` */
export function checkCasConfiguration(path: string): Output {
  const options = readCasConfiguration(path);
  return { text: `${path} is right\n`, json: options };
}
