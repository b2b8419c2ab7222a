import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { before, type TestContext, test } from 'node:test';
import { formatKeyHash, publicKeyDigest } from '../../src/policy/key-hash.ts';
import { clockOf, missingFaketime } from '../support/faketime.ts';
import { type Apart, startApart } from '../support/stack.ts';
import { until } from '../support/until.ts';
import {
  closedPort,
  codeFrom,
  fixtures,
  folder,
  launch,
  newSharedSecret,
  openToOthers,
  type Policy,
  type Running,
  root,
  startImpostor,
  upload,
} from './support.ts';

/** What a supervised launcher does when its session changes, and when CAS and LAS come and go. */

let stack: Apart;
let talker: string;
before(async () => {
  stack = await startApart();
  openToOthers(stack);
  talker = join(stack.files, 'talker');
  // Not by copyFile(), which keeps the owner.
  writeFileSync(talker, readFileSync(join(fixtures, 'talker.sh')));
  // Whatever the umask of who runs this.
  chmodSync(talker, 0o755);
});

/** A session whose program is the talker, under a supervisor. */
interface Session {
  id: string;
  file: string;
  /** Uploads the next version: $VALUE and the file hold its word. */
  change(word: string, more?: Policy): Promise<void>;
}

async function session(
  word: string,
  supervise: Record<string, unknown>,
  usual: Policy = {},
): Promise<Session> {
  const directory = folder(stack);
  const file = join(directory, 'file');
  const policy = (value: string, { environment, launcher, ...more }: Policy = {}): Policy => ({
    program: talker,
    ...usual,
    ...more,
    environment: { VALUE: value, FILE: file, ...usual.environment, ...environment },
    files: more.files ?? usual.files ?? [{ to: file, content: value }],
    launcher: { supervise, ...usual.launcher, ...launcher },
  });
  const id = await upload(stack, policy(word));
  const change = async (value: string, more?: Policy) => void (await upload(stack, policy(value, more), id));
  return { id, file, change };
}

/** Starts a launch that is over at the end of the test, whatever becomes of it. */
function supervised(t: TestContext, id: string, env: NodeJS.ProcessEnv = {}): Running {
  const running = launch(stack, id, { env: { SCONE_LOG: 'DEBUG', ...env } });
  t.after(() => {
    const { pid, exitCode, signalCode } = running.child;
    if (pid === undefined || exitCode !== null || signalCode !== null) return;
    t.diagnostic(running.output());
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ');
    for (const child of children.filter(Boolean)) process.kill(-Number(child), 'SIGKILL');
    running.child.kill('SIGKILL');
  });
  return running;
}

interface Said {
  what: string;
  pid: number;
  value: string;
  file: string;
}

/** What the program has said, in order. */
function said(running: Running): Said[] {
  return [...running.output().matchAll(/^(up|hup|end|stubborn) (\d+) (\S+) (\S*)$/gm)].map(
    ([, what = '', pid, value = '', file = '']) => ({ what, pid: Number(pid), value, file }),
  );
}
const words = (running: Running) => said(running).map(({ what, value, file }) => `${what} ${value} ${file}`);
const pids = (running: Running) => new Set(said(running).map(({ pid }) => pid)).size;

/** Ends a launch by SIGTERM, and gives its exit status. */
async function end(running: Running): Promise<number | null> {
  running.child.kill('SIGTERM');
  return (await running.finished).status;
}

test('restart: a new process with the new environment and file, after kill_signal to the old one', async (t) => {
  const { id, change } = await session('one', { kill_signal: 'SIGUSR1' }, { environment: { END: 'USR1' } });
  const running = supervised(t, id);
  await running.seen(/^up \d+ one one$/m);
  await change('two');
  await running.seen(/^up \d+ two two$/m);
  // The file is new before the old program is told.
  assert.deepEqual(words(running), ['up one one', 'end one two', 'up two two']);
  assert.equal(pids(running), 2);
  running.child.kill('SIGUSR1');
  assert.equal((await running.finished).status, 0);
});

test('a program that ignores kill_signal is killed after kill_timeout, with its group', async (t) => {
  const { id, change } = await session('one', { kill_timeout: '300ms' }, { environment: { STUBBORN: '1' } });
  const running = supervised(t, id);
  await running.seen(/^up/m);
  await change('two', { environment: { STUBBORN: '' } });
  await running.seen(/^up \d+ two/m);
  assert.deepEqual(words(running), ['up one one', 'stubborn one two', 'up two two']);
  assert.match(running.output(), /WARNING.*has not ended 300 ms after SIGTERM, so it is killed/);
  assert.equal(await end(running), 0);
});

