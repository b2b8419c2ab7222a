import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { missingPostgres, startPostgres } from '../support/postgres.ts';
import { executables, missing, type RunningCas, run, startCas } from '../support/stack.ts';
import { until } from '../support/until.ts';

const { scone } = executables();
let folder: string;
let cas: RunningCas;
let env: Record<string, string>;
before(async () => {
  folder = temporaryFolder();
  const plain = { PATH: process.env.PATH ?? '', HOME: folder };
  cas = await startCas(scone, join(folder, 'cas'), ['--workers', '3'], plain);
  env = { ...plain, ...cas.settings };
});

/** Processes that have another as their parent. */
function childrenOf(pid: number | undefined): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .trim()
    .split(' ')
    .filter(Boolean)
    .map(Number);
}

const isAlive = (pid: number) => {
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
};

const version = () =>
  run(
    'curl',
    ['-sk', '--retry', '5', '--retry-all-errors', `https://127.0.0.1:${cas.apiPort}/v1/version`],
    env,
  );

test('as many processes as wanted share the ports, and the identity', { skip: missing('curl') }, () => {
  assert.equal(childrenOf(cas.server.process.pid).length, 3);
  for (let request = 0; request < 12; request++) assert.match(version().stdout, /version/);
});

test('one that is killed is followed by another, and the others go on', {
  skip: missing('curl'),
}, async () => {
  const [victim, ...others] = childrenOf(cas.server.process.pid);
  assert.ok(victim);
  process.kill(victim, 'SIGKILL');
  for (let request = 0; request < 12; request++) assert.match(version().stdout, /version/);
  await until(() => childrenOf(cas.server.process.pid).filter(isAlive).length === 3, 'three workers');
  for (const other of others) assert.ok(isAlive(other));
  await until(() => /a worker has ended, and another follows/.test(cas.server.output()), 'a line of the log');
});

test('what keeps the first from starting is said as of one process, and ends all', () => {
  const args = ['cas', 'serve', '--dir', join(folder, 'other'), '--host', '127.0.0.1'];
  const second = run(
    scone,
    [...args, '--api-port', cas.apiPort, '--enclave-port', '0', '--workers', '2'],
    env,
  );
  assert.match(second.stderr, /ADDRESS_IN_USE/);
  assert.equal(second.status, 69);
});

test('workers end with the process that has started them, however it ends', async () => {
  const its = await startCas(scone, join(folder, 'third'), ['--workers', '2'], env);
  const workers = childrenOf(its.server.process.pid);
  assert.equal(workers.length, 2);
  await its.server.stop('SIGKILL');
  await until(() => !workers.some(isAlive), 'no worker');
  const again = await startCas(scone, join(folder, 'third'), ['--workers', '2'], env);
  const next = childrenOf(again.server.process.pid);
  assert.equal(await again.server.stop('SIGTERM'), 0);
  assert.ok(!next.some(isAlive));
});

test('one whose port is taken says so, and ends', { skip: missingPostgres }, async () => {
  const postgres = await startPostgres();
  try {
    const store = await postgres.database();
    const start = performance.now();
    const ports = ['--api-port', cas.apiPort, '--enclave-port', '0', '--host', '127.0.0.1'];
    const { status, stderr } = run(
      scone,
      ['cas', 'serve', '--dir', join(folder, 'second'), '--store', store, '--workers', '2', ...ports],
      env,
    );
    assert.equal(status, 69, stderr);
    assert.match(stderr, /Code: ADDRESS_IN_USE/);
    assert.ok(performance.now() - start < 30_000, 'without waiting for its connections to be given up');
  } finally {
    await postgres.stop();
  }
});
