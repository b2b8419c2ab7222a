import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { executables, run } from '../support/stack.ts';

const root = resolve(import.meta.dirname, '../..');
const ATTACKER = 61_002;
const notRoot = process.getuid?.() === 0 ? false : 'only root can install';

test('whoever can write where programs are to lie has none installed there', { skip: notRoot }, () => {
  executables();
  const folder = temporaryFolder();
  const attempt = (prefix: string) => {
    const places = { UNITDIR: join(folder, 'units'), CONFDIR: join(folder, 'configuration') };
    const env = { PATH: process.env.PATH ?? '', PREFIX: prefix, ...places };
    return run('sh', [join(root, 'packaging/install.sh'), '--group', 'envcas'], env);
  };
  const open = join(folder, 'open');
  mkdirSync(join(open, 'within'), { recursive: true });
  chmodSync(open, 0o777);
  for (const prefix of [open, join(open, 'within'), join(open, 'new')]) {
    const { status, stderr } = attempt(prefix);
    assert.match(stderr, /others than root may write to .*open/, prefix);
    assert.equal(status, 1);
  }
  const his = join(folder, 'his');
  mkdirSync(his);
  chownSync(his, ATTACKER, ATTACKER);
  const { status, stderr } = attempt(join(his, 'new'));
  assert.match(stderr, /his belongs to another user than root/);
  assert.equal(status, 1);
});

test('no group of the system is given to the launcher', { skip: notRoot }, () => {
  executables();
  const env = { PATH: process.env.PATH ?? '', DESTDIR: join(temporaryFolder(), 'package') };
  for (const group of ['root', 'disk', 'shadow']) {
    const { status, stderr } = run('sh', [join(root, 'packaging/install.sh'), '--group', group], env);
    assert.match(stderr, new RegExp(`the group ${group} is one of the system's own`));
    assert.equal(status, 1);
  }
});