test('SIGTERM during a restart ends it for good, with the status of the old program', async (t) => {
  const slow = join(folder(stack), 'end-now');
  const { id, change } = await session(
    'one',
    { kill_timeout: '1h' },
    { environment: { SLOW: slow, STATUS: '7' } },
  );
  const running = supervised(t, id);
  await running.seen(/^up/m);
  await change('two');
  await running.seen(/^end/m);
  running.child.kill('SIGTERM');
  await running.seen(/SIGTERM is for the program/);
  writeFileSync(slow, '');
  assert.equal((await running.finished).status, 7);
  assert.deepEqual(words(running), ['up one one', 'end one two']);
});

test('so does SIGTERM once the old program has ended, and its output is still read', async (t) => {
  const { id, change } = await session(
    'one',
    { redact: true },
    { environment: { ORPHAN: '1', STATUS: '7' } },
  );
  const running = supervised(t, id);
  await running.seen(/^up/m);
  const pid = said(running)[0]?.pid ?? 0;
  await change('two');
  await until(() => !existsSync(`/proc/${pid}`), 'the old program has ended');
  running.child.kill('SIGTERM');
  assert.equal((await running.finished).status, 7);
  assert.deepEqual(words(running), ['up one one', 'end one two']);
});

test('signal: the same process, which finds the new file when the signal comes', async (t) => {
  const { id, change } = await session(
    'one',
    { on_change: { signal: 'SIGHUP' } },
    { environment: { VALUE: 'x' } },
  );
  const running = supervised(t, id);
  await running.seen(/^up/m);
  for (const word of ['two', 'three']) {
    await change(word);
    await running.seen(new RegExp(`^hup \\d+ x ${word}$`, 'm'));
  }
  assert.deepEqual(words(running), ['up x one', 'hup x two', 'hup x three']);
  assert.equal(pids(running), 1);
  assert.equal(await end(running), 0);
});

test("command: runs as the program's user with its environment; one that fails is told of", async (t) => {
  const tell = 'echo "told $(id -u) $VALUE $(cat "$FILE")"; test -e "$FILE.good"';
  const { id, file, change } = await session(
    'one',
    { on_change: { command: ['/bin/sh', '-c', tell] } },
    { environment: { VALUE: 'x' }, launcher: root ? { user: 'nobody' } : {} },
  );
  const running = supervised(t, id);
  await running.seen(/^up/m);
  const uid = root ? statSync(file).uid : process.getuid?.();
  assert.ok(!root || uid !== 0);
  await change('two');
  await running.seen(new RegExp(`^told ${uid} x two$`, 'm'));
  await running.seen(/ERROR.*\/bin\/sh has failed: exit status 1/);
  writeFileSync(`${file}.good`, '');
  await change('three');
  await running.seen(new RegExp(`^told ${uid} x three$`, 'm'));
  await change('four', { launcher: { supervise: { on_change: { command: ['/nonexistent'] } } } });
  await running.seen(/ERROR.*\/nonexistent cannot be started/);
  assert.deepEqual(words(running), ['up x one']);
  assert.equal(await end(running), 0);
  assert.equal(running.output().match(/has failed/g)?.length, 1);
});

test('files: they change, and the program is left alone', async (t) => {
  const { id, file, change } = await session('one', { on_change: 'files' }, { environment: { VALUE: 'x' } });
  const running = supervised(t, id);
  await running.seen(/^up/m);
  await change('two');
  await running.seen(/INFO.*files have changed$/m);
  assert.equal(readFileSync(file, 'utf8'), 'two');
  assert.equal(await end(running), 0);
  assert.deepEqual(words(running), ['up x one', 'end x two']);
  assert.doesNotMatch(running.output(), /WARNING|ERROR/);
});

test('another environment that no restart takes up is warned of', async (t) => {
  const { id, change } = await session('one', { on_change: { signal: 'SIGHUP' } });
  const running = supervised(t, id);
  await running.seen(/^up/m);
  await change('two');
  await running.seen(/WARNING.*environment.*have changed; the program has them at its next start/);
  await running.seen(/^hup/m);
  assert.deepEqual(words(running), ['up one one', 'hup one two']);
  assert.equal(await end(running), 0);
});

