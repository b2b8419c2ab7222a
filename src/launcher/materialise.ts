import { randomBytes } from 'node:crypto';
import { closeSync, fchmodSync, lstatSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { failure, reason } from '../errors.ts';
import type { Launch } from './assemble.ts';

/**
 * Writes the files of a launch: all of them, or none. Each is written under a temporary name in its own
 * folder, with mode 0600, and takes its place by rename, so nobody ever sees a part of one. A symbolic link in
 * its place is replaced, not followed.
 *
 * @returns removes the files again, for a launch that fails later
 * @throws Failure TARGET_UNWRITABLE
 */
export function materialise(files: Launch['files']): () => void {
  const made: string[] = [];
  const undo = () => {
    for (const path of made) rmSync(path, { force: true });
  };
  let at = '';
  try {
    const renames: [string, string][] = [];
    for (const { to, content } of files) {
      at = to;
      if (lstatSync(to, { throwIfNoEntry: false })?.isDirectory())
        throw Object.assign(new Error(), { code: 'EISDIR' });
      const temporary = join(dirname(to), `.${basename(to).slice(0, 200)}.${randomBytes(6).toString('hex')}`);
      const fd = openSync(temporary, 'wx', 0o600);
      made.push(temporary);
      try {
        fchmodSync(fd, 0o600);
        writeFileSync(fd, content);
      } finally {
        closeSync(fd);
      }
      renames.push([temporary, to]);
    }
    for (const [temporary, to] of renames) {
      at = to;
      renameSync(temporary, to);
      made.splice(made.indexOf(temporary), 1, to);
    }
  } catch (error) {
    undo();
    throw failure('TARGET_UNWRITABLE', { path: at, detail: reason(error) });
  }
  return undo;
}
