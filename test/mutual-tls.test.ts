import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { test } from 'node:test';
import { freePort } from './support/port.ts';
import { missing, run, startStack } from './support/stack.ts';

const example = resolve(import.meta.dirname, '../examples/mutual-tls');

test('two sessions share certificates, and the programs that envcas starts talk mutual TLS with them, as the README says', {
  skip: missing('/usr/bin/openssl'),
}, async () => {
  const stack = await startStack();
  const [, commands = '', printed = ''] =
    /```sh\n([\s\S]*?)```[\s\S]*?```\n([\s\S]*?)```/.exec(readFileSync(join(example, 'README.md'), 'utf8')) ??
    [];
  const { status, stdout, stderr } = run(
    'bash',
    ['-c', commands.replace('PORT=8444', `PORT=${await freePort()}`)],
    { ...stack.env, TMPDIR: stack.files, PATH: `${dirname(stack.envcas)}:${process.env.PATH}` },
  );
  assert.equal(status, 0, stderr);
  const masked = (text: string) => text.replace(/^[0-9a-f]{64}$/gm, 'HASH');
  assert.equal(masked(stdout), masked(printed), stderr);
  // Each has verified the other.
  assert.equal(stderr.match(/^depth=1 CN ?= ?Example authority$/gm)?.length, 2, stderr);
});
