import assert from 'node:assert/strict';
import type { SpawnOptions } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  constants as fileConstants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatKeyHash, publicKeyDigest } from '../../src/policy/key-hash.ts';
import { hidden, lacking, missing, type Result, run, type Stack, startStack } from '../support/stack.ts';
import { until } from '../support/until.ts';
import {
  assertEmpty,
  assertFailed,
  fixtures,
  folder,
  NOBODY,
  noOthers,
  noteOf,
  openToOthers,
  type Policy,
  type Running,
  start,
  startImpostor,
  upload,
} from './support.ts';

/** What a program may expect of the launcher that starts it, tried with programs of others in both ways of starting. */

let stack: Stack;
before(async () => {
  stack = await startStack();
  openToOthers(stack);
});

/** The part of a launcher's configuration that decides how the launcher stands to the program. */
const modes = [
  ['in place', {}],
  ['supervised', { supervise: {} }],
] as const;

const withRedaction = [...modes, ['supervised and redacted', { supervise: { redact: true } }]] as const;

const { signals } = constants;
const noPython = missing('python3');
const python = noPython
  ? ''
  : run('python3', ['-c', 'import sys; print(sys.executable)'], process.env).stdout.trim();
const catcher = { program: python };
const catching = [join(fixtures, 'signals.py')];

const uploaded = new Map<string, Promise<string>>();

/** Config id of a service; unless told otherwise its program is `sh -c`, with the first host argument as script. */
function service(config: object, policy: Policy = {}): Promise<string> {
  const written = JSON.stringify({ program: '/bin/sh', ...config });
  const key = written + JSON.stringify(policy);
  const known =
    uploaded.get(key) ?? upload(stack, { mode: 'none', command: ['-c', '@@1'], ...policy, config: written });
  uploaded.set(key, known);
  return known;
}

interface How extends SpawnOptions {
  args?: string[];
  /** What starts the launcher, with the launcher and its arguments as its own last ones. */
  by?: string[];
}

/** Starts a launch that has no controlling terminal, wherever this test is run. */
function begin(id: string, { args = [], by = [], ...options }: How = {}): Running {
  const [command = '', ...rest] = [...by, stack.envcas, ...args];
  return start(command, rest, {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    ...options,
    env: { ...stack.env, SCONE_CONFIG_ID: id, ...options.env },
  });
}

const launched = (id: string, how: How = {}): Promise<Result> => begin(id, how).finished;

/** What a script prints that is the program of a launch that succeeds. */
async function printed(config: object, script: string, how: How = {}, policy: Policy = {}): Promise<string> {
  const { status, signal, stdout, stderr } = await launched(await service(config, policy), {
    ...how,
    args: [script, ...(how.args ?? [])],
  });
  assert.deepEqual({ status, signal, stderr }, { status: 0, signal: null, stderr: '' });
  return stdout;
}

/** Starts the program that tells of its signals. */
async function beginCatching(config: object, args: string[] = []) {
  const id = await service({ ...config, ...catcher }, { command: [...catching, ...args] });
  const running = begin(id, { stdio: ['pipe', 'pipe', 'pipe'] });
  await running.seen(/ready \d+ \d+\n/);
  const [, program = '', parent = ''] = /ready (\d+) (\d+)/.exec(running.output()) ?? [];
  return {
    ...running,
    program: Number(program),
    parent: Number(parent),
    /** How often each signal has come in all. */
    async counts(): Promise<Record<string, number>> {
      running.child.stdin?.end();
      await running.seen(/counts .*\n/);
      return JSON.parse(/counts (.*)/.exec(running.output())?.[1] ?? '') as Record<string, number>;
    },
  };
}

/** The lines of /proc/PID/status (proc_pid_status(5)). */
function statusOf(text: string): Record<string, string> {
  return Object.fromEntries(text.split('\n').map((line) => line.split(/:\s*/, 2) as [string, string]));
}

const stateOf = (pid: number) => statusOf(readFileSync(`/proc/${pid}/status`, 'utf8')).State?.[0];

