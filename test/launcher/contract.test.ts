import assert from 'node:assert/strict';
import { closeSync, openSync, readdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { FORMER_LAUNCH_PROTOCOL, LAUNCH_PROTOCOL } from '../../src/protocol/launch.ts';
import { run, type Stack, startStack } from '../support/stack.ts';
import {
  assertEmpty,
  assertFailed,
  codeFrom,
  fixtures,
  folder,
  launch,
  newSharedSecret,
  noteOf,
  type Policy,
  start,
  startImpostor,
  totp,
  upload,
} from './support.ts';

let stack: Stack;
before(async () => {
  stack = await startStack();
});

/** The variables that a program of this policy is started with. */
async function environmentOf(policy: Policy, env: NodeJS.ProcessEnv = {}): Promise<string[]> {
  const id = await upload(stack, { program: '/usr/bin/env', command: ['-0'], ...policy });
  const result = stack.launch(id, { env });
  assert.deepEqual({ status: result.status, stderr: result.stderr }, { status: 0, stderr: '' });
  return result.stdout.split('\0').slice(0, -1).sort();
}

/** The arguments that a program gets from these words of the command and these host arguments. */
async function argumentsOf(command: string[], args: string[], policy: Policy = {}): Promise<string[]> {
  const program = join(fixtures, 'cmdline.sh');
  const result = stack.launch(await upload(stack, { ...policy, program, command }), { args });
  assert.deepEqual({ status: result.status, stderr: result.stderr }, { status: 0, stderr: '' });
  const words = result.stdout.split('\0').slice(0, -1);
  assert.deepEqual(words.splice(0, 2), ['/bin/sh', program]);
  return words;
}

describe('the process', () => {
  test('the program has the pid and the parent of envcas, and no other process is left', async () => {
    const id = await upload(stack, {
      command: ['-c', 'echo $$ $PPID $(cat /proc/$$/task/*/children); echo ready; read line'],
    });
    const running = launch(stack, id, { stdin: 'pipe' });
    await running.seen(/ready\n/);
    const pid = running.child.pid;
    // Only the `cat` that the shell itself started may be among the children.
    assert.match(running.output(), new RegExp(`^${pid} ${process.pid}( \\d+)?\\nready\\n$`));
    assert.equal(readFileSync(`/proc/${pid}/comm`, 'utf8'), 'sh\n');
    assert.equal(realpathSync(`/proc/${pid}/exe`), realpathSync('/bin/sh'));
    assert.deepEqual(readdirSync(`/proc/${pid}/task`), [String(pid)]);
    const ofThisTest = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim().split(' ');
    const launchers = ofThisTest.filter((child) => readlink(`/proc/${child}/exe`) === stack.envcas);
    assert.deepEqual(launchers, []);
    running.child.stdin?.end('\n');
    await running.finished;
  });

  for (const status of [0, 1, 37, 126, 255])
    test(`exit status ${status} is handed on`, async () => {
      const result = stack.launch(await upload(stack, { command: ['-c', `exit ${status}`] }));
      assert.deepEqual(result, { status, signal: null, stdout: '', stderr: '' });
    });

  for (const signal of ['SIGTERM', 'SIGKILL', 'SIGHUP', 'SIGABRT'] as const) {
    test(`the program ends by its own ${signal}`, async () => {
      const result = stack.launch(await upload(stack, { command: ['-c', `kill -${signal.slice(3)} $$`] }));
      assert.deepEqual({ status: result.status, signal: result.signal }, { status: null, signal });
    });
  }

  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    test(`${signal} to the pid of envcas reaches the program`, async () => {
      const running = launch(stack, await upload(stack, { command: ['-c', 'echo ready; exec cat'] }), {
        stdin: 'pipe',
      });
      await running.seen(/ready/);
      running.child.kill(signal);
      assert.equal((await running.finished).signal, signal);
    });

  test('no signal is ignored, blocked or caught in the program', async () => {
    const { stdout } = stack.launch(
      await upload(stack, { program: '/bin/cat', command: ['/proc/self/status'] }),
    );
    for (const field of ['SigIgn', 'SigBlk', 'SigCgt']) {
      const mask = new RegExp(`^${field}:\t([0-9a-f]+)$`, 'm').exec(stdout)?.[1];
      assert.equal(BigInt(`0x${mask}`), 0n, `${field} ${mask}`);
    }
  });

  test('a broken pipe ends the program', async () => {
    // A pipe of the shell: those of Node are sockets, on which a lost reader may show as another error.
    const script = '"$0" | head -n 1; echo ${PIPESTATUS[0]}';
    const env = { ...stack.env, SCONE_CONFIG_ID: await upload(stack, { program: '/usr/bin/yes' }) };
    assert.equal(run('/bin/bash', ['-c', script, stack.envcas], env).stdout, 'y\n141\n');
  });

  test('too large a file ends the program', async () => {
    const path = join(folder(stack), 'large');
    const id = await upload(stack, { command: ['-c', `ulimit -f 0; echo text > "${path}"`] });
    assert.equal(stack.launch(id).signal, 'SIGXFSZ');
  });

  test('umask and limits stay as the caller set them', async () => {
    const id = await upload(stack, { command: ['-c', 'umask; ulimit -n; ulimit -c'] });
    const script = 'umask 027; ulimit -n 300 -c 0; exec "$0"';
    const { stdout } = run('/bin/bash', ['-c', script, stack.envcas], { ...stack.env, SCONE_CONFIG_ID: id });
    assert.equal(stdout, '0027\n300\n0\n');
  });

  test('no descriptor of the launcher is left open, nor one of its caller', async () => {
    const id = await upload(stack, { program: '/bin/ls', command: ['/proc/self/fd'] });
    const stdio = ['ignore', 'pipe', 'inherit', 'inherit', 'inherit'] as const;
    const { child, finished } = start(stack.envcas, [], {
      env: { ...stack.env, SCONE_CONFIG_ID: id },
      stdio: [...stdio, openSync('/dev/null', 'r'), openSync('/dev/null', 'r')],
    });
    assert.ok(child.pid);
    // The last one is what ls reads the folder by.
    assert.equal((await finished).stdout, '0\n1\n2\n3\n');
  });

  test("standard input and output are the program's own, byte for byte", async () => {
    const id = await upload(stack, { program: '/bin/cat' });
    const directory = folder(stack);
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, index) => (index * 31) % 256));
    writeFileSync(join(directory, 'in'), bytes);
    const stdio = [
      openSync(join(directory, 'in'), 'r'),
      openSync(join(directory, 'out'), 'w'),
      openSync(join(directory, 'error'), 'w'),
    ];
    const env = { ...stack.env, SCONE_CONFIG_ID: id };
    const { finished } = start(stack.envcas, [], { env, stdio });
    for (const fd of stdio) closeSync(fd);
    assert.equal((await finished).status, 0);
    assert.deepEqual(readFileSync(join(directory, 'out')), bytes);
    assert.equal(readFileSync(join(directory, 'error'), 'utf8'), '');
  });

  test('nothing of standard input is taken before the program reads it', async () => {
    const id = await upload(stack, { command: ['-c', 'read first; echo "$first"; exec cat'] });
    const env = { ...stack.env, SCONE_CONFIG_ID: id };
    assert.equal(run(stack.envcas, [], env, 'one\ntwo\nthree').stdout, 'one\ntwo\nthree');
  });

  test('standard error is the program\u2019s own', async () => {
    const result = stack.launch(await upload(stack, { command: ['-c', 'echo out; echo error >&2'] }));
    assert.deepEqual({ out: result.stdout, error: result.stderr }, { out: 'out\n', error: 'error\n' });
  });
});

