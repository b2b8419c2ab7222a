import assert from 'node:assert/strict';
import { join } from 'node:path';
import { before, type TestContext, test } from 'node:test';
import { searchFor } from '../support/leaks.ts';
import { type Apart, startApart } from '../support/stack.ts';
import { fixtures, folder, launch, type Policy, type Running, upload } from './support.ts';

/** supervise.redact, from a session to what the launcher passes on. */

let stack: Apart;
before(async () => {
  stack = await startApart();
});

const first = ['vKq7-first-in-the-environment', 'wLr8-first-in-the-file'] as const;
const second = ['xMs9-second-in-the-environment', 'yNt0-second-in-the-file'] as const;
const assertNone = searchFor([...first, ...second]);

/** The printer, with a secret in its environment and one in a file. */
function printing(
  directory: string,
  [environment, file]: readonly [string, string],
  supervise: object,
): Policy {
  return {
    program: join(fixtures, 'printer.sh'),
    environment: { SECRET: '$$SCONE::environment$$', FILE: join(directory, 'file') },
    files: [{ to: join(directory, 'file'), content: '$$SCONE::file$$' }],
    secrets: {
      environment: { kind: 'ascii', value: environment },
      file: { kind: 'ascii', value: file },
    },
    launcher: { supervise: { redact: true, ...supervise } },
  };
}

/** What the printer says of a secret, once it is redacted. */
const shown = (when: string) =>
  ['plain', 'base64', 'hex', 'pieces'].map((how) => `${when} ${how} [redacted]\n`).join('');

function supervised(t: TestContext, id: string): Running {
  const running = launch(stack, id);
  t.after(() => running.child.kill('SIGTERM'));
  return running;
}

/** Resolves when both streams have had so many lines. */
const lines = (running: Running, when: string, count: number) =>
  running.seen(new RegExp(`(^${when} pieces \\[redacted\\]\\n[\\s\\S]*){${count}}`, 'm'));

test('secrets are kept out of both streams, also encoded, in pieces, and new ones once they are there', async (t) => {
  const directory = folder(stack);
  const supervise = { on_change: { signal: 'SIGHUP' } };
  const id = await upload(stack, printing(directory, first, supervise));
  const running = supervised(t, id);
  await lines(running, 'up', 4);
  // The one in the environment stays as it was.
  await upload(stack, printing(directory, [first[0], second[1]], supervise), id);
  await lines(running, 'hup', 4);
  running.child.kill('SIGTERM');
  const { status, stdout, stderr } = await running.finished;
  assert.equal(status, 0);
  assert.equal(stdout, shown('up').repeat(2) + shown('hup').repeat(2) + shown('end').repeat(2));
  assert.equal(stderr, shown('up').repeat(2) + shown('hup').repeat(2));
});

test('a program that is about to end finds the new file, and that is kept out as well', async (t) => {
  const directory = folder(stack);
  const id = await upload(stack, printing(directory, first, {}));
  const running = supervised(t, id);
  await lines(running, 'up', 4);
  await upload(stack, printing(directory, second, {}), id);
  await lines(running, 'up', 8);
  running.child.kill('SIGTERM');
  const { status, stdout, stderr } = await running.finished;
  assert.equal(status, 0);
  const one = shown('up').repeat(2) + shown('end').repeat(2);
  assert.equal(stdout, one + one);
  assertNone('standard error', stderr);
});

test('many restarts leave nothing behind that Node warns of', async (t) => {
  const quiet = (value: string): Policy => ({
    command: ['-c', 'echo "up $VALUE"; exec sleep 100000'],
    environment: { VALUE: value },
    launcher: { supervise: { redact: true, debounce: '1ms' } },
  });
  const id = await upload(stack, quiet('0'));
  const running = supervised(t, id);
  await running.seen(/up 0/);
  for (let count = 1; count <= 12; count++) {
    await upload(stack, quiet(String(count)), id);
    await running.seen(new RegExp(`up ${count}\\n`));
  }
  running.child.kill('SIGTERM');
  const { signal, stderr } = await running.finished;
  assert.deepEqual({ signal, stderr }, { signal: 'SIGTERM', stderr: '' });
});

test('redaction that is asked for later begins with the next start, and that is said', async (t) => {
  const directory = folder(stack);
  const open = { on_change: { signal: 'SIGHUP' }, redact: false };
  const id = await upload(stack, printing(directory, first, open));
  const running = supervised(t, id);
  await running.seen(/^up pieces/m);
  await upload(stack, printing(directory, first, { ...open, redact: true }), id);
  await running.seen(/WARNING.* the program has them at its next start/);
  await upload(stack, printing(directory, second, {}), id);
  await lines(running, 'up', 4);
  running.child.kill('SIGTERM');
  const { stdout } = await running.finished;
  assert.ok(stdout.endsWith(shown('up').repeat(2) + shown('end').repeat(2)), stdout);
});