describe('signals', { skip: noPython }, () => {
  const all = Array.from({ length: 31 }, (_, index) => index + 1);
  const catchable = all.filter((number) => number !== signals.SIGKILL && number !== signals.SIGSTOP);
  /** Each is about the process that gets it. */
  const kept: number[] = (['SIGCHLD', 'SIGPIPE', 'SIGSEGV', 'SIGBUS', 'SIGFPE', 'SIGILL'] as const).map(
    (name) => signals[name],
  );
  for (const [mode, config] of modes) {
    const reaching = mode === 'in place' ? catchable : catchable.filter((number) => !kept.includes(number));

    test(`${mode}: each of the ${reaching.length} signals reaches the program exactly once`, async () => {
      const running = await beginCatching(config);
      for (const number of reaching) {
        running.child.kill(number as unknown as NodeJS.Signals);
        await running.seen(new RegExp(`got ${number}\n`));
      }
      assert.deepEqual(await running.counts(), Object.fromEntries(reaching.map((number) => [number, 1])));
      assert.equal((await running.finished).status, 0);
    });

    test(`${mode}: SIGSTOP stops the launcher, SIGCONT continues it and reaches the program exactly once`, {
      skip: mode === 'supervised' && hidden,
    }, async () => {
      const running = await beginCatching(config);
      const pid = running.child.pid ?? 0;
      running.child.kill('SIGSTOP');
      await until(() => stateOf(pid) === 'T', 'the state of a process');
      running.child.kill('SIGCONT');
      await running.seen(new RegExp(`got ${signals.SIGCONT}\n`));
      assert.deepEqual(await running.counts(), { [signals.SIGCONT]: 1 });
    });

    test(`${mode}: a program that is stopped goes on at SIGCONT to the launcher`, async () => {
      const running = await beginCatching(config);
      process.kill(running.program, 'SIGSTOP');
      await until(() => stateOf(running.program) === 'T', 'the state of a process');
      running.child.kill('SIGCONT');
      await running.seen(new RegExp(`got ${signals.SIGCONT}\n`));
      assert.deepEqual(await running.counts(), { [signals.SIGCONT]: 1 });
    });
  }

  test('supervised: SIGTSTP stops the program, and SIGCONT continues all of its process group', async () => {
    const id = await service({ supervise: {} });
    const running = begin(id, { args: ['sleep 1000 & echo ready $$ $!; wait; exit 3'] });
    await running.seen(/ready \d+ \d+\n/);
    const [, shell = '', child = ''] = /ready (\d+) (\d+)/.exec(running.output()) ?? [];
    process.kill(Number(child), 'SIGSTOP');
    running.child.kill('SIGTSTP');
    await until(
      () => stateOf(Number(shell)) === 'T' && stateOf(Number(child)) === 'T',
      'the state of a process',
    );
    running.child.kill('SIGCONT');
    await until(
      () => stateOf(Number(shell)) === 'S' && stateOf(Number(child)) === 'S',
      'the state of a process',
    );
    process.kill(Number(child), 'SIGTERM');
    assert.equal((await running.finished).status, 3);
  });

  test('supervised: what tells of a child or a pipe of the launcher is not handed on', async () => {
    const running = await beginCatching({ supervise: {} });
    running.child.kill('SIGCHLD');
    running.child.kill('SIGPIPE');
    running.child.kill('SIGUSR1');
    await running.seen(new RegExp(`got ${signals.SIGUSR1}\n`));
    assert.deepEqual(await running.counts(), { [signals.SIGUSR1]: 1 });
  });

  test('in place: SIGKILL ends the program', async () => {
    const running = await beginCatching({});
    assert.equal(running.program, running.child.pid);
    running.child.kill('SIGKILL');
    assert.equal((await running.finished).signal, 'SIGKILL');
  });

  test('supervised: SIGKILL, which nobody can hand on, ends the launcher alone', async () => {
    const running = await beginCatching({ supervise: {} });
    assert.equal(running.parent, running.child.pid);
    const ended = new Promise((resolve) => running.child.on('exit', (_, signal) => resolve(signal)));
    running.child.kill('SIGKILL');
    assert.equal(await ended, 'SIGKILL');
    assert.deepEqual(await running.counts(), {});
  });

  for (const [mode, config] of modes)
    test(`${mode}: none is ignored, blocked or caught in the program, and none is pending`, async () => {
      const { SigIgn, SigBlk, SigCgt, SigPnd, ShdPnd } = statusOf(
        await printed(config, 'exec cat /proc/self/status'),
      );
      const none = '0'.repeat(16);
      assert.deepEqual([SigIgn, SigBlk, SigCgt, SigPnd, ShdPnd], [none, none, none, none, none]);
    });
});

describe('the end of the program is seen by the caller', { concurrency: 2 }, () => {
  const deaths = [
    ...([
      'SIGHUP',
      'SIGINT',
      'SIGQUIT',
      'SIGILL',
      'SIGTRAP',
      'SIGABRT',
      'SIGBUS',
      'SIGFPE',
      'SIGKILL',
    ] as const),
    ...(['SIGUSR1', 'SIGSEGV', 'SIGUSR2', 'SIGPIPE', 'SIGALRM', 'SIGTERM', 'SIGXCPU', 'SIGXFSZ'] as const),
    ...(['SIGVTALRM', 'SIGPROF', 'SIGIO', 'SIGSYS'] as const),
  ];
  for (const [mode, config] of modes) {
    for (const status of [0, 1, 2, 37, 126, 127, 128, 255])
      test(`${mode}: exit status ${status}`, async () => {
        const result = await launched(await service(config), { args: [`exit ${status}`] });
        assert.deepEqual(result, { status, signal: null, stdout: '', stderr: '' });
      });
    for (const signal of deaths)
      test(`${mode}: death by ${signal}`, async () => {
        const args = [`ulimit -c 0; kill -${signals[signal]} $$`];
        const result = await launched(await service(config), { args });
        assert.deepEqual(result, { status: null, signal, stdout: '', stderr: '' });
      });
  }
});

describe('as the first process of a container', {
  skip: lacking('SYS_ADMIN') || missing('unshare'),
}, () => {
  const by = ['unshare', '--pid', '--fork', '--mount-proc'];
  const orphans = { command: [join(fixtures, 'orphans.sh'), '@@1'] };
  for (const [what, end, status] of [
    ['exit status 37 is seen', 'exit 37', 37],
    ['death by SIGTERM is seen as 128 + 15', 'kill -TERM $$', 143],
    ['death by SIGKILL is seen as 128 + 9', 'kill -KILL $$', 137],
  ] as const)
    test(`supervised: 300 orphans leave no zombie, and ${what}`, async () => {
      const result = await launched(await service({ supervise: {} }, orphans), { by, args: [end] });
      assert.deepEqual(result, { status, signal: null, stdout: 'zombies: 0\n', stderr: '' });
    });

  test('supervised: an orphan that ends is not taken for the program', async () => {
    const script = '(sh -c "exit 5" &); sleep 0.3; exit 6';
    const result = await launched(await service({ supervise: {} }), { by, args: [script] });
    assert.equal(result.status, 6);
  });

  test('supervised: a signal from outside reaches the program', async () => {
    const script = 'trap "echo trapped; exit 9" TERM; echo ready $PPID; while :; do sleep 0.05; done';
    const running = begin(await service({ supervise: {} }), { by, args: [script] });
    await running.seen(/ready 1\n/);
    const [launcher] = childrenOf(running.child.pid ?? 0);
    process.kill(launcher ?? 0, 'SIGTERM');
    const { status, stdout } = await running.finished;
    assert.deepEqual({ status, stdout }, { status: 9, stdout: 'ready 1\ntrapped\n' });
  });

  test('in place: the program is that process', async () => {
    assert.equal(await printed({}, 'echo $$', { by }), '1\n');
  });
});

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number);
}