describe('pwd', () => {
  test('is the working directory', async () => {
    const directory = realpathSync(folder(stack));
    const id = await upload(stack, { program: '/bin/pwd', pwd: directory });
    assert.equal(stack.launch(id).stdout, `${directory}\n`);
  });

  test('without it, the program stays where envcas was started', async () => {
    const directory = realpathSync(folder(stack));
    const id = await upload(stack, { program: '/bin/pwd' });
    const env = { ...stack.env, SCONE_CONFIG_ID: id };
    const { stdout } = await start(stack.envcas, [], { env, cwd: directory }).finished;
    assert.equal(stdout, `${directory}\n`);
  });
});

describe('the environment', () => {
  test('is that of the policy alone', async () => {
    const host = { PATH: '/somewhere', HOST_ONLY: 'x', LANG: 'C', SECRET: 'of the host' };
    assert.deepEqual(await environmentOf({}, host), []);
    const environment = { SECRET: '$$SCONE::s$$', EMPTY: '', NOTHING: null, 'odd.name-1': 'a = "b"\n\tc' };
    assert.deepEqual(
      await environmentOf({ environment, secrets: { s: { kind: 'ascii', value: 'value' } } }, host),
      ['EMPTY=', 'NOTHING=', 'SECRET=value', 'odd.name-1=a = "b"\n\tc'],
    );
  });

  test('holds no setting of the launcher and no one-time password; nor does anything else of the process', async () => {
    const secret = newSharedSecret();
    // RFC 6238, appendix B, so that the code below is known to be one.
    assert.equal(totp('GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ', 59_000), '287082');
    const code = codeFrom(secret);
    const id = await upload(stack, {
      oneTimePassword: secret,
      program: '/bin/cat',
      command: ['/proc/self/environ', '/proc/self/cmdline', '/proc/self/comm', '/proc/self/auxv'],
      environment: { ONLY: 'this' },
    });
    const settings = { SCONE_CAS_KEY: /^CAS key hash: (.*)$/m.exec(stack.server.output())?.[1] };
    const { stdout, stderr } = stack.launch(`${id}@${code}`, { args: ['dropped'], env: settings });
    assert.equal(stderr, '');
    assert.ok(stdout.startsWith('ONLY=this\0/bin/cat\0/proc/self/environ\0'), stdout);
    for (const part of ['SCONE', code, id, 'dropped', 'envcas'])
      assert.ok(!stdout.includes(part), `${part} reached the program`);
  });

  const given = {
    environment: { '\\@\\@NAME': 'of the policy' },
    secrets: { s: { kind: 'ascii' } },
  } as const;
  for (const [what, policy, host, expected] of [
    ['\\@\\@NAME admits a variable of the host, whatever the policy says', given, 'host', 'NAME=host'],
    ['\\@\\@NAME that the host has not is empty', given, undefined, 'NAME='],
    ['\\@\\@NAME that is empty on the host is empty', given, '', 'NAME='],
    ['"@@NAME" means the same', { environment: { '@@NAME': null } }, 'host', 'NAME=host'],
    ['"@@NAME" that the host has not is empty', { environment: { '@@NAME': 'x' } }, undefined, 'NAME='],
    ['the value of the host is taken as it is', given, '@@1 $$SCONE::s$$ $HOME\n=', undefined],
  ] as const)
    test(what, async () => {
      const env = host === undefined ? {} : { NAME: host };
      assert.deepEqual(await environmentOf(policy, { ...env, OTHER: 'x' }), [expected ?? `NAME=${host}`]);
    });

  test('a host variable admits just itself, even one of the launcher', async () => {
    const environment = { '@@SCONE_CAS_ADDR': null, NAME: '@@NAME' };
    assert.deepEqual(await environmentOf({ environment }, { NAME: 'host' }), [
      'NAME=@@NAME',
      'SCONE_CAS_ADDR=localhost',
    ]);
  });
});

