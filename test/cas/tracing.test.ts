import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Secret } from 'otpauth';
import * as v from 'valibot';
import { codeFrom, launch, makeIdentity, makeLas, upload } from '../support/client.ts';
import { parseExposition, total } from '../support/exposition.ts';
import { searchFor } from '../support/leaks.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { freePort } from '../support/port.ts';
import { executables, type RunningCas, startCas } from '../support/stack.ts';
import { until } from '../support/until.ts';

/** A span as OTLP 1.x writes it in JSON (opentelemetry/proto/trace/v1/trace.proto). */
const attribute = v.object({
  key: v.string(),
  value: v.looseObject({ stringValue: v.optional(v.string()) }),
});
const span = v.object({
  traceId: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/)),
  spanId: v.pipe(v.string(), v.regex(/^[0-9a-f]{16}$/)),
  parentSpanId: v.optional(v.string(), ''),
  name: v.string(),
  startTimeUnixNano: v.pipe(v.string(), v.regex(/^\d+$/)),
  endTimeUnixNano: v.pipe(v.string(), v.regex(/^\d+$/)),
  attributes: v.optional(v.array(attribute), []),
  status: v.optional(v.object({ code: v.optional(v.number()) })),
});
type Span = v.InferOutput<typeof span>;
const traces = v.object({
  resourceSpans: v.array(
    v.object({
      resource: v.object({ attributes: v.array(attribute) }),
      scopeSpans: v.array(v.object({ spans: v.array(span) })),
    }),
  ),
});

const { scone } = executables();
const las = makeLas();
const oneTimePassword = new Secret({ size: 20 });
const secret = 'a-value-for-launchers-alone';
const session = `name: traced
version: "0.3.10"
security: {attestation: {tolerate: [debug-mode, software-hardening-needed], ignore_advisories: "*"}}
services:
  - {name: s, image_name: i, command: [envcas, $$SCONE::value$$], mrenclaves: [${'ab'.repeat(32)}]}
  - {name: otp, image_name: i, command: [envcas], mrenclaves: [${'ab'.repeat(32)}], one_time_password_shared_secret: ${oneTimePassword.base32}}
images: [{name: i, injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/echo"}]}]
secrets: [{name: value, kind: ascii, value: ${secret}}]
`;

let folder: string;
let collector: Server;
let cas: RunningCas;
const received: { path: string | undefined; type: string | undefined; bytes: Buffer }[] = [];
before(async () => {
  folder = temporaryFolder();
  collector = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    received.push({ path: request.url, type: request.headers['content-type'], bytes: Buffer.concat(chunks) });
    response.setHeader('content-type', 'application/json').end('{}');
  }).listen(0, '127.0.0.1');
  await once(collector, 'listening');
  const endpoint = `http://127.0.0.1:${(collector.address() as AddressInfo).port}`;
  cas = await start('cas', ['--otlp', endpoint]);
});
after(() => collector.close());

async function start(
  name: string,
  options: string[],
  variables: NodeJS.ProcessEnv = {},
): Promise<RunningCas> {
  const all = ['--workers', '1', '--offline', '--trusted-platform', las.platform, ...options];
  const env = { PATH: process.env.PATH ?? '', HOME: folder, ...variables };
  const its = await startCas(scone, join(folder, name), all, env);
  await upload(its, await makeIdentity('alice'), session);
  return its;
}

const spans = (): Span[] =>
  received.flatMap(({ bytes }) =>
    v
      .parse(traces, JSON.parse(bytes.toString()))
      .resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap((scope) => scope.spans)),
  );
const textOf = ({ attributes }: Span, key: string) =>
  attributes.find((each) => each.key === key)?.value.stringValue;

/** The spans of the next release, once they have come. */
async function traceOf(work: () => Promise<unknown>): Promise<Span[]> {
  const known = new Set(spans().map(({ traceId }) => traceId));
  await work();
  const fresh = () => spans().filter(({ traceId }) => !known.has(traceId));
  await until(() => fresh().some(({ name }) => name === 'release'), 'the spans of a release');
  return fresh();
}