describe('standard streams that the caller has closed', { concurrency: 2 }, () => {
  for (const [mode, config] of withRedaction)
    for (const closed of [[0], [1], [2], [0, 1], [1, 2], [0, 2], [0, 1, 2]])
      test(`${mode}: ${closed.join(', ')} lead nowhere, and the exit status is right`, async () => {
        const report = join(folder(stack), 'report');
        // A subshell, so that the shell itself has no files of its own open meanwhile.
        const look = 'for fd in 0 1 2; do readlink /proc/$$/fd/$fd; done; ls /proc/$$/fd';
        const script = `(${look}) >"${report}" 2>&1; exit 37`;
        const by = ['sh', '-c', `exec "$0" "$@" ${closed.map((fd) => `${fd}>&-`).join(' ')}`];
        const { status, stdout, stderr } = await launched(await service(config), { by, args: [script] });
        assert.deepEqual({ status, stdout, stderr }, { status: 37, stdout: '', stderr: '' });
        const lines = readFileSync(report, 'utf8').trim().split('\n');
        for (const fd of closed)
          if (mode !== 'supervised and redacted' || fd === 0) assert.equal(lines[fd], '/dev/null', `${fd}`);
        assert.deepEqual(lines.slice(3), ['0', '1', '2']);
      });
});

describe('standard streams', () => {
  for (const [mode, config] of withRedaction)
    test(`${mode}: block as they did, during the launch and after it`, async () => {
      const look = 'grep -h flags /proc/self/fdinfo/[012]';
      const by = ['sh', '-c', `: | { "$0" "$@"; ${look}; } 2>&1 | cat`];
      const { stdout } = await launched(await service(config), { by, args: [`${look}; kill -KILL $$`] });
      const flags = stdout.match(/(?<=flags:\s+)\d+/g) ?? [];
      assert.equal(flags.length, 6, stdout);
      for (const written of flags)
        assert.equal(Number.parseInt(written, 8) & fileConstants.O_NONBLOCK, 0, stdout);
    });

  for (const [mode, config] of modes)
    test(`${mode}: nothing of standard input is taken before the program reads it`, async () => {
      const running = begin(await service(config), {
        args: ['read -r first; echo "$first"; exec cat'],
        stdio: ['pipe', 'pipe', 'pipe'],
      });
      running.child.stdin?.end(`one\n${'two'.repeat(50_000)}`);
      assert.equal((await running.finished).stdout, `one\n${'two'.repeat(50_000)}`);
    });
});

describe('descriptors', () => {
  /** Those that Node itself uses are among them. */
  const asked = [3, 4, 5, 7, 10, 12, 16, 17, 20, 21, 22, 25, 30];
  const files = asked.map((fd) => ({ from: `/injected/${fd}`, to: { fd } }));
  const contents = asked.map((fd) => ({ from: `/injected/${fd}`, to: '', content: `text of ${fd}` }));
  /** What the shell itself has, what each holds, and whether any can be written to. */
  const look = `ls /proc/$$/fd; for fd in "$@"; do cat /proc/self/fd/$fd; echo; done;
    for fd in "$@"; do (echo other >/proc/self/fd/$fd) 2>/dev/null && echo writable; done; :`;
  const expected = [0, 1, 2, ...asked]
    .map(String)
    .sort()
    .concat(asked.map((fd) => `text of ${fd}`));
  const digest = () => sha256(realpathSync('/bin/sh'));

  test('that are put where Node has its own are not seen by threads that wait by those', () => {
    const script = join(fixtures, 'descriptors.ts');
    const result = run(process.execPath, ['--disable-warning=ExperimentalWarning', script], {});
    assert.deepEqual(result, { status: 0, signal: null, stdout: 'replaced\n', stderr: '' });
  });

  for (const [mode, config] of modes) {
    const withOthers = (): SpawnOptions => {
      const other = openSync('/etc/passwd', 'r');
      const many = Array.from({ length: 28 }, () => other);
      const none = Array.from({ length: 20 }, () => 'ignore' as const);
      return { stdio: ['ignore', 'pipe', 'pipe', ...many, ...none, other] };
    };

    test(`${mode}: those of the caller, 3 to 30, are not in the program`, async () => {
      assert.equal(await printed(config, 'ls /proc/$$/fd', withOthers()), '0\n1\n2\n');
    });

    for (const [what, more] of [
      ['', () => ({})],
      [', also of a program with a sha256', () => ({ sha256: digest() })],
    ] as const)
      test(`${mode}: those asked for are in the program, at their paths, and sealed${what}`, async () => {
        const policy = { command: ['-c', '@@1', 'sh', ...asked.map(String)], files: contents as never };
        const output = await printed(
          { ...config, ...more(), injection_files: files },
          look,
          withOthers(),
          policy,
        );
        assert.deepEqual(output.trim().split('\n'), expected);
      });

    test(`${mode}: a path in arguments and environment leads to what was asked for`, async () => {
      const output = await printed(
        { ...config, program: '/usr/bin/env', injection_files: files },
        '',
        {},
        {
          command: ['/bin/sh', '-c', 'cat "$0" "$FILE"', '/proc/self/fd/16'],
          environment: { FILE: '/proc/self/fd/21' },
          files: contents as never,
        },
      );
      assert.equal(output, 'text of 16text of 21');
    });

    for (const [what, more, code] of [
      ['is too large for the kernel', { environment: { LARGE: '$$SCONE::large$$' } }, 'ARGUMENTS_TOO_LARGE'],
      ['cannot be executed', {}, 'PROGRAM_NOT_EXECUTABLE'],
    ] as const)
      test(`${mode}: a program that has taken the launcher's own, and ${what}, is told of as any`, async () => {
        const id = await service(
          {
            ...config,
            injection_files: Array.from({ length: 40 }, (_, at) => ({
              from: '/injected/0',
              to: { fd: at + 3 },
            })),
            ...(code === 'PROGRAM_NOT_EXECUTABLE' && { program: join(fixtures, 'no-shebang') }),
          },
          { files: [{ to: '', content: 'text' }], secrets: { large }, ...more },
        );
        assertFailed(await launched(id, { args: [''] }), code, { note: noteOf(stack, id) });
      });
  }
});