describe('arguments', () => {
  const cases: [what: string, command: string[], host: string[], expected: string[]][] = [
    ['words of the policy', ['a', '', 'b  c', '"', "'"], [], ['a', '', 'b  c', '"', "'"]],
    ['host arguments that nobody asks for are dropped', ['a'], ['x', 'y'], ['a']],
    ['in any order, with gaps', ['@@3', '@@1'], ['one', 'two', 'three', 'four'], ['three', 'one']],
    ['embedded in a word', ['--file=@@2.txt', '@@1@@3'], ['1', '2', '3'], ['--file=2.txt', '13']],
    ['with two digits', ['@@10x'], [...'abcdefghij'], ['jx']],
    ['what is no place stays', ['@@', '@@0', '@@x', '@1', 'a@b'], ['1'], ['@@', '@@0', '@@x', '@1', 'a@b']],
    ['an empty host argument is one', ['@@1'], [''], ['']],
    [
      'host arguments are taken as they are',
      ['@@1', '@@2', '@@3'],
      ['@@2', '$$SCONE::s$$', 'a b\n"\''],
      ['@@2', '$$SCONE::s$$', 'a b\n"\''],
    ],
    [
      'host arguments are no options of the launcher',
      ['@@1', '@@2', '@@3', '@@4'],
      ['--version', '-e', '--inspect', '--'],
      ['--version', '-e', '--inspect', '--'],
    ],
    [
      'a host argument cannot complete a reference',
      ['$$SCONE::s$$@@1$$'],
      ['$$SCONE::s'],
      ['xy$$SCONE::s$$'],
    ],
  ];
  for (const [what, command, host, expected] of cases)
    test(what, async () => {
      const secrets = { s: { kind: 'ascii', value: 'xy' } } as const;
      assert.deepEqual(await argumentsOf(command, host, { secrets }), expected);
    });

  for (const [asked, given] of [
    ['@@1', []],
    ['@@2', ['one']],
    ['pre@@3post', ['one', 'two']],
  ] as const)
    test(`${asked} with ${given.length} host arguments is an error, and nothing is done`, async () => {
      const directory = folder(stack);
      const id = await upload(stack, {
        command: ['-c', `touch "${directory}/started"`, asked],
        files: [{ to: `${directory}/out`, content: 'text' }],
      });
      assertFailed(stack.launch(id, { args: [...given] }), 'HOST_ARGUMENT_MISSING', {
        note: noteOf(stack, id),
        says: [`host argument @@${given.length + 1}, but only ${given.length} were given`],
      });
      assertEmpty(directory);
    });

  test('the first one is the program, however envcas was called', async () => {
    const result = stack.launch(
      await upload(stack, { program: '/bin/cat', command: ['/proc/self/cmdline', '/dev/null'] }),
    );
    assert.equal(result.stdout, '/bin/cat\0/proc/self/cmdline\0/dev/null\0');
  });

  test('a secret is one argument, whatever it contains', async () => {
    const value = 'a b "c" \'d\' * \\ @@1 $(id)\nx';
    assert.deepEqual(
      await argumentsOf(['<$$SCONE::s$$>'], ['host'], { secrets: { s: { kind: 'ascii', value } } }),
      [`<${value}>`],
    );
  });
});