const ask = (service: string, more = {}) => launch(cas, { session: 'traced', service, las, ...more });

test('a release is one trace, with a span for each step, in the time of the release', async () => {
  const trace = await traceOf(() => ask('s'));
  assert.equal(new Set(trace.map(({ traceId }) => traceId)).size, 1);
  const root = trace.find(({ name }) => name === 'release');
  assert.ok(root && root.parentSpanId === '');
  const children = trace.filter(({ parentSpanId }) => parentSpanId === root.spanId).map(({ name }) => name);
  assert.deepEqual(children.sort(), [
    ...[
      'admission',
      'appraisal',
      'audit',
      'configuration',
      'evidence',
      'factors',
      'mode',
      'second factors',
      'session',
    ],
  ]);
  const configuration = trace.find(({ name }) => name === 'configuration');
  assert.equal(trace.find(({ name }) => name === 'secrets')?.parentSpanId, configuration?.spanId);
  for (const { startTimeUnixNano: from, endTimeUnixNano: to } of trace) {
    assert.ok(BigInt(from) <= BigInt(to));
    assert.ok(BigInt(root.startTimeUnixNano) <= BigInt(from));
  }
  assert.ok(received.every(({ path, type }) => path === '/v1/traces' && type === 'application/json'));
});

test('a trace has the id that the lines of the log have', async () => {
  const trace = await traceOf(() => ask('s'));
  const id = trace.map((each) => textOf(each, 'envcas.correlation_id')).find(Boolean);
  assert.match(id ?? '', /^[0-9a-f]{16}$/);
  const line = cas.server
    .output()
    .split('\n')
    .find((each) => each.includes(`"correlation":"${id}"`));
  assert.equal(JSON.parse(line ?? '{}').msg, 'released');
});

test('the step that refuses has the code, and nothing comes after it but the record', async () => {
  const trace = await traceOf(() => assert.rejects(ask('s', { measurement: 'ef'.repeat(32) })));
  const failed = trace.filter(({ status }) => status?.code === 2);
  assert.deepEqual(failed.map(({ name }) => name).sort(), ['appraisal', 'release']);
  for (const each of failed) assert.equal(textOf(each, 'error.type'), 'MEASUREMENT_UNEXPECTED');
  assert.ok(!trace.some(({ name }) => ['second factors', 'secrets', 'configuration'].includes(name)));
});

test('no secret, code or name that a client chose is sent to the collector', async () => {
  const code = codeFrom(oneTimePassword);
  await traceOf(() => ask('otp', { oneTimePassword: code }));
  await traceOf(() => ask('s'));
  const all = Buffer.concat(received.map(({ bytes }) => bytes));
  searchFor([secret, oneTimePassword.base32])('what was sent', all);
  const values = spans().flatMap(({ attributes }) => attributes.map(({ value }) => value.stringValue));
  assert.ok(values.length > 0);
  assert.ok(!values.includes(code));
  assert.ok(!all.includes('traced'));
});

test('a collector that takes nothing keeps no launch waiting, and what it missed is counted', async () => {
  const silent = createServer(() => {}).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const dead = `http://127.0.0.1:${await freePort()}`;
  const hung = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
  for (const [name, endpoint] of Object.entries({ dead, hung })) {
    const metrics = `127.0.0.1:${await freePort()}`;
    const its = await start(name, ['--metrics', metrics], { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint });
    try {
      for (let count = 0; count < 20; count++)
        await Promise.all([1, 2, 3, 4].map(() => launch(its, { session: 'traced', service: 's', las })));
      const dropped = async () => {
        const response = await fetch(`http://${metrics}/metrics`);
        return total(parseExposition(await response.text()), 'envcas_cas_trace_spans_dropped_total');
      };
      await until(async () => (await dropped()) > 0, 'spans that were dropped');
    } finally {
      assert.equal(await its.server.stop(), 0);
    }
  }
  silent.closeAllConnections();
  silent.close();
});