const sha256 = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');
const large = { kind: 'ascii', value: 'x'.repeat(140_000) } as const;

describe('a launch that fails at its very end, files being written already', () => {
  for (const [mode, config] of modes) {
    const policy = (more: Policy): Policy => ({ files: [{ to: '', content: 'new' }], ...more });
    const attempt = async (more: object, given: Policy, how: How = {}) => {
      const directory = folder(stack);
      writeFileSync(join(directory, 'file'), 'old', { mode: 0o640 });
      const made = join(directory, 'made');
      const id = await service(
        {
          ...config,
          directories: [{ path: made }],
          injection_files: ['file', 'other', 'made/file'].map((name) => ({
            from: '/injected/0',
            to: join(directory, name),
          })),
          ...more,
        },
        policy(given),
      );
      const result = await launched(id, { args: ['true'], ...how });
      assert.deepEqual(readdirSync(directory), ['file']);
      assert.equal(readFileSync(join(directory, 'file'), 'utf8'), 'old');
      assert.equal(statSync(join(directory, 'file')).mode & 0o777, 0o640);
      return { result, id };
    };

    test(`${mode}: one variable of 140 kB is too large, and files are put back`, async () => {
      const { result, id } = await attempt(
        {},
        { secrets: { large }, environment: { LARGE: '$$SCONE::large$$' } },
      );
      assertFailed(result, 'ARGUMENTS_TOO_LARGE', { note: noteOf(stack, id), says: ['E2BIG', '128 KiB'] });
    });

    test(`${mode}: 7 MB of variables are too large, and files are put back`, async () => {
      const value = 'x'.repeat(100_000);
      const names = Array.from({ length: 70 }, (_, index) => [`LARGE_${index}`, '$$SCONE::large$$']);
      const { result, id } = await attempt(
        {},
        { secrets: { large: { kind: 'ascii', value } }, environment: Object.fromEntries(names) },
      );
      assertFailed(result, 'ARGUMENTS_TOO_LARGE', { note: noteOf(stack, id), says: ['E2BIG'] });
    });

    for (const [what, program, code] of [
      ['is of no known format', 'no-shebang', 'PROGRAM_NOT_EXECUTABLE'],
      ['names an interpreter that is not there', 'no-interpreter.sh', 'PROGRAM_NOT_EXECUTABLE'],
    ] as const)
      test(`${mode}: a program that ${what} ends with 126, and files are put back`, async () => {
        const { result, id } = await attempt({ program: join(fixtures, program) }, {});
        assertFailed(result, code, { note: noteOf(stack, id), exit: 126 });
      });

    test(`${mode}: a program that is not there ends with 127, and files are put back`, async () => {
      const { result, id } = await attempt({ program: '/nonexistent/program' }, {});
      assertFailed(result, 'PROGRAM_MISSING', { note: noteOf(stack, id), exit: 127 });
    });
  }
});