for (const [how, supervise] of Object.entries({ restart: {}, signal: { on_change: { signal: 'SIGHUP' } } }))
  test(`a new version that gives the same changes nothing (${how})`, async (t) => {
    const { id, file, change } = await session('one', supervise);
    const running = supervised(t, id);
    await running.seen(/^up/m);
    const { ino, mtimeMs } = statSync(file);
    await change('one', { secrets: { other: { kind: 'ascii', value: 'of no use' } } });
    await running.seen(/(the CAS has released[\s\S]*){2}/);
    // What it does then is done before it asks again.
    await change('one');
    await running.seen(/(the CAS has released[\s\S]*){3}/);
    assert.deepEqual(words(running), ['up one one']);
    assert.deepEqual([statSync(file).ino, statSync(file).mtimeMs], [ino, mtimeMs]);
    await change('two');
    await running.seen(how === 'restart' ? /^up \d+ two two$/m : /^hup \d+ one two$/m);
    assert.equal(said(running).length, how === 'restart' ? 3 : 2);
    assert.equal(await end(running), 0);
  });

test('several versions in short order are one change', async (t) => {
  const { id, change } = await session('one', { debounce: '2s' });
  const running = supervised(t, id);
  await running.seen(/^up/m);
  for (const word of ['two', 'three', 'four']) await change(word);
  await running.seen(/^up \d+ four four$/m);
  assert.deepEqual(words(running), ['up one one', 'end one four', 'up four four']);
  assert.equal(await end(running), 0);
});

test('another descriptor needs a restart', async (t) => {
  const environment = { VALUE: 'x', FILE: '/proc/self/fd/5' };
  const files = (content: string) => [{ to: { fd: 5 }, content }];
  const supervise = { on_change: { signal: 'SIGHUP' } };
  const { id, change } = await session('x', supervise, { environment, files: files('one') });
  const running = supervised(t, id);
  await running.seen(/^up/m);
  await change('x', { files: files('two') });
  await running.seen(/WARNING.*descriptors have changed; the program has them at its next start/);
  await change('x', { files: files('three'), launcher: { supervise: {} } });
  await running.seen(/^up \d+ x three$/m);
  assert.deepEqual(words(running), ['up x one', 'end x one', 'up x three']);
  assert.equal(await end(running), 0);
});

test('the files of a generation change as one', async (t) => {
  const pair = join(folder(stack), 'pair');
  const files = (content: string) => ['a', 'b'].map((name) => ({ to: join(pair, name), content }));
  const { id, change } = await session(
    'one',
    { on_change: { signal: 'SIGHUP' } },
    {
      environment: { VALUE: 'x', FILE: join(pair, 'b') },
      files: files('one'),
      launcher: { directories: [{ path: pair, generation: true }] },
    },
  );
  const running = supervised(t, id);
  await running.seen(/^up \d+ x one$/m);
  // Who has the folder open has all of a generation, or none.
  const before = readlinkSync(pair);
  await change('x', { files: [...files('one').slice(0, 1), ...files('two').slice(1)] });
  await running.seen(/^hup \d+ x two$/m);
  const next = readlinkSync(pair);
  assert.notEqual(next, before);
  assert.ok(!existsSync(join(pair, '..', before)));
  assert.deepEqual(
    ['a', 'b'].map((name) => readFileSync(join(pair, '..', next, name), 'utf8')),
    ['one', 'two'],
  );
  assert.equal(await end(running), 0);
});

test('a token that is made anew is a change', async (t) => {
  const { id } = await session(
    'x',
    { on_change: { signal: 'SIGHUP' } },
    {
      environment: { FILE: '/dev/null' },
      secrets: {
        key: { kind: 'private-key', key_type: 'P-384' },
        token: { kind: 'jwt', signer: 'key', alg: 'ES384', validity: { for: '3 s' }, payload: { sub: 'x' } },
      },
      files: [{ to: join(folder(stack), 'token'), content: '$$SCONE::token$$' }],
    },
  );
  const running = supervised(t, id);
  await running.seen(/^up[\s\S]*^hup[\s\S]*^hup/m);
  assert.equal(await end(running), 0);
});