function readlink(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined; // The process has ended.
  }
}

describe('the answer', () => {
  for (const [protocol, saying] of [
    [LAUNCH_PROTOCOL, ['{"arrived":true}']],
    [FORMER_LAUNCH_PROTOCOL, []],
  ] as const)
    test(`a CAS that speaks ${protocol} is told ${saying.length > 0 ? 'that it has arrived' : 'nothing more'}`, async (t) => {
      const cas = await startImpostor({ protocols: [protocol], answer: grant('/bin/true'), isOpen: true });
      t.after(() => cas.close());
      const { status, stderr } = await launch(stack, 'some/service', {
        env: { SCONE_CAS_ENCLAVE_PORT: cas.port, SCONE_CAS_KEY: cas.key },
      }).finished;
      assert.equal(status, 0, stderr);
      await cas.ended;
      const received = cas.received();
      const rest = received.subarray(4 + received.readUInt32BE());
      assert.deepEqual(rest.length > 0 ? [rest.toString('utf8', 4)] : [], saying);
    });
});

/** A message that grants a program, as a CAS sends it. */
function grant(program: string): Buffer {
  const configuration = {
    command: [['envcas']],
    environment: {},
    hostEnvironment: [],
    files: [],
    secrets: [],
  };
  const body = Buffer.from(JSON.stringify({ configuration: { ...configuration, launcher: { program } } }));
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  return Buffer.concat([head, body]);
}