describe('sha256', () => {
  /** Two programs of which one would leave a trace. */
  const echo = realpathSync('/bin/echo');
  const touch = realpathSync('/usr/bin/touch');
  const other = 'ab'.repeat(32);

  for (const [mode, config] of modes) {
    /** A copy of a program, and how it is launched with a file to write and the path of a trace. */
    const prepare = async (digests: string | string[], from = echo, further = 0) => {
      const directory = folder(stack);
      const bin = join(directory, 'bin');
      mkdirSync(bin, { mode: 0o755 });
      const program = join(bin, 'program');
      copyFileSync(from, program);
      chmodSync(program, 0o755);
      const [written, trace] = [join(directory, 'written'), join(directory, 'trace')];
      const targets = [written, ...Array.from({ length: further }, (_, index) => `${written}-${index}`)];
      const id = await service(
        {
          ...config,
          program,
          sha256: digests,
          injection_files: targets.map((to) => ({ from: '/injected/0', to })),
        },
        { command: ['@@1'], files: [{ to: '', content: 'text' }] },
      );
      return { directory, bin, program, written, trace, id, launch: () => launched(id, { args: [trace] }) };
    };

    for (const [what, digests] of [
      ['that is right', sha256(echo)],
      ['that is one of a list', [other, sha256(echo)]],
    ] as const)
      test(`${mode}: a program ${what} is started`, async () => {
        const { launch, trace, written } = await prepare([digests].flat());
        assert.deepEqual(await launch(), { status: 0, signal: null, stdout: `${trace}\n`, stderr: '' });
        assert.ok(existsSync(written));
      });

    test(`${mode}: another program is refused with 77, and no file is written`, async () => {
      const { launch, written, trace, id } = await prepare([other, sha256(echo)], touch);
      assertFailed(await launch(), 'PROGRAM_UNEXPECTED', {
        note: noteOf(stack, id),
        exit: 77,
        says: [sha256(touch), other, sha256(echo)],
      });
      assert.ok(!existsSync(written) && !existsSync(trace));
    });

    test(`${mode}: a script is started, by what was checked`, async () => {
      const script = join(folder(stack), 'script');
      writeFileSync(script, '#!/bin/sh\necho "script $1"\n', { mode: 0o755 });
      const { launch, trace } = await prepare(sha256(script), script);
      assert.equal((await launch()).stdout, `script ${trace}\n`);
    });

    test(`${mode}: a program that its group may write to is refused`, async () => {
      const { launch, program, written, id } = await prepare(sha256(echo));
      chmodSync(program, 0o775);
      assertFailed(await launch(), 'PROGRAM_CHANGEABLE', { note: noteOf(stack, id), exit: 77 });
      assert.ok(!existsSync(written));
    });

    test(`${mode}: a program of somebody else is refused`, { skip: noOthers }, async () => {
      const { launch, program, written, id } = await prepare(sha256(echo));
      chownSync(program, NOBODY, NOBODY);
      assertFailed(await launch(), 'PROGRAM_CHANGEABLE', { note: noteOf(stack, id), exit: 77 });
      assert.ok(!existsSync(written));
    });

    /** Launches over and over; a shell does something to the program as soon as it was checked and files are written. */
    const meddle = async (script: string, look: (result: Result) => void) => {
      const { launch, bin, program, written, trace, directory } = await prepare(sha256(echo), echo, 100);
      const [next, old] = [join(directory, 'next'), join(directory, 'old')];
      for (let round = 0; round < 6; round++) {
        for (const path of [bin, next, old, written]) rmSync(path, { recursive: true, force: true });
        for (const [from, to] of [
          [echo, bin],
          [touch, next],
        ] as const) {
          mkdirSync(to, { mode: 0o755 });
          copyFileSync(from, join(to, 'program'));
          chmodSync(join(to, 'program'), 0o755);
        }
        const waiting = `while [ ! -e "$1" ]; do :; done; ${script}`;
        const { child, finished } = start('/bin/sh', ['-c', waiting, 'sh', written, bin, next, old], {});
        const result = await launch();
        child.kill();
        await finished;
        assert.ok(!existsSync(trace), `the other program was run instead of ${program}: ${result.stderr}`);
        if (result.status === 0) assert.equal(result.stdout, `${trace}\n`);
        else assert.match(result.stderr, /^Code: PROGRAM_(CHANGEABLE|NOT_EXECUTABLE), /m);
        look(result);
      }
    };

    test(`${mode}: where its folder is replaced between check and start, the program that was checked is run`, async () => {
      await meddle('mv "$2" "$4"; mv "$3" "$2"', ({ status, stderr }) => assert.equal(status, 0, stderr));
    });

    for (const [what, script] of [
      ['is replaced', 'mv "$3/program" "$2/program"'],
      ['is changed in place', 'cat "$3/program" >"$2/program"'],
    ] as const)
      test(`${mode}: a program that ${what} between check and start is not run as another one`, async () => {
        await meddle(script, () => {});
      });
  }
});

