import { AggregatorRegistry, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Root } from '../../attestation/claims.ts';
import type { ErrorCode } from '../../errors.ts';
import { version } from '../../version.ts';

/**
 * What this process counts, in the exposition format of Prometheus. Every label has a closed set of values, known when the
 * program is built: nobody who asks for something can make another time series, and no name of a session, address or client
 * is in one.
 */
const registry = new Registry();
const registers = [registry];

/** Seconds: from what SQLite takes to what clients wait for. */
const buckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

type Port = 'api' | 'enclave';

interface Labels {
  none: Record<string, never>;
  port: { port: Port };
}

const counter = <Its extends object>(name: string, help: string, labelNames: (keyof Its & string)[]) => {
  const its = new Counter<string>({ name, help, labelNames, registers });
  return (labels: Its, by = 1): void => its.inc(labels as Record<string, string>, by);
};
const histogram = <Its extends object>(name: string, help: string, labelNames: (keyof Its & string)[]) => {
  const its = new Histogram<string>({ name, help, labelNames, buckets, registers });
  return (labels: Its, seconds: number): void => its.observe(labels as Record<string, string>, seconds);
};
/** @param aggregator what becomes of the values of several processes */
const gauge = <Its extends object>(
  name: string,
  help: string,
  aggregator: 'sum' | 'min' | 'max' | 'first',
  labelNames: (keyof Its & string)[] = [],
) => {
  const its = new Gauge<string>({ name, help, labelNames, aggregator, registers });
  // Without this, what was never set would be read as 0.
  if (labelNames.length === 0) its.remove();
  return {
    set: (value: number) => its.set(value),
    forget: () => its.remove(),
    add: (labels: Its, by: 1 | -1) => its.inc(labels as Record<string, string>, by),
  };
};

export const metrics = {
  released: counter<{ root: Root | 'none' }>(
    'envcas_cas_releases_total',
    'Configurations given to launchers, by the root of trust of their Evidence.',
    ['root'],
  ),
  refused: counter<{ port: Port; code: ErrorCode }>(
    'envcas_cas_refusals_total',
    'Launches and requests that were refused, by the code in docs/errors.md.',
    ['port', 'code'],
  ),
  releaseSeconds: histogram<{ outcome: 'released' | 'refused' }>(
    'envcas_cas_release_duration_seconds',
    'Time to decide on a launch and record it, without the TLS handshake.',
    ['outcome'],
  ),
  requested: counter<{ method: string; route: string; status: string }>(
    'envcas_cas_requests_total',
    'Requests of the REST interface that were answered.',
    ['method', 'route', 'status'],
  ),
  requestSeconds: histogram<{ method: string; route: string }>(
    'envcas_cas_request_duration_seconds',
    'Time to answer a request of the REST interface.',
    ['method', 'route'],
  ),
  inFlight: gauge<Labels['port']>(
    'envcas_cas_requests_in_flight',
    'Requests and launches that are being worked on.',
    'sum',
    ['port'],
  ),
  attempted: counter<{
    factor: 'one-time-password' | 'access-token' | 'provisioning-token';
    outcome: 'accepted' | 'used' | 'invalid' | 'throttled';
  }>(
    'envcas_cas_second_factor_attempts_total',
    'Proofs of knowledge that were shown, by what became of them.',
    ['factor', 'outcome'],
  ),
  connections: gauge<Labels['port']>('envcas_cas_connections', 'TCP connections that are open.', 'sum', [
    'port',
  ]),
  dropped: counter<Labels['port']>(
    'envcas_cas_connections_dropped_total',
    'Connections that were closed at once, since there were too many.',
    ['port'],
  ),
  handshakeSeconds: histogram<Labels['port']>(
    'envcas_cas_tls_handshake_duration_seconds',
    'Time from the connection to the end of its TLS handshake.',
    ['port'],
  ),
  handshakeFailed: counter<Labels['port']>(
    'envcas_cas_tls_handshake_failures_total',
    'Connections that did not become TLS connections.',
    ['port'],
  ),
  held: gauge<Labels['none']>(
    'envcas_cas_held_connections',
    'Connections of launchers that wait for changes.',
    'sum',
  ),
  storeSeconds: histogram<{ operation: StoreOperation }>(
    'envcas_cas_store_call_duration_seconds',
    'Time that the database takes.',
    ['operation'],
  ),
  storeFailed: counter<{ operation: StoreOperation }>(
    'envcas_cas_store_call_failures_total',
    'Calls of the database that failed.',
    ['operation'],
  ),
  auditSeconds: histogram<Labels['none']>(
    'envcas_cas_audit_append_duration_seconds',
    'Time until an entry of the audit log is durable.',
    [],
  ),
  auditFailed: counter<Labels['none']>(
    'envcas_cas_audit_append_failures_total',
    'Entries that could not be added to the audit log.',
    [],
  ),
  storeUp: gauge<Labels['none']>(
    'envcas_cas_store_up',
    'Whether the database can be written: 1 or 0.',
    'min',
  ),
  auditUp: gauge<Labels['none']>('envcas_cas_audit_log_up', 'Whether the audit log is whole: 1 or 0.', 'min'),
  auditEntries: gauge<Labels['none']>('envcas_cas_audit_log_entries', 'Entries of the audit log.', 'max'),
  sealed: gauge<Labels['none']>('envcas_cas_sealed', 'Whether the CAS waits to be unsealed: 1 or 0.', 'max'),
  provisioned: gauge<Labels['none']>(
    'envcas_cas_provisioned',
    'Whether the CAS has an owner: 1 or 0.',
    'max',
  ),
  certificateEnd: gauge<Labels['none']>(
    'envcas_cas_certificate_not_after_timestamp_seconds',
    'When the certificate of the CAS runs out.',
    'min',
  ),
  collateralEnd: gauge<Labels['none']>(
    'envcas_cas_collateral_expiry_timestamp_seconds',
    'When the first of the collateral that the CAS keeps runs out.',
    'min',
  ),
  spansDropped: counter<Labels['none']>(
    'envcas_cas_trace_spans_dropped_total',
    'Spans that the collector of traces did not take.',
    [],
  ),
  loopSeconds: histogram<Labels['none']>(
    'envcas_cas_event_loop_delay_seconds',
    'How late a timer is called, looked at twice a second.',
    [],
  ),
  workers: gauge<Labels['none']>('envcas_cas_processes', 'Processes that answered this scrape.', 'sum'),
  memory: gauge<Labels['none']>('process_resident_memory_bytes', 'Resident memory size in bytes.', 'sum'),
  started: gauge<Labels['none']>(
    'process_start_time_seconds',
    'Start time of the process since unix epoch in seconds.',
    'min',
  ),
};

