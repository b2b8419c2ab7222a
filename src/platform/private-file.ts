import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fchownSync,
  fstatSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { failure, reason } from '../errors.ts';

/** Files that only their owner may read: keys, identities, the CAS's store. */

/** Makes a folder with mode 0700; one that exists stays as it is. */
export function makePrivateDirectory(path: string): void {
  try {
    makeFolders(path, 0o700);
  } catch (error) {
    throw failure('STATE_UNUSABLE', { path, detail: reason(error) });
  }
}

/** Makes a folder and those above it; Node's own way says of a read-only file system that there is no such folder. */
export function makeFolders(path: string, mode: number): void {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return;
  if (dirname(path) !== path) makeFolders(dirname(path), mode);
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Somebody else has made it meanwhile.
    if (code !== 'EEXIST' || !statSync(path).isDirectory()) throw error;
  }
}

/**
 * Reads a private file; if there is none, makes it. Of two processes that do so at once, one makes it and both
 * read the same.
 * @param owner whose a new file is: of who makes it, or, where that is root, of whom its folder belongs to
 * @throws Failure STATE_UNUSABLE, also where other users may read the file
 */
export function readOrCreatePrivate(
  path: string,
  create: () => Buffer,
  owner: 'maker' | 'folder' = 'maker',
): Buffer {
  const present = readPrivate(path);
  if (present) return present;
  writePrivate(path, create(), 'new', owner);
  const made = readPrivate(path);
  if (made) return made;
  throw failure('STATE_UNUSABLE', { path, detail: 'something that is no file is in its place' });
}

/** Content of a private file, or undefined where there is none. */
export function readPrivate(path: string): Buffer | undefined {
  try {
    const fd = openSync(path, 'r');
    try {
      if ((fstatSync(fd).mode & 0o077) !== 0)
        throw failure('STATE_UNUSABLE', { path, detail: 'other users may read it; its mode must be 0600' });
      return readFileSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw unusable(path, error);
  }
}

/** Makes an empty private file where there is none; that root makes belongs to whom its folder belongs to. */
export function createPrivate(path: string): void {
  try {
    const fd = openSync(path, NEW_FILE, 0o600);
    try {
      giveToFolder(fd, path);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw unusable(path, error);
  }
}

const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;

/** What root makes for a service is to be read by that. */
function giveToFolder(fd: number, path: string): void {
  if (process.geteuid?.() !== 0) return;
  const { uid, gid } = statSync(dirname(path));
  fchownSync(fd, uid, gid);
}

/**
 * Writes a private file whole or not at all.
 * @param mode 'new' leaves a file alone that somebody else has made meanwhile
 */
export function writePrivate(
  path: string,
  content: Buffer,
  mode: 'new' | 'replace',
  owner: 'maker' | 'folder' = 'maker',
): void {
  const temporary = `${path}.${randomBytes(6).toString('hex')}`;
  try {
    makeFolders(dirname(path), 0o700);
    const fd = openSync(temporary, NEW_FILE, 0o600);
    try {
      if (owner === 'folder') giveToFolder(fd, path);
      writeFileSync(fd, content);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    if (mode === 'replace') renameSync(temporary, path);
    else linkSync(temporary, path);
    syncDirectory(dirname(path));
  } catch (error) {
    if (mode === 'new' && (error as NodeJS.ErrnoException).code === 'EEXIST') return;
    throw unusable(path, error);
  } finally {
    rmSync(temporary, { force: true });
  }
}

/** Makes a new name in a folder survive a crash of the system (fsync(2)). */
function syncDirectory(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function unusable(path: string, error: unknown): unknown {
  if (!(error instanceof Error && 'errno' in error)) return error;
  return failure('STATE_UNUSABLE', { path, detail: reason(error) });
}
