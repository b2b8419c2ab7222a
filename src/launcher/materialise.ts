import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  closeSync,
  fchmodSync,
  lstatSync,
  openSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { failure, reason } from '../errors.ts';
import type { Launch } from './assemble.ts';

/**
 * Writes the files of a launch: all of them, or none. Each is written under a temporary name in its own
 * folder, with mode 0600, and takes its place by rename, so nobody ever sees a part of one. A symbolic link in
 * its place is replaced, not followed.
 *
 * @returns puts back what was there before, for a launch that fails later; gives the first error of doing so
 * @throws Failure TARGET_UNWRITABLE
 */
export function materialise(files: Launch['files']): () => unknown {
  const undo: (() => void)[] = [];
  const putBack = () => {
    const errors: unknown[] = [];
    for (const step of undo.splice(0).reverse())
      try {
        step();
      } catch (error) {
        errors.push(error);
      }
    return errors[0];
  };
  let at = '';
  try {
    const renames = files.map(({ to, content }) => {
      if (typeof to !== 'string') throw new Error('descriptors are not written');
      at = to;
      const restore = remember(to);
      const temporary = writeBeside(to, content);
      undo.push(() => rmSync(temporary, { force: true }));
      return { temporary, to, restore };
    });
    for (const { temporary, to, restore } of renames) {
      at = to;
      renameSync(temporary, to);
      undo.push(restore);
    }
  } catch (error) {
    throw failure('TARGET_UNWRITABLE', { path: at, detail: reason(error) }, putBack());
  }
  return putBack;
}

/** Writes a file with mode 0600 in the folder of another, under a name of its own. */
function writeBeside(path: string, content: Buffer): string {
  const temporary = join(dirname(path), `.envcas-${randomBytes(8).toString('hex')}`);
  const fd = openSync(temporary, 'wx', 0o600);
  try {
    writeFileSync(fd, content);
    fchmodSync(fd, 0o600);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  } finally {
    closeSync(fd);
  }
  return temporary;
}

/** Looks at what is at a path, and gives what puts it back. The program may still fail to start after a rename. */
function remember(path: string): () => void {
  const before = lstatSync(path, { throwIfNoEntry: false });
  if (!before) return () => rmSync(path, { force: true });
  if (before.isSymbolicLink()) {
    const target = readlinkSync(path);
    return () => {
      rmSync(path, { force: true });
      symlinkSync(target, path);
    };
  }
  if (!before.isFile()) throw new Error('there is something that is neither a file nor a symbolic link');
  const user = process.geteuid?.();
  if (user !== 0 && user !== before.uid) throw new Error('a file of another user is there');
  const content = readFileSync(path);
  return () => {
    const temporary = writeBeside(path, content);
    if (user === 0) chownSync(temporary, before.uid, before.gid);
    chmodSync(temporary, before.mode & 0o7777);
    renameSync(temporary, path);
  };
}
