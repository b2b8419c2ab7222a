import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { describe, test } from 'node:test';
import { sealedMemfd } from '../../src/platform/memfd.ts';
import { NOBODY, root } from './support.ts';

const own = { uid: undefined, gid: undefined };

function inMemory<Result>(
  content: Buffer,
  ownership: Parameters<typeof sealedMemfd>[2],
  use: (fd: number) => Result,
): Result {
  const fd = sealedMemfd('test', content, ownership);
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

/** Runs a script of a shell whose descriptor 3 is the file. */
function shell(script: string, fd: number, user?: number) {
  const { status, stdout, stderr } = spawnSync('/bin/sh', ['-c', script], {
    maxBuffer: Number.POSITIVE_INFINITY,
    stdio: ['ignore', 'pipe', 'pipe', fd],
    ...(user !== undefined && { uid: user, gid: user }),
  });
  return { status, stdout: stdout.toString('latin1'), stderr: stderr.toString() };
}

describe('a sealed file in memory', () => {
  for (const length of [0, 1, 100_000, 16 * 1024 * 1024])
    test(`gives all of its ${length} bytes, by its descriptor and by its name`, () => {
      const content = Buffer.alloc(length, Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)));
      inMemory(content, { mode: 0o400, ...own }, (fd) => {
        for (const script of ['cat <&3', 'cat /proc/self/fd/3', 'cat /proc/self/fd/3']) {
          const { status, stdout, stderr } = shell(script, fd);
          assert.deepEqual({ status, stderr }, { status: 0, stderr: '' }, script);
          assert.ok(Buffer.from(stdout, 'latin1').equals(content), script);
        }
      });
    });

  test('has the owner and mode that were asked for, in all cases', () => {
    const other = root ? { uid: NOBODY, gid: NOBODY } : own;
    for (const mode of [0o400, 0o600, 0o640, 0o700, 0o555, 0o777])
      inMemory(Buffer.from('x'), { mode, ...other }, (fd) => {
        const { mode: has, uid, gid, nlink } = fstatSync(fd);
        assert.equal((has & 0o7777).toString(8), mode.toString(8));
        assert.deepEqual(
          { uid, gid, nlink },
          { uid: other.uid ?? process.geteuid?.(), gid: other.gid ?? process.getegid?.(), nlink: 0 },
        );
      });
  });

  test('can be read by its owner, and by nobody else', {
    skip: !root && 'only root can give files away',
  }, () => {
    inMemory(Buffer.from('secret'), { mode: 0o400, uid: NOBODY, gid: NOBODY }, (fd) => {
      assert.deepEqual(shell('cat /proc/self/fd/3', fd, NOBODY), { status: 0, stdout: 'secret', stderr: '' });
      const { status, stdout, stderr } = shell('cat /proc/self/fd/3', fd, NOBODY - 1);
      assert.deepEqual({ status, stdout }, { status: 1, stdout: '' });
      assert.match(stderr, /Permission denied/);
    });
  });

  test('cannot be changed, not even by its owner', () => {
    inMemory(Buffer.from('secret'), { mode: 0o600, ...own }, (fd) => {
      for (const script of [
        'echo x | cat >&3',
        'echo x | cat 1<>/proc/self/fd/3',
        'echo x | cat >>/proc/self/fd/3',
        ': >/proc/self/fd/3',
        'truncate -s 0 /proc/self/fd/3',
        'truncate -s 100 /proc/self/fd/3',
      ]) {
        const { status, stderr } = shell(script, fd);
        assert.notEqual(status, 0, script);
        assert.match(stderr, /Operation not permitted/, script);
      }
      assert.throws(() => writeSync(fd, 'x', 0), { code: 'EPERM' });
      assert.throws(() => ftruncateSync(fd, 0), { code: 'EPERM' });
      const again = openSync(`/proc/self/fd/${fd}`, 'r');
      assert.equal(readFileSync(again, 'utf8'), 'secret');
      closeSync(again);
    });
  });

  test('is closed when another program is executed', () => {
    inMemory(Buffer.from('secret'), { mode: 0o600, ...own }, (fd) => {
      const flags = /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '';
      assert.equal(Number.parseInt(flags, 8) & 0o2000000, 0o2000000);
    });
  });

  test('that cannot be made is an error with its code', () => {
    assert.throws(() => sealedMemfd('x'.repeat(250), Buffer.from(''), { mode: 0o600, ...own }), {
      code: 'EINVAL',
    });
  });
});