describe('user, group, umask and pwd', {
  skip: noOthers || lacking('SYS_ADMIN') || missing('unshare', 'mount'),
}, () => {
  /** A host with a user of several groups. */
  const onHost = (...by: string[]): How => {
    const directory = folder(stack);
    const place = (name: string, lines: string[]) => {
      const path = join(directory, name);
      writeFileSync(path, `${lines.join('\n')}\n`);
      return path;
    };
    chmodSync(directory, 0o755);
    const passwd = place('passwd', ['root:x:0:0::/:/bin/sh', 'tester:x:4321:4322::/:/bin/sh']);
    const group = place('group', [
      'root:x:0:',
      'own:x:4322:',
      'one:x:4323:tester',
      'two:x:4324:tester,root',
      'not:x:4325:root',
    ]);
    const script = 'mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/group && shift 2 && exec "$@"';
    return { by: ['unshare', '--mount', 'sh', '-c', script, 'sh', passwd, group, ...by] };
  };
  const ids = (id: number) => Array(4).fill(id).join('\t');
  const noCapability = '0'.repeat(16);

  for (const [mode, config] of modes) {
    for (const [what, asked, uid, gid, groups] of [
      ['a user has its own groups', { user: 'tester' }, 4321, 4322, '4322 4323 4324'],
      ['a user by number is the same', { user: 4321 }, 4321, 4322, '4322 4323 4324'],
      ['a user and a group', { user: 'tester', group: 'not' }, 4321, 4325, '4323 4324 4325'],
      ['a number that no user has, and a group', { user: 4399, group: 4399 }, 4399, 4399, '4399'],
    ] as const)
      test(`${mode}: ${what}; all ids are changed and no capability is left`, async () => {
        const status = statusOf(
          await printed({ ...config, ...asked }, 'exec cat /proc/self/status', onHost()),
        );
        assert.deepEqual([status.Uid, status.Gid, status.Groups?.trim()], [ids(uid), ids(gid), groups]);
        const { CapPrm, CapEff, CapAmb } = status;
        assert.deepEqual([CapPrm, CapEff, CapAmb], [noCapability, noCapability, noCapability]);
      });

    test(`${mode}: a group alone`, async () => {
      const status = statusOf(
        await printed({ ...config, group: 'own' }, 'exec cat /proc/self/status', onHost()),
      );
      assert.deepEqual([status.Uid, status.Gid, status.Groups?.trim()], [ids(0), ids(4322), '4322']);
    });

    test(`${mode}: another user gets no ambient capability of the launcher`, {
      skip: missing('setpriv'),
    }, async () => {
      const ambient = ['setpriv', '--inh-caps', '+net_raw', '--ambient-caps', '+net_raw'];
      const script = 'exec cat /proc/self/status';
      const status = statusOf(await printed({ ...config, user: 'tester' }, script, onHost(...ambient)));
      assert.deepEqual(
        [status.CapPrm, status.CapEff, status.CapAmb],
        [noCapability, noCapability, noCapability],
      );
    });

    test(`${mode}: another user who may lock no memory gets a megabyte of variables`, async () => {
      const names = Array.from({ length: 10 }, (_, index) => [`LARGE_${index}`, '$$SCONE::large$$']);
      const policy: Policy = {
        secrets: { large: { kind: 'ascii', value: 'x'.repeat(100_000) } },
        environment: Object.fromEntries(names),
      };
      const limited = onHost('sh', '-c', 'ulimit -l 64; exec "$@"', 'sh');
      const script = 'cat /proc/$$/environ | wc -c';
      assert.equal(
        await printed({ ...config, user: 'tester' }, script, limited, policy),
        `${10 * (100_000 + 'LARGE_0=\0'.length)}\n`,
      );
    });

    test(`${mode}: umask and working directory are as asked for`, async () => {
      const pwd = realpathSync(folder(stack));
      chmodSync(pwd, 0o755);
      const more = { umask: '0027', pwd, user: 'tester' };
      assert.equal(await printed({ ...config, ...more }, 'umask; pwd', onHost()), `0027\n${pwd}\n`);
    });

    test(`${mode}: another user reads the descriptors that were asked for, of a checked program too`, async () => {
      const injection_files = [3, 10, 16, 21].map((fd) => ({ from: '/injected/0', to: { fd } }));
      const script = 'ls /proc/$$/fd; for fd in 3 10 16 21; do cat /proc/self/fd/$fd; done; id -u';
      const more = { user: 'tester', sha256: sha256(realpathSync('/bin/sh')), injection_files };
      const policy: Policy = { files: [{ to: '', content: 'text\n' }] };
      assert.equal(
        await printed({ ...config, ...more }, script, onHost(), policy),
        '0\n1\n10\n16\n2\n21\n3\ntext\ntext\ntext\ntext\n4321\n',
      );
    });

    test(`${mode}: another user runs a script that was checked`, async () => {
      const script = join(folder(stack), 'script');
      writeFileSync(script, '#!/bin/sh\nid -u\n', { mode: 0o755 });
      chmodSync(join(script, '..'), 0o755);
      const more = { user: 'tester', sha256: sha256(script), program: script };
      assert.equal(await printed({ ...config, ...more }, '', onHost()), '4321\n');
    });

    for (const [code, asked] of [
      ['USER_UNKNOWN', { user: 'nosuchuser' }],
      ['GROUP_UNKNOWN', { group: 'nosuchgroup' }],
    ] as const)
      test(`${mode}: ${code}`, async () => {
        const directory = folder(stack);
        const injection_files = [{ from: '/injected/0', to: join(directory, 'file') }];
        const policy: Policy = { files: [{ to: '', content: 'text' }] };
        const id = await service({ ...config, ...asked, injection_files }, policy);
        assertFailed(await launched(id, { args: ['true'] }), code, { note: noteOf(stack, id), exit: 78 });
        assertEmpty(directory);
      });

    for (const [who, asked] of [
      ['another user', { user: 1 }],
      ['root', { user: 0 }],
      ['another group', { group: 0 }],
    ] as const)
      test(`${mode}: ${who} is refused to a launcher that is not root`, async () => {
        const id = await service({ ...config, ...asked });
        const result = await launched(id, { args: ['true'], uid: NOBODY, gid: NOBODY });
        assertFailed(result, 'USER_NOT_PERMITTED', { note: noteOf(stack, id), exit: 78 });
      });

    test(`${mode}: a launcher that is not root may name its own user and group`, async () => {
      const as = { uid: NOBODY, gid: NOBODY };
      assert.equal(
        await printed({ ...config, user: NOBODY, group: NOBODY }, 'id -u; id -g', as),
        `${NOBODY}\n${NOBODY}\n`,
      );
    });
  }
});

