import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import { Agent, get } from 'node:https';
import { connect } from 'node:net';
import { join, resolve } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { Secret as TotpSecret } from 'otpauth';
import { documentMetrics, metricsDocument } from '../../scripts/document-metrics.ts';
import { errors } from '../../src/errors.ts';
import type { Identity } from '../../src/protocol/certificate.ts';
import { codeFrom, launch, makeIdentity, makeLas, upload } from '../support/client.ts';
import { formatSeries, parseExposition, type Sample, total } from '../support/exposition.ts';
import { searchFor } from '../support/leaks.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { freePort } from '../support/port.ts';
import { executables, missing, type RunningCas, run, startCas, startServer } from '../support/stack.ts';
import { until } from '../support/until.ts';

const { scone } = executables();
const las = makeLas();
const oneTimePassword = new TotpSecret({ size: 20 });
const secret = 'the-value-that-nobody-may-see';
let folder: string;
let cas: RunningCas;
let address: string;
let alice: Identity;
before(async () => {
  folder = temporaryFolder();
  address = `127.0.0.1:${await freePort()}`;
  const options = ['--workers', '2', '--offline', '--metrics', address, '--trusted-platform', las.platform];
  cas = await startCas(scone, join(folder, 'cas'), options, env());
  alice = await makeIdentity('alice');
  await upload(
    cas,
    alice,
    `name: watched
version: "0.3.10"
security: {attestation: {mode: none}}
services:
  - {name: s, image_name: i, command: [envcas, $$SCONE::token$$]}
  - {name: otp, image_name: i, command: [envcas], one_time_password_shared_secret: ${oneTimePassword.base32}}
images: [{name: i, injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/echo"}]}]
secrets: [{name: token, kind: ascii, value: ${secret}}]
`,
  );
});

const env = () => ({ PATH: process.env.PATH ?? '', HOME: folder });
/** Over a connection of its own. One that is refused has status 0. */
const ask = async (path: string, method = 'GET', at = address) => {
  try {
    const response = await fetch(`http://${at}${path}`, { method, headers: { connection: 'close' } });
    return { status: response.status, body: await response.text() };
  } catch {
    return { status: 0, body: '' };
  }
};
const scrape = async (): Promise<Sample[]> => {
  // What was gathered lately is given again.
  await setTimeout(300);
  return parseExposition((await ask('/metrics')).body);
};
const reasons = async () =>
  JSON.parse((await ask('/readyz')).body).reasons.map(({ reason }: { reason: string }) => reason);

const agent = new Agent({ keepAlive: true, maxSockets: 8, rejectUnauthorized: false });
after(() => agent.destroy());
const request = (path: string, headers: OutgoingHttpHeaders = {}): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    const options = { agent, host: '127.0.0.1', port: cas.apiPort, path, headers };
    get(options, (response) => response.resume().on('end', () => resolve(response))).on('error', reject);
  });

const guess = (code: string) => launch(cas, { session: 'watched', service: 'otp', oneTimePassword: code });
const refused = (launching: Promise<unknown>) =>
  launching.then(
    () => assert.fail('it was not refused'),
    ({ code }) => code,
  );

test('releases, refusals and one-time passwords are counted by what became of them', async () => {
  const first = await scrape();
  await launch(cas, { session: 'watched', service: 's' });
  await launch(cas, { session: 'watched', service: 's' });
  const code = codeFrom(oneTimePassword);
  await guess(code);
  assert.equal(await refused(guess('000000')), 'OTP_INVALID');
  const second = await scrape();
  const rise = (name: string, labels: Record<string, string> = {}) =>
    total(second, name, labels) - total(first, name, labels);
  assert.equal(rise('envcas_cas_releases_total', { root: 'none' }), 3);
  assert.equal(rise('envcas_cas_refusals_total', { port: 'enclave', code: 'OTP_INVALID' }), 1);
  const attempts = 'envcas_cas_second_factor_attempts_total';
  assert.equal(rise(attempts, { factor: 'one-time-password', outcome: 'accepted' }), 1);
  assert.equal(rise(attempts, { factor: 'one-time-password', outcome: 'invalid' }), 1);
  assert.equal(rise('envcas_cas_release_duration_seconds_count', { outcome: 'released' }), 3);
  assert.ok(rise('envcas_cas_audit_append_duration_seconds_count') >= 1);
  assert.equal(rise('envcas_cas_tls_handshake_duration_seconds_count', { port: 'enclave' }), 4);
});

