import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, type TestContext, test } from 'node:test';
import { searchFor } from '../support/leaks.ts';
import { type Apart, type Server, startApart } from '../support/stack.ts';
import {
  codeFrom,
  fixtures,
  folder,
  launch,
  newSharedSecret,
  type Policy,
  type Running,
  upload,
} from './support.ts';

/**
 * Everything that launchers, CAS and LAS write while they write as much as they can: none of it is a secret, whatever
 * becomes of a launch.
 */

let stack: Apart;
/** Servers whose output is looked at, also those that have ended. */
const servers: Server[] = [];
before(async () => {
  stack = await startApart('trace');
  servers.push(stack.cas, stack.las);
});

const token = 'zPu1-known-service-access-token';
const names = ['environment', 'argument', 'file', 'descriptor'] as const;
/** Of each version of a session, in the order of the names. */
const secretsOf = (version: string) => names.map((name) => `k${version}Qv-known-${name}-${version}`);
const versions = ['one', 'two', 'three', 'four'];
const otp = newSharedSecret();
const codes: string[] = [];
const written: { what: string; text: string }[] = [];

/** The keeper, given each secret in another way; it shows digests of them. */
function keeping(
  directory: string,
  version: string,
  { environment, launcher, ...more }: Policy = {},
): Policy {
  const [inEnvironment, inArgument, inFile, inDescriptor] = secretsOf(version);
  return {
    program: join(fixtures, 'keeper.sh'),
    command: ['$$SCONE::argument$$'],
    environment: { SECRET: '$$SCONE::environment$$', FILE: join(directory, 'file'), ...environment },
    files: [
      { to: join(directory, 'file'), content: '$$SCONE::file$$' },
      { to: { fd: 5 }, content: '$$SCONE::descriptor$$' },
    ],
    secrets: {
      environment: { kind: 'ascii', value: inEnvironment },
      argument: { kind: 'ascii', value: inArgument },
      file: { kind: 'ascii', value: inFile },
      descriptor: { kind: 'ascii', value: inDescriptor },
      otp: { kind: 'ascii', value: otp },
    },
    launcher: { supervise: {}, ...launcher },
    ...more,
  };
}

const digest = (text: string | undefined) =>
  createHash('sha256')
    .update(text ?? '')
    .digest('hex');
/** What the keeper says where it has the secrets of a version. */
const has = (when: string, version: string) =>
  new RegExp(`^${when} ${secretsOf(version).map(digest).join(' ')}$`, 'm');
/** The same where only the file is new. */
const hasFile = (when: string, version: string) =>
  new RegExp(`^${when} \\w+ \\w+ ${digest(secretsOf(version)[2])} \\w+$`, 'm');

function traced(t: TestContext, id: string, env: NodeJS.ProcessEnv = {}): Running {
  const running = launch(stack, id, { env: { SCONE_LOG: 'TRACE', ...env } });
  void running.finished.then(({ stdout, stderr }) => written.push({ what: t.name, text: stdout + stderr }));
  t.after(() => running.child.kill('SIGTERM'));
  return running;
}

async function end(running: Running): Promise<void> {
  running.child.kill('SIGTERM');
  await running.finished;
}

test('in place, with a token and a one-time password, good and wrong', async (t) => {
  const once = { ONCE: '1' };
  const id = await upload(
    stack,
    keeping(folder(stack), 'one', {
      environment: once,
      launcher: { supervise: undefined },
      oneTimePassword: '$$SCONE::otp$$',
      accessToken: token,
    }),
  );
  codes.push(codeFrom(otp));
  const given = `${id}@${codes[0]}`;
  await traced(t, given, { SCONE_SERVICE_ACCESS_TOKEN: token }).seen(has('up', 'one'));
  for (const env of [
    { SCONE_SERVICE_ACCESS_TOKEN: token },
    {},
    { SCONE_SERVICE_ACCESS_TOKEN: `${token}-wrong` },
  ]) {
    const { stdout, status } = await traced(t, given, env).finished;
    assert.deepEqual({ stdout, status }, { stdout: '', status: 77 });
  }
});