describe('a launcher that supervises', () => {
  test('cannot be read by its user, and the program can', { skip: noOthers }, async () => {
    const running = begin(await service({ supervise: {} }), {
      args: ['echo $$ ready; exec cat'],
      uid: NOBODY,
      gid: NOBODY,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    await running.seen(/ready/);
    // proc(5): the files of a process that is not dumpable belong to root.
    const owner = (pid: number | undefined) => statSync(`/proc/${pid}/environ`).uid;
    assert.deepEqual([owner(running.child.pid), owner(Number.parseInt(running.output(), 10))], [0, NOBODY]);
    running.child.stdin?.end();
    await running.finished;
  });
});

test('on a host with swap, memory is kept out of it while the CAS is at work, and no longer', {
  skip: noOthers || lacking('SYS_ADMIN') || noPython || missing('unshare', 'mount'),
}, async (t) => {
  const swaps = join(folder(stack), 'swaps');
  writeFileSync(swaps, `Filename Type Size Used Priority\n/swapfile file 1048576 0 -2\n`);
  const script = 'mount --bind "$1" /proc/swaps && shift && exec "$@"';
  const by = ['unshare', '--mount', 'sh', '-c', script, 'sh', swaps];
  const locked = (pid: number | undefined) =>
    Number.parseInt(statusOf(readFileSync(`/proc/${pid}/status`, 'utf8')).VmLck ?? '', 10);

  const impostor = await startImpostor();
  t.after(() => impostor.close());
  const env = {
    SCONE_CAS_ENCLAVE_PORT: impostor.port,
    SCONE_CAS_KEY: formatKeyHash(publicKeyDigest(new X509Certificate(impostor.certificate).publicKey)),
    SCONE_START_TIMEOUT: '1h',
  };
  const { pid } = begin(await service({}), { by, env }).child;
  await impostor.asked;
  await until(() => locked(pid) > 0, 'locked memory, or none');
  impostor.close();
  await until(() => locked(pid) === 0, 'locked memory, or none');

  const id = await service({ supervise: {}, ...catcher }, { command: catching });
  const running = begin(id, { by, stdio: ['pipe', 'pipe', 'pipe'] });
  await running.seen(/ready \d+ \d+\n/);
  assert.equal(locked(running.child.pid), 0);
  running.child.stdin?.end();
  await running.finished;
});

for (const [mode, config] of modes)
  test(`${mode}: nothing of the launcher is in the program`, async () => {
    const script =
      'cd /proc/$$; ls task | wc -l; ls fd; cat environ maps; grep VmLck status; exec cat timerslack_ns';
    const output = await printed(config, script, { cwd: '/' });
    assert.match(output, /^1\n0\n1\n2\n/);
    assert.match(output, /VmLck:\s+0 kB\n50000\n$/);
    assert.ok(output.includes(realpathSync('/bin/sh')), output);
    for (const part of ['envcas', 'SCONE', 'node', 'memfd'])
      assert.ok(!output.includes(part), `${part} is in ${output}`);
  });

describe('in a terminal', { skip: noPython || missing('bash') }, () => {
  interface Terminal {
    type(text: string): void;
    /** Resolves when something matches that was written since the last match. */
    shows(pattern: RegExp): Promise<RegExpExecArray>;
    close(): void;
  }

  /** Runs a command as the first one in a terminal of its own. */
  function terminal(command: string[], env: Record<string, string> = {}): Terminal {
    const script = 'import pty, sys; pty.spawn(sys.argv[1:])';
    const running = start(python, ['-c', script, ...command], {
      env: { ...stack.env, ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let isOver = false;
    void running.finished.then(() => {
      isOver = true;
    });
    let from = 0;
    return {
      type: (text) => void running.child.stdin?.write(text),
      async shows(pattern) {
        for (let patience = 3000; ; patience--) {
          const match = pattern.exec(running.output().slice(from));
          if (match) {
            from += match.index + match[0].length;
            return match;
          }
          assert.ok(!isOver && patience > 0, `no ${pattern} after ${JSON.stringify(running.output())}`);
          await sleep(10);
        }
      },
      close: () => void running.child.kill('SIGKILL'),
    };
  }

  /** An interactive shell with job control. */
  async function shell(): Promise<Terminal> {
    const its = terminal(['bash', '--norc', '--noprofile', '--noediting', '-i'], {
      PS1: '[prompt]',
      E: stack.envcas,
    });
    its.type('stty -echo; set -o pipefail; echo begin-$((40 + 2))\n');
    await its.shows(/begin-42/);
    await its.shows(prompt);
    return its;
  }

  const prompt = /\[prompt\]/;

  /** Waits for the shell, has it read what is typed, and gives what it makes of the last command. */
  async function statusIn(its: Terminal, expression = '$?'): Promise<number> {
    await its.shows(prompt);
    its.type(`echo "status=${expression}."; read -r line; echo "line=$line"\n`);
    const [, status] = await its.shows(/status=(\d+)\./);
    its.type('typed\n');
    await its.shows(/line=typed/);
    await its.shows(prompt);
    return Number(status);
  }

  /** The shell says which job it gives the terminal to. */
  async function toForeground(its: Terminal): Promise<void> {
    its.type('fg\n');
    await its.shows(/SCONE_CONFIG_ID/);
  }

  /** Has the program that counts its signals get one, from the terminal, and end. */
  async function interruptOnce(its: Terminal): Promise<void> {
    its.type('\x03');
    await its.shows(/got 2\r\n/);
    its.type('end\n');
    await its.shows(/counts \{"2": 1\}/);
  }

  const reader = 'echo ready; while read -r line; do echo "<$line>"; done; exit 3';

  /** Has `reader` read from the terminal until there is no more. */
  async function readToTheEnd(its: Terminal): Promise<void> {
    its.type('word\n');
    await its.shows(/<word>/);
    its.type('\x04');
    assert.equal(await statusIn(its), 3);
  }

  for (const [mode, config] of modes) {
    const catches = async () =>
      `SCONE_CONFIG_ID=${await service({ ...config, ...catcher }, { command: [...catching, '@@1'] })} "$E" 2`;
    const runs = async (script: string) => `SCONE_CONFIG_ID=${await service(config)} "$E" '${script}'`;

    test(`${mode}: ^C reaches the program once, and the terminal is the shell's afterwards`, async () => {
      const its = await shell();
      its.type(`${await catches()}\n`);
      await its.shows(/ready/);
      its.type('\x03');
      await its.shows(/got 2\r\n/);
      its.type('word\n');
      await its.shows(/read word/);
      its.type('end\n');
      await its.shows(/counts \{"2": 1\}/);
      assert.equal(await statusIn(its), 0);
      its.close();
    });

    for (const [key, typed, status] of [
      ['^C', '\x03', 130],
      ['^\\', '\x1c', 131],
    ] as const)
      test(`${mode}: the shell sees that ${key} has ended the program`, async () => {
        const its = await shell();
        its.type(`${await runs('echo ready; exec cat')}\n`);
        await its.shows(/ready/);
        its.type(typed);
        assert.equal(await statusIn(its), status);
        its.close();
      });

    test(`${mode}: ^Z stops the job, and after fg it reads from the terminal again`, async () => {
      const its = await shell();
      its.type(`${await runs(reader)}\n`);
      await its.shows(/ready/);
      for (const word of ['one', 'two']) {
        its.type(`${word}\n`);
        await its.shows(new RegExp(`<${word}>`));
        its.type('\x1a');
        await its.shows(/Stopped/);
        // By SIGTSTP or, where envcas has stopped itself, by SIGSTOP.
        assert.ok([148, 147].includes(await statusIn(its)));
        await toForeground(its);
      }
      its.type('three\n');
      await its.shows(/<three>/);
      its.type('\x04');
      assert.equal(await statusIn(its), 3);
      its.close();
    });

    test(`${mode}: bg lets a stopped job go on, and after fg ^C ends it`, async () => {
      const its = await shell();
      // It starts nothing while it waits: where a stop meets the vfork(2) of a shell, that goes on waiting, and is not stopped.
      const pipe = join(stack.files, `waiting-${mode.replace(' ', '-')}`);
      run('mkfifo', [pipe], stack.env);
      const script = `trap "echo continued" CONT; exec 3<>"${pipe}"; echo ready; while :; do read -r line <&3; done`;
      its.type(`${await runs(script)}\n`);
      await its.shows(/ready/);
      its.type('\x1a');
      await its.shows(/Stopped/);
      its.type('bg\n');
      await its.shows(/continued/);
      its.type('jobs\n');
      await its.shows(/Running/);
      assert.equal(await statusIn(its), 0);
      await toForeground(its);
      its.type('\x03');
      assert.equal(await statusIn(its), 130);
      its.close();
    });

    test(`${mode}: a program that stops itself by SIGSTOP gives the terminal to the shell, and goes on after fg`, async () => {
      const its = await shell();
      its.type(`${await runs('kill -STOP $$; read -r line; echo "<$line>"; exit 6')}\n`);
      await its.shows(/Stopped/);
      assert.ok([147, 148].includes(await statusIn(its)));
      await toForeground(its);
      its.type('word\n');
      await its.shows(/<word>/);
      assert.equal(await statusIn(its), 6);
      its.close();
    });

    test(`${mode}: a shell with job control as the program`, async () => {
      const its = await shell();
      its.type(`${await runs('exec env PS1="[inner]" bash --norc --noprofile --noediting -i')}\n`);
      await its.shows(/\[inner\]/);
      its.type("sh -c 'echo go-$((40 + 2)); exec sleep 1000'\n");
      await its.shows(/go-42/);
      its.type('\x1a');
      await its.shows(/Stopped.*\[inner\]/s);
      its.type('fg\n');
      await its.shows(/sleep 1000/);
      its.type('\x03');
      await its.shows(/\[inner\]/);
      its.type('echo "inner=$?"; exit 8\n');
      await its.shows(/inner=130/);
      assert.equal(await statusIn(its), 8);
      its.close();
    });

    test(`${mode}: a job in the background that reads is stopped, and reads after fg`, async () => {
      const its = await shell();
      its.type(`${await runs(reader)} &\n`);
      await its.shows(/ready/);
      its.type('until jobs -s | grep .; do sleep 0.05; done\n');
      await its.shows(/Stopped/);
      await toForeground(its);
      await readToTheEnd(its);
      its.close();
    });

    test(`${mode}: a running job that fg brings back reads from the terminal`, async () => {
      const its = await shell();
      const script =
        'trap "read -r line; echo read-$line; exit 4" USR1; echo ready-$$; while :; do sleep 0.05; done';
      its.type(`${await runs(script.replace('$line', '\\$line'))} &\n`);
      const [, program] = await its.shows(/ready-(\d+)/);
      await toForeground(its);
      its.type('word\n');
      process.kill(Number(program), 'SIGUSR1');
      await its.shows(/read-word/);
      assert.equal(await statusIn(its), 4);
      its.close();
    });

    test(`${mode}: ^C in a pipeline reaches the program once`, async () => {
      const its = await shell();
      its.type(`${await catches()} | cat\n`);
      await its.shows(/ready/);
      await interruptOnce(its);
      assert.equal(await statusIn(its, '${PIPESTATUS[0]}'), 0);
      its.close();
    });

    test(`${mode}: ^Z stops a pipeline, and fg continues it`, async () => {
      const its = await shell();
      its.type(`${await runs(reader)} | cat\n`);
      await its.shows(/ready/);
      its.type('\x1a');
      await its.shows(/Stopped/);
      await toForeground(its);
      await readToTheEnd(its);
      its.close();
    });

    test(`${mode}: ^C in a script reaches the program once, and the script goes on`, async () => {
      const its = await shell();
      its.type(`bash -c '${await catches()}; echo after=$?; read -r line; echo "then=$line"; exit 5'\n`);
      await its.shows(/ready/);
      await interruptOnce(its);
      await its.shows(/after=0/);
      its.type('more\n');
      await its.shows(/then=more/);
      assert.equal(await statusIn(its), 5);
      its.close();
    });

    test(`${mode}: ^C and ^Z do as usual where envcas is the first process in the terminal`, async () => {
      const id = await service({ ...config, ...catcher }, { command: [...catching, '@@1'] });
      const its = terminal([stack.envcas, '2'], { SCONE_CONFIG_ID: id });
      await its.shows(/ready/);
      its.type('\x1a');
      await interruptOnce(its);
      its.close();
    });
  }
});