test('what describes the CAS is there once for all of its processes', async () => {
  const samples = await scrape();
  const value = (name: string) => {
    const found = samples.filter((sample) => sample.name === name);
    assert.equal(found.length, 1, name);
    return found[0]?.value ?? Number.NaN;
  };
  assert.equal(value('envcas_cas_processes'), 2);
  assert.equal(value('envcas_cas_store_up'), 1);
  assert.equal(value('envcas_cas_audit_log_up'), 1);
  assert.equal(value('envcas_cas_sealed'), 0);
  assert.equal(value('envcas_cas_provisioned'), 0);
  assert.equal(value('envcas_cas_build_info'), 1);
  assert.ok(value('envcas_cas_audit_log_entries') > 0);
  assert.ok(value('envcas_cas_certificate_not_after_timestamp_seconds') > Date.now() / 1000);
  assert.ok(!samples.some(({ name }) => name === 'envcas_cas_collateral_expiry_timestamp_seconds'));
});

test('a thousand sessions and paths make no time series, and are named in none', async () => {
  const visit = (name: string) =>
    Promise.all([
      request(`/v1/sessions/${name}`),
      request(`/v1/values/session=${name}`),
      request(`/v1/hashes/${name}`),
      request(`/${name}`),
    ]);
  const knock = (name: string) => refused(launch(cas, { session: name, service: name }));
  for (let count = 0; count < 8; count++) await Promise.all([visit('strange-warm'), knock('strange-warm')]);
  const known = new Set((await scrape()).map(formatSeries));
  for (let count = 0; count < 1000; count += 20)
    await Promise.all(
      Array.from({ length: 20 }, (_, at) =>
        Promise.all([visit(`strange-${count + at}`), ...(at === 0 ? [knock(`strange-${count + at}`)] : [])]),
      ),
    );
  const samples = await scrape();
  assert.ok(total(samples, 'envcas_cas_requests_total') >= 4000);
  assert.deepEqual(
    samples.map(formatSeries).filter((series) => !known.has(series) && !/in_flight|connections/.test(series)),
    [],
  );
  assert.ok(!(await ask('/metrics')).body.includes('strange'));
  for (const { labels } of samples)
    if (labels.code) assert.ok(Object.hasOwn(errors, labels.code), labels.code);
});

test('no secret, one-time password or token is in the metrics or the log', async () => {
  const token = /provisioning token: (\w+)/.exec(cas.server.output())?.[1] ?? '';
  const log = cas.server.output().replace(/^CAS provisioning token: .*$/m, '');
  assert.ok(token);
  const search = searchFor([secret, oneTimePassword.base32, token]);
  search('/metrics', (await ask('/metrics')).body);
  search('the log', log);
});

test('promtool finds nothing to say', { skip: missing('promtool') }, async () => {
  const { body } = await ask('/metrics');
  const metrics = run('promtool', ['check', 'metrics'], env(), body);
  assert.deepEqual([metrics.status, metrics.stdout, metrics.stderr], [0, '', '']);
  const rules = resolve(import.meta.dirname, '../../packaging/prometheus-alerts.yaml');
  assert.equal(run('promtool', ['check', 'rules', rules], env()).status, 0);
});

test('docs/metrics.md lists the metrics (node scripts/node.cjs scripts/document-metrics.ts writes it)', () => {
  assert.equal(readFileSync(metricsDocument, 'utf8'), documentMetrics());
});

test('alerts rest on metrics that there are', () => {
  const rules = readFileSync(resolve(import.meta.dirname, '../../packaging/prometheus-alerts.yaml'), 'utf8');
  const described = readFileSync(resolve(import.meta.dirname, '../../docs/metrics.md'), 'utf8');
  const names = [...rules.matchAll(/envcas_cas_\w+/g)].map(([name]) => name.replace(/_bucket$/, ''));
  assert.ok(names.length > 10);
  for (const name of names) assert.ok(described.includes(`| \`${name}\` |`), name);
  const alerts = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map(([, name]) => name);
  assert.deepEqual(alerts(described, /^\| `(Envcas\w+)`/gm), alerts(rules, /alert: (\w+)/g));
});

test('a request has an id of its own in the answer, which the client does not choose', async () => {
  const chosen = () => request('/v1/version', { 'x-request-id': 'chosen' });
  const ids = [await chosen(), await chosen()].map(({ headers }) => String(headers['x-request-id']));
  for (const id of ids) assert.match(id, /^[0-9a-f]{16}$/);
  assert.notEqual(ids[0], ids[1]);
});