test('a new version that refuses the launcher leaves the program as it is, until it is corrected', async (t) => {
  const { id, file, change } = await session('one', {});
  const running = supervised(t, id);
  await running.seen(/^up/m);
  await change('two', { measurement: 'ab'.repeat(32) });
  await running.seen(/WARNING.*the program goes on as it is: .*measurement/i);
  assert.equal(readFileSync(file, 'utf8'), 'one');
  await change('three');
  await running.seen(/^up \d+ three three$/m);
  assert.deepEqual(words(running), ['up one one', 'end one three', 'up three three']);
  assert.equal(await end(running), 0);
});

test('changes are taken up without a new one-time password; one that was sent is not sent again', async (t) => {
  const oneTimePassword = newSharedSecret();
  const { id, change } = await session('one', {}, { oneTimePassword });
  const running = supervised(t, `${id}@${codeFrom(oneTimePassword)}`);
  await running.seen(/^up/m);
  for (const word of ['two', 'three']) {
    await change(word);
    await running.seen(new RegExp(`^up \\d+ ${word} ${word}$`, 'm'));
  }
  await stack.cas.stop('SIGKILL');
  await stack.startCas();
  // Spent codes count as guesses, which would keep others of this host out.
  await running.seen(/WARNING.*the program goes on as it is: .*one-time password/i);
  assert.match(stack.cas.output(), /OTP_MISSING/);
  assert.doesNotMatch(stack.cas.output(), /OTP_(USED|INVALID|THROTTLED)/);
  assert.equal(await end(running), 0);
});

test('a CAS that is killed while nothing happens is found again, with what has changed meanwhile', async (t) => {
  const { id, change } = await session('one', {});
  const running = supervised(t, id);
  await running.seen(/^up/m);
  await stack.cas.stop('SIGKILL');
  await running.seen(/WARNING.*the program goes on as it is/);
  await stack.startCas();
  await change('two');
  await running.seen(/^up \d+ two two$/m);
  await change('three');
  await running.seen(/^up \d+ three three$/m);
  assert.equal(await end(running), 0);
});

test('a CAS that is killed after it has told of a change is asked for it once it is back', async (t) => {
  const { id, change } = await session('one', { debounce: '1s' });
  const running = supervised(t, id);
  await running.seen(/^up/m);
  await change('two');
  await running.seen(/the session has changed/);
  await stack.cas.stop('SIGKILL');
  await running.seen(/WARNING.*the program goes on as it is/);
  assert.deepEqual(words(running), ['up one one']);
  await stack.startCas();
  await running.seen(/^up \d+ two two$/m);
  await change('three');
  await running.seen(/^up \d+ three three$/m);
  assert.equal(await end(running), 0);
});

test('a LAS that is away when the session changes is waited for', async (t) => {
  const { id, change } = await session('one', {});
  const running = supervised(t, id);
  await running.seen(/^up/m);
  await stack.las.stop('SIGKILL');
  await change('two');
  await running.seen(/WARNING.*the program goes on as it is: .*LAS/);
  await stack.startLas();
  await running.seen(/^up \d+ two two$/m);
  await stack.las.stop();
  await stack.startLas();
  await change('three');
  await running.seen(/^up \d+ three three$/m);
  assert.equal(await end(running), 0);
});

test('where a file cannot be written, nothing changes, and a later version is taken up', async (t) => {
  const { id, file, change } = await session('one', {});
  const running = supervised(t, id);
  await running.seen(/^up/m);
  const other = join(folder(stack), 'gone', 'file');
  await change('two', {
    files: [
      { to: file, content: 'two' },
      { to: other, content: 'two' },
    ],
  });
  await running.seen(/ERROR.*the program goes on as it is: .*gone/);
  assert.equal(readFileSync(file, 'utf8'), 'one');
  await change('three');
  await running.seen(/^up \d+ three three$/m);
  assert.deepEqual(words(running), ['up one one', 'end one three', 'up three three']);
  assert.equal(await end(running), 0);
});

test('what could not be written is tried again until it can be', async (t) => {
  const { id, file, change } = await session('one', {});
  const running = supervised(t, id);
  await running.seen(/^up/m);
  const gone = join(folder(stack), 'gone');
  await change('two', {
    files: [
      { to: file, content: 'two' },
      { to: join(gone, 'file'), content: 'two' },
    ],
  });
  await running.seen(/ERROR.*the program goes on as it is: .*gone.* \(tried again in \d+ s\)/);
  mkdirSync(gone);
  await running.seen(/^up \d+ two two$/m);
  assert.equal(await end(running), 0);
});

