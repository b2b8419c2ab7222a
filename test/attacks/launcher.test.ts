import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { folder, type Policy, start, upload } from '../launcher/support.ts';
import { run, type Stack, startStack } from '../support/stack.ts';
import { ATTACKER, noHost } from './host.ts';

let stack: Stack;
before(async () => {
  stack = await startStack();
});
after(() => stack?.stop());

const launch = async (policy: Policy) => stack.launch(await upload(stack, { mode: 'none', ...policy }));
/** Has a template on the host written to a file, which is printed. */
const printing = (template: string) => {
  const to = join(folder(stack), 'out');
  return launch({ files: [{ from: template, to, content: null }], command: ['-c', `cat "${to}"`] });
};

describe('a launcher of root is led by an ordinary user', { skip: noHost }, () => {
  /** A folder of his, and a file that he cannot read. */
  const his = () => {
    const path = folder(stack);
    chmodSync(path, 0o755);
    chownSync(path, ATTACKER, ATTACKER);
    const secret = join(folder(stack), 'shadow');
    writeFileSync(secret, 'of root alone', { mode: 0o600 });
    return { path, secret };
  };

  for (const [what, put] of Object.entries({
    'a link': symlinkSync,
    'a link to its folder': (secret: string, at: string) => symlinkSync(dirname(secret), dirname(at)),
    'another name for it': linkSync,
  }))
    test(`to no file that he cannot read, by ${what} where a template is to be`, async () => {
      const { path, secret } = his();
      const at = what === 'a link to its folder' ? join(path, 'templates', 'shadow') : join(path, 'template');
      put(secret, at);
      const { status, stdout, stderr } = await printing(at);
      assert.deepEqual({ status, stdout }, { status: 66, stdout: '' });
      assert.match(stderr, new RegExp(`of user ${ATTACKER} leads to`));
    });

  test('to what he has written himself, which is his to say', async () => {
    const { path } = his();
    writeFileSync(join(path, 'template'), 'his own');
    chownSync(join(path, 'template'), ATTACKER, ATTACKER);
    assert.equal((await printing(join(path, 'template'))).stdout, 'his own');
  });
});

test('a template that never ends, or holds everything up, is refused at once', async () => {
  const path = folder(stack);
  assert.equal(run('mkfifo', [join(path, 'fifo')], stack.env).status, 0);
  writeFileSync(join(path, 'huge'), '');
  truncateSync(join(path, 'huge'), 2 ** 40);
  symlinkSync('/dev/zero', join(path, 'zero'));
  for (const [name, why] of [
    [join(path, 'fifo'), /it is not a regular file/],
    [join(path, 'zero'), /it is not a regular file/],
    ['/dev/zero', /it is not a regular file/],
    [join(path, 'huge'), /it has more than 16777216 bytes/],
  ] as const) {
    const { status, stderr } = await printing(name);
    assert.equal(status, 66, stderr);
    assert.match(stderr, why);
  }
});

describe('a command of on_change', () => {
  const digest = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');
  /** Starts a program that waits, changes its file, and sees what becomes of the command. */
  const changed = async (make: (command: string) => void, more: object = {}, program = '/bin/sh') => {
    const path = folder(stack);
    const [command, mark, to] = ['command', 'mark', 'file'].map((name) => join(path, name)) as [
      string,
      string,
      string,
    ];
    copyFileSync('/bin/sh', command);
    chmodSync(command, 0o755);
    make(command);
    const policy = (content: string): Policy => ({
      ...{ mode: 'none', program, command: ['-c', 'echo up; while :; do sleep 0.1; done'] },
      files: [{ to, content }],
      launcher: {
        ...{ sha256: digest(program) },
        supervise: { on_change: { command: [command, '-c', `: > "${mark}"; echo ran`], ...more } },
      },
    });
    const id = await upload(stack, policy('one'));
    const running = start(stack.envcas, [], {
      env: { ...stack.env, SCONE_CONFIG_ID: id, SCONE_LOG: 'info' },
    });
    await running.seen(/^up$/m);
    await upload(stack, policy('two'), id);
    await running.seen(/^ran$|cannot be started/m);
    running.child.kill('SIGTERM');
    await running.finished;
    return { output: running.output(), ran: existsSync(mark) };
  };

  test('that others could have written is not run beside a program that was checked', async () => {
    assert.ok((await changed(() => {})).ran);
    const { output, ran } = await changed((command) => chmodSync(command, 0o777));
    assert.ok(!ran, output);
    assert.match(output, /its group or others may write to it/);
  });

  test('of another user is not run beside a program that was checked', { skip: noHost }, async () => {
    const { output, ran } = await changed((command) => chownSync(command, ATTACKER, ATTACKER));
    assert.ok(!ran, output);
    assert.match(output, new RegExp(`it belongs to user ${ATTACKER}`));
  });

  test('is what its digest says, or not run', async () => {
    const right = digest('/bin/sh');
    assert.ok((await changed(() => {}, { sha256: right })).ran);
    assert.ok((await changed(() => {}, { sha256: ['ab'.repeat(32), right] })).ran);
    const { output, ran } = await changed((command) => copyFileSync('/bin/cat', command), { sha256: right });
    assert.ok(!ran, output);
    assert.match(output, /PROGRAM_UNEXPECTED|SHA-256|another program/i);
  });

  test('has released secrets kept out of what it prints', async () => {
    const path = folder(stack);
    mkdirSync(join(path, 'x'));
    const to = join(path, 'file');
    const policy = (content: string): Policy => ({
      ...{ mode: 'none', command: ['-c', 'echo up; while :; do sleep 0.1; done'] },
      ...{ environment: { PASSWORD: '$$SCONE::password$$' }, files: [{ to, content }] },
      secrets: { password: { kind: 'ascii', value: 'sesame-sesame' } },
      launcher: {
        supervise: { redact: true, on_change: { command: ['/bin/sh', '-c', 'echo "it is $PASSWORD."'] } },
      },
    });
    const id = await upload(stack, policy('one'));
    const running = start(stack.envcas, [], { env: { ...stack.env, SCONE_CONFIG_ID: id } });
    await running.seen(/^up$/m);
    await upload(stack, policy('two'), id);
    await running.seen(/^it is .*$/m);
    running.child.kill('SIGTERM');
    await running.finished;
    assert.match(running.output(), /^it is \[redacted\]\.$/m);
    assert.doesNotMatch(running.output(), /sesame/);
  });
});