test('lines of the log about one launch have one id, and those of another have another', async () => {
  const lines = () =>
    cas.server
      .output()
      .split('\n')
      .filter((line) => line.includes('"told"'))
      .map((line) => JSON.parse(line).correlation);
  for (let count = 0; count < 2; count++) await refused(launch(cas, { session: 'told', service: 's' }));
  await until(() => lines().length >= 2, 'both lines of the log');
  for (const id of lines()) assert.match(id, /^[0-9a-f]{16}$/);
  assert.equal(new Set(lines()).size, 2);
});

test('a CAS whose store cannot be written lives, and is not ready until it can be', async () => {
  await until(async () => (await reasons()).length === 0, 'ready');
  const other = new DatabaseSync(join(folder, 'cas', 'cas.db'));
  try {
    other.exec('BEGIN IMMEDIATE');
    await until(
      async () => (await reasons()).includes('STORE_UNAVAILABLE'),
      'the reason why it is not ready',
    );
    assert.equal((await ask('/readyz')).status, 503);
    assert.equal((await ask('/healthz')).status, 200);
    assert.equal(total(await scrape(), 'envcas_cas_store_up'), 0);
  } finally {
    other.exec('ROLLBACK');
    other.close();
  }
  // Each of its processes looks for itself.
  const isUp = async () => total(await scrape(), 'envcas_cas_store_up') === 1;
  await until(async () => (await ask('/readyz')).status === 200 && (await isUp()), 'ready');
});

test('looking whether the store can be written leaves nothing in it', async () => {
  assert.equal((await ask('/readyz')).status, 200);
  const store = new DatabaseSync(join(folder, 'cas', 'cas.db'), { readOnly: true });
  try {
    assert.deepEqual(store.prepare("SELECT name FROM state WHERE name LIKE 'readiness%'").all(), []);
  } finally {
    store.close();
  }
});

test('a worker that ends takes no counts with it', async () => {
  const before = total(await scrape(), 'envcas_cas_releases_total');
  assert.ok(before >= 3);
  const { pid } = cas.server.process;
  const children = () =>
    readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number);
  for (const victim of children()) {
    process.kill(victim, 'SIGKILL');
    // A scrape goes without a worker that is late.
    let samples: Sample[] = [];
    await until(async () => {
      samples = await scrape();
      return !children().includes(victim) && total(samples, 'envcas_cas_processes') === 2;
    }, 'two workers, and not the victim');
    assert.ok(total(samples, 'envcas_cas_releases_total') >= before);
  }
});

test('there is nothing else on the port, and nobody keeps it for himself', async () => {
  assert.equal((await ask('/')).status, 404);
  assert.equal((await ask('/__proto__')).status, 404);
  assert.equal((await ask('/metrics', 'POST')).status, 405);
  const [host = '', port] = address.split(':');
  const silent = Array.from({ length: 40 }, () => connect(Number(port), host).on('error', () => {}));
  await until(async () => (await ask('/healthz')).status === 200, 'an answer beside silent clients');
  for (const socket of silent) socket.destroy();
});

test('an address that others reach is warned of', async () => {
  const port = await freePort();
  const its = await startCas(
    scone,
    join(folder, 'open'),
    ['--workers', '1', '--offline', '--metrics', `0.0.0.0:${port}`],
    env(),
  );
  await its.server.stop();
  assert.match(its.server.output(), /it has no TLS and asks for nothing/);
});

test('a CAS that waits to be unsealed lives and is not ready, and says which of the two', async () => {
  const directory = join(folder, 'sealed');
  const passphrase = join(folder, 'passphrase');
  writeFileSync(passphrase, 'correct horse battery staple', { mode: 0o600 });
  const made = run(scone, ['cas', 'init', '--dir', directory, '--new-passphrase-file', passphrase], env());
  assert.equal(made.status, 0, made.stderr);
  const its = `127.0.0.1:${await freePort()}`;
  const listening = ['--host', '127.0.0.1', '--api-port', '0', '--enclave-port', '0'];
  const sealed = await startServer(
    scone,
    ['cas', 'serve', '--dir', directory, '--offline', '--metrics', its, ...listening],
    /To open it/,
    { env: env() },
  );
  try {
    const from = async (path: string) => (await ask(path, 'GET', its)).body;
    const { ready, reasons } = JSON.parse(await from('/readyz'));
    assert.deepEqual([ready, reasons.map(({ reason }: { reason: string }) => reason)], [false, ['SEALED']]);
    assert.deepEqual(JSON.parse(await from('/healthz')), { alive: true });
    const samples = parseExposition(await from('/metrics'));
    assert.equal(total(samples, 'envcas_cas_sealed'), 1);
    assert.ok(!samples.some(({ name }) => name === 'envcas_cas_store_up'), 'nobody has looked');
  } finally {
    await sealed.stop();
  }
});