test('where the file system is full, nothing changes, and a later version is taken up', async (t) => {
  const directory = folder(stack);
  const mounted =
    root && spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', directory]).status === 0;
  if (!mounted) return t.skip('no file system can be mounted');
  const file = join(directory, 'file');
  const files = (content: string) => [{ to: file, content }];
  const { id, change } = await session('one', {}, { environment: { FILE: file }, files: files('one') });
  const running = supervised(t, id);
  await running.seen(/^up/m);
  await change('two', { files: files('x'.repeat(100_000)) });
  await running.seen(/ERROR.*the program goes on as it is: .*no space left/);
  await change('three', { files: files('three') });
  await running.seen(/^up \d+ three three$/m);
  assert.deepEqual(words(running), ['up one one', 'end one three', 'up three three']);
  assert.equal(await end(running), 0);
});

test('where the new program is not what it must be, the old one goes on, and its files stay', async (t) => {
  const { id, file, change } = await session('one', {});
  const running = supervised(t, id);
  await running.seen(/^up/m);
  await change('two', { launcher: { sha256: 'ab'.repeat(32) } });
  await running.seen(/ERROR.*the program goes on as it is: .*/);
  assert.equal(readFileSync(file, 'utf8'), 'one');
  const sha256 = createHash('sha256').update(readFileSync(talker)).digest('hex');
  await change('three', { launcher: { sha256 } });
  await running.seen(/^up \d+ three three$/m);
  assert.deepEqual(words(running), ['up one one', 'end one three', 'up three three']);
  assert.equal(await end(running), 0);
});

for (const [how, expected] of [
  ['it exits', { status: 3, signal: null }],
  ['it is killed', { status: null, signal: 'SIGKILL' }],
  ['it cannot be started again', { status: 126, signal: null }],
] as const)
  test(`remove_files: once ${how}, files of all versions are gone`, async (t) => {
    const { id, file, change } = await session(
      'one',
      { on_change: { signal: 'SIGHUP' }, remove_files: true },
      { environment: { VALUE: 'x', STATUS: '3' } },
    );
    const running = supervised(t, id);
    await running.seen(/^up/m);
    const second = `${file}-2`;
    const files = [{ to: second, content: 'two' }];
    await change('two', { files });
    await running.seen(/^hup/m);
    for (const path of [file, second]) assert.ok(existsSync(path));
    if (how === 'it exits') running.child.kill('SIGTERM');
    else if (how === 'it is killed') process.kill(said(running)[0]?.pid ?? 0, 'SIGKILL');
    else {
      const program = join(fixtures, 'no-interpreter.sh');
      await change('three', { files, program, launcher: { supervise: { remove_files: true } } });
    }
    const { status, signal } = await running.finished;
    assert.deepEqual({ status, signal }, expected, running.output());
    for (const path of [file, second]) assert.ok(!existsSync(path));
  });

test('SCONE_START_TIMEOUT: a CAS that comes later is waited for', async (t) => {
  const { id } = await session('one', {});
  await stack.cas.stop('SIGKILL');
  const running = supervised(t, id, { SCONE_START_TIMEOUT: '1h' });
  await running.seen(/INFO.*trying again in \d+ ms/);
  await stack.startCas();
  await running.seen(/^up \d+ one one$/m);
  assert.equal(await end(running), 0);
});

test('without SCONE_START_TIMEOUT, or after it, a launch fails with the last cause', async (t) => {
  const SCONE_CAS_ENCLAVE_PORT = await closedPort();
  const once = await supervised(t, 's/main', { SCONE_CAS_ENCLAVE_PORT }).finished;
  const long = await supervised(t, 's/main', { SCONE_CAS_ENCLAVE_PORT, SCONE_START_TIMEOUT: '10s' }).finished;
  for (const { stderr } of [once, long]) assert.match(stderr, /^Code: CAS_UNREACHABLE, /m);
  assert.doesNotMatch(once.stderr, /trying again/);
  assert.match(long.stderr, /trying again/);
});

