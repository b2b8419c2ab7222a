import assert from 'node:assert/strict';
import { chownSync, copyFileSync, lchownSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { openProgram } from '../../src/launcher/program.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';

const ATTACKER = 61_002;
const skip = process.getuid?.() === 0 ? false : 'needs root';

test('a command that another user can have lead to any program is not started', { skip }, () => {
  const his = join(temporaryFolder(), 'his');
  mkdirSync(his);
  chownSync(his, ATTACKER, ATTACKER);
  const open = (program: string) => openProgram({ program, sha256: 'any', user: undefined }, 10);
  const link = join(his, 'reload');
  symlinkSync('/bin/sh', link);
  lchownSync(link, ATTACKER, ATTACKER);
  assert.throws(() => open(link), { code: 'PROGRAM_CHANGEABLE' });
  // A file of root in a folder of his: he can put another one there.
  const copy = join(his, 'copy');
  copyFileSync('/bin/true', copy);
  assert.throws(() => open(copy), { code: 'PROGRAM_CHANGEABLE' });
  open('/bin/sh').close();
});