for (const [how, on_change, seen] of [
  ['restart', 'restart', (version) => has('up', version)],
  ['a signal', { signal: 'SIGHUP' }, (version) => hasFile('hup', version)],
  ['a command', { command: ['/bin/false'] }, () => /ERROR.*has failed/],
  ['files', 'files', () => /files have changed/],
] as [string, unknown, (version: string) => RegExp][])
  test(`changed by ${how}`, async (t) => {
    const directory = folder(stack);
    const launcher = { supervise: { on_change } };
    const id = await upload(stack, keeping(directory, 'one', { launcher }));
    const running = traced(t, id);
    await running.seen(has('up', 'one'));
    await upload(stack, keeping(directory, 'two', { launcher }), id);
    await running.seen(seen('two'));
    await end(running);
    assert.equal(readFileSync(join(directory, 'file'), 'utf8'), secretsOf('two')[2]);
  });

test('refused, failing and cut off from the CAS', async (t) => {
  const directory = folder(stack);
  const id = await upload(stack, keeping(directory, 'one'));
  const running = traced(t, id);
  await running.seen(has('up', 'one'));
  await upload(stack, keeping(directory, 'two', { measurement: 'ab'.repeat(32) }), id);
  await running.seen(/WARNING.*goes on as it is/);
  const places = [{ to: '/nonexistent/file', content: '$$SCONE::file$$' }];
  for (const bad of [
    { files: places },
    { program: '/nonexistent/program' },
    { launcher: { supervise: {}, sha256: 'ab'.repeat(32) } },
    { launcher: { supervise: {}, user: 'no-such-user' } },
    { pwd: '/nonexistent' },
    { command: ['$$SCONE::argument$$@@1'] },
  ]) {
    const errors = running.output().split('ERROR').length;
    await upload(stack, keeping(directory, 'three', bad), id);
    await running.seen(new RegExp(`(ERROR[\\s\\S]*){${errors}}`));
  }
  await stack.cas.stop('SIGKILL');
  await stack.startCas();
  servers.push(stack.cas);
  await stack.las.stop('SIGKILL');
  await upload(stack, keeping(directory, 'four'), id);
  await stack.startLas();
  servers.push(stack.las);
  await running.seen(has('up', 'four'));
  const program = join(fixtures, 'no-interpreter.sh');
  await upload(stack, keeping(directory, 'one', { program }), id);
  assert.equal((await running.finished).status, 126);
});

test('with redaction, where the program prints what it has', async (t) => {
  const directory = folder(stack);
  const launcher = { supervise: { redact: true, on_change: { signal: 'SIGHUP' } } };
  const program = join(fixtures, 'printer.sh');
  const printing = (version: string) => keeping(directory, version, { program, launcher });
  const id = await upload(stack, printing('one'));
  const running = traced(t, id);
  await running.seen(/(^up pieces \[redacted\]\n[\s\S]*){4}/m);
  await upload(stack, printing('two'), id);
  await running.seen(/(^hup pieces \[redacted\]\n[\s\S]*){4}/m);
  await end(running);
});

// Last, as it ends the servers in order to have all of their log.
test('nothing that was written has a secret in any writing', async () => {
  const open = [stack.cas, stack.las].flatMap(({ process: { stdout, stderr } }) => [stdout, stderr]);
  const everything = Promise.all(open.map((stream) => stream && once(stream, 'end')));
  await Promise.all([stack.cas.stop(), stack.las.stop()]);
  await everything;
  const assertNone = searchFor([otp, token, ...versions.flatMap(secretsOf)]);
  for (const { what, text } of written) assertNone(`a launcher (${what})`, text);
  const logs = servers.map((server) => server.output()).join('');
  for (const part of ['"released"', '"release refused"', '"vouched for a process"'])
    assert.ok(logs.includes(part));
  assertNone('a log', logs);
  for (const code of codes)
    for (const text of [logs, ...written.map((it) => it.text)])
      assert.ok(!text.includes(code), 'a code is told');
  assert.ok(written.length >= 10 && servers.length === 4);
});