/** As in {@link Database}; what is done within a transaction counts as the transaction. */
export type StoreOperation = 'all' | 'run' | 'transaction' | 'snapshot';

new Gauge({
  name: 'envcas_cas_build_info',
  help: 'Which version runs; always 1.',
  labelNames: ['version'],
  aggregator: 'first',
  registers,
}).set({ version }, 1);

// What alerts rest on is there before it happens for the first time: a rise from nothing would not be seen as one.
for (const port of ['api', 'enclave'] as const) {
  for (const code of ['INTERNAL', 'CAS_BUSY', 'TOO_MANY_REQUESTS'] as const)
    metrics.refused({ port, code }, 0);
  metrics.dropped({ port }, 0);
  metrics.handshakeFailed({ port }, 0);
}
for (const factor of ['one-time-password', 'access-token', 'provisioning-token'] as const)
  for (const outcome of ['accepted', 'used', 'invalid', 'throttled'] as const)
    metrics.attempted({ factor, outcome }, 0);

/** Seconds since a moment of `performance.now()`. */
export const since = (start: number): number => (performance.now() - start) / 1000;

/** What this process has to say; goes from process to process as JSON. */
export type Readings = Awaited<ReturnType<Registry['getMetricsAsJSON']>>;

const started = Date.now() / 1000 - process.uptime();

export async function readings(): Promise<Readings> {
  metrics.workers.set(1);
  metrics.memory.set(process.memoryUsage.rss());
  metrics.started.set(started);
  return await registry.getMetricsAsJSON();
}

const sum = (list: readonly Readings[]): Registry => AggregatorRegistry.aggregate([...list]);

/** Readings of all processes as one text. */
export const aggregate = (list: readonly Readings[]): Promise<string> => sum(list).metrics();

/** What the readings of processes that have ended leave behind, so that no counter ever goes back. */
export async function remains(list: readonly Readings[]): Promise<Readings> {
  const counted = list.map((each) => each.filter(({ type }) => isCounting.has(String(type))));
  return await sum(counted).getMetricsAsJSON();
}
const isCounting = new Set(['counter', 'histogram']);

export const contentType = registry.contentType;
/** All metrics, as docs/metrics.md lists them. */
export const describeMetrics = (): { name: string; type: string; labels: string[]; help: string }[] =>
  registry.getMetricsAsArray().map((metric) => ({
    name: metric.name,
    type: metric instanceof Counter ? 'counter' : metric instanceof Gauge ? 'gauge' : 'histogram',
    labels: 'labelNames' in metric ? (metric.labelNames as string[]) : [],
    help: metric.help,
  }));
