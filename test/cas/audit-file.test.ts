import assert from 'node:assert/strict';
import {
  appendFileSync,
  existsSync,
  globSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
} from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { makeIdentity, upload } from '../support/client.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { executables, type RunningCas, run, startCas } from '../support/stack.ts';
import { until } from '../support/until.ts';

const { scone } = executables();
let folder: string;
let cas: RunningCas;
const file = (name: string) => join(folder, name);
const env = () => ({ PATH: process.env.PATH ?? '', HOME: folder });
const start = async (workers: string) => {
  const options = ['--workers', workers, '--audit-log', file('audit.log'), '--log-level', 'error'];
  cas = await startCas(scone, file('cas'), options, env());
};
before(async () => {
  folder = temporaryFolder();
  await start('2');
});
const lines = (name = 'audit.log') => readFileSync(file(name), 'utf8').split('\n').slice(0, -1);
const numbers = (name?: string) => lines(name).map((line) => JSON.parse(line).sequence as number);
const upTo = (last: number, first = 1) => Array.from({ length: last - first + 1 }, (_, at) => first + at);
let sessions = 0;
const decide = async () => {
  await upload(cas, await makeIdentity('alice'), `name: s${++sessions}\nversion: "0.3"\n`);
};
/** Until the newest session is in it. */
const untilWritten = () =>
  until(
    () => existsSync(file('audit.log')) && lines().some((line) => line.includes(`"s${sessions}"`)),
    `an entry of session s${sessions}`,
  );
const verify = (name: string) => run(scone, ['cas', 'verify-audit-log', file(name), '-c', cas.key], env());

test('the file has every entry, once, whatever number of processes writes the log, and is private', async () => {
  await decide();
  await decide();
  await untilWritten();
  assert.deepEqual(numbers(), upTo(numbers().length));
  assert.equal(statSync(file('audit.log')).mode & 0o777, 0o600);
  await cas.server.stop();
  // The last ones are those of the end.
  assert.match(String(lines().at(-1)), /"operation":"cas_stopped"/);
  await start('1');
  await decide();
  await untilWritten();
  assert.deepEqual(numbers(), upTo(numbers().length));
  assert.equal(verify('audit.log').status, 16, verify('audit.log').stdout);
});

test('a line that was cut off is written anew', async () => {
  await cas.server.stop();
  const whole = numbers().length;
  truncateSync(file('audit.log'), statSync(file('audit.log')).size - 20);
  await start('1');
  assert.deepEqual(numbers().slice(0, whole), upTo(whole));
  await cas.server.stop();
  appendFileSync(file('audit.log'), '{"sequence":');
  await start('2');
  await decide();
  await untilWritten();
  assert.deepEqual(numbers(), upTo(numbers().length));
});

test('where somebody moves it away, it goes on in another', async () => {
  const before = numbers().length;
  renameSync(file('audit.log'), file('audit.log.1'));
  await decide();
  await untilWritten();
  assert.deepEqual(numbers(), upTo(before + numbers().length, before + 1));
});

test('the log of another store does not go on in it', async () => {
  await cas.server.stop();
  for (const name of globSync(file('cas/*'))) rmSync(name);
  await start('2');
  await decide();
  await untilWritten();
  const aside = globSync(file('audit.log.2*'));
  assert.equal(aside.length, 1);
  assert.equal(numbers()[0], 1);
  assert.match(cas.server.output(), /does not go on from this file/);
});