test('who is refused does not ask again', async (t) => {
  const { id } = await session('one', {}, { measurement: 'ab'.repeat(32) });
  const { stderr } = await supervised(t, id, { SCONE_START_TIMEOUT: '1h' }).finished;
  assert.match(stderr, /^Code: MEASUREMENT_/m);
  assert.doesNotMatch(stderr, /trying again/);
});

test('a one-time password that may have been spent is sent again as that of the same launch', async (t) => {
  const impostor = await startImpostor({ answer: Buffer.alloc(0) });
  t.after(() => impostor.close());
  const key = new X509Certificate(impostor.certificate).publicKey;
  const { stderr } = await supervised(t, 's/main@123456', {
    SCONE_CAS_ENCLAVE_PORT: impostor.port,
    SCONE_CAS_KEY: formatKeyHash(publicKeyDigest(key)),
    SCONE_START_TIMEOUT: '10s',
  }).finished;
  assert.match(stderr, /^Code: CAS_UNREACHABLE, /m);
  const requests = impostor.received().toString('latin1');
  const attempts = requests.match(/"attempt":"[\w+/]{43}="/g) ?? [];
  assert.ok(attempts.length > 1);
  assert.equal(requests.split('"123456"').length - 1, attempts.length);
  assert.equal(new Set(attempts).size, 1);
});

const clock = { skip: missingFaketime };

/** Another time, which is read anew from a file whenever somebody asks for it. */
function fakeClock(): { env: NodeJS.ProcessEnv; set(offset: string): void } {
  const path = join(folder(stack), 'time');
  const set = (offset: string) => writeFileSync(path, offset);
  set('+0');
  return { env: clockOf({ FAKETIME_TIMESTAMP_FILE: path }), set };
}

test('a launcher whose clock is set goes on to follow changes, and to wait for the CAS', clock, async (t) => {
  const { env, set } = fakeClock();
  set('+30d');
  const date = spawnSync('date', ['+%s'], { env: { ...process.env, ...env }, encoding: 'utf8' }).stdout;
  assert.ok(Number(date) > Date.now() / 1000 + 29 * 86_400, 'a process believes in the other time');
  set('+0');
  const { id, change } = await session('one', {}, { mode: 'none' });
  await stack.cas.stop('SIGKILL');
  const running = supervised(t, id, { ...env, SCONE_START_TIMEOUT: '1h' });
  await running.seen(/trying again/);
  set('+2d');
  await running.seen(/(trying again[\s\S]*){3}/);
  set('-2d');
  await stack.startCas();
  await running.seen(/^up/m);
  for (const [offset, word] of [
    ['+400d', 'two'],
    ['-400d', 'three'],
  ] as const) {
    set(offset);
    await change(word);
    await running.seen(new RegExp(`^up \\d+ ${word} ${word}$`, 'm'));
    await stack.cas.stop('SIGKILL');
    set('+0');
    await stack.startCas();
    await change(`${word}-more`);
    await running.seen(new RegExp(`^up \\d+ ${word}-more `, 'm'));
  }
  assert.equal(await end(running), 0);
});

test('a certificate that is made anew is a change', clock, async (t) => {
  const file = join(folder(stack), 'certificate');
  const { id } = await session(
    'x',
    { on_change: { signal: 'SIGHUP' } },
    {
      mode: 'none',
      environment: { FILE: '/dev/null' },
      secrets: {
        key: { kind: 'private-key' },
        certificate: { kind: 'x509', private_key: 'key', valid_for: '1 hour' },
      },
      files: [{ to: file, content: '$$SCONE::certificate:crt$$' }],
    },
  );
  const early = supervised(t, id);
  await early.seen(/^up/m);
  assert.equal(await end(early), 0);
  const issued = new X509Certificate(readFileSync(file));
  const { env, set } = fakeClock();
  await stack.cas.stop();
  await stack.startCas(env);
  // A third of the hour is left once the launch has had its time, for which the CAS has to wait.
  const most = issued.validToDate.getTime() - 20 * 60_000;
  set(`+${Math.floor((most - Date.now()) / 1000) - 10}`);
  t.after(async () => {
    await stack.cas.stop();
    await stack.startCas();
  });
  const running = supervised(t, id);
  await running.seen(/^up[\s\S]*^hup/m);
  const renewed = new X509Certificate(readFileSync(file));
  assert.notEqual(renewed.serialNumber, issued.serialNumber);
  assert.ok(renewed.publicKey.equals(issued.publicKey));
  assert.equal(await end(running), 0);
});
