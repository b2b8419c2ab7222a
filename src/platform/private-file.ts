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
  readSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { Failure, failure, reason } from '../errors.ts';
import { trustedOwners } from './ownership.ts';

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
  const present = readPrivate(path, owner);
  if (present) return present;
  writePrivate(path, create(), 'new', owner);
  const made = readPrivate(path, owner);
  if (made) return made;
  throw failure('STATE_UNUSABLE', { path, detail: 'something that is no file is in its place' });
}

/** Bytes of what is read whole: keys, passphrases, and what `scone` remembers. */
const LARGEST = 16 * 1024 * 1024;
/** What the shell has opened stands for something else than a file: `<(command)`. */
const descriptor = /^\/(dev|proc\/self)\/fd\/\d+$/;

/**
 * Content of a private file, or undefined where there is none. Nobody else may have written it.
 * @param owner whose it may be beside this user's and root's: of whom its folder belongs to; anybody's, and a pipe, where this
 *   user has named it himself
 * @throws Failure STATE_UNUSABLE
 */
export function readPrivate(
  path: string,
  owner: 'maker' | 'folder' | 'anybody' = 'maker',
): Buffer | undefined {
  const isNamed = owner === 'anybody' || descriptor.test(path);
  try {
    // Whoever put a pipe there would have this process wait for him.
    const fd = openSync(path, isNamed ? constants.O_RDONLY : constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stats = fstatSync(fd);
      if (!isNamed) requireOwn(path, stats, owner === 'folder' ? [statSync(dirname(path)).uid] : []);
      if ((stats.mode & 0o077) !== 0)
        throw failure('STATE_UNUSABLE', { path, detail: 'other users may read it; its mode must be 0600' });
      return readAtMost(fd, LARGEST);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw unusable(path, error);
  }
}

function requireOwn(path: string, stats: Stats, others: readonly number[] = []): void {
  const unfit = (detail: string) => failure('STATE_UNUSABLE', { path, detail });
  if (stats.isDirectory()) throw unfit('it is a directory');
  if (!stats.isFile()) throw unfit('it is not a regular file');
  if (![...trustedOwners(), ...others].includes(stats.uid)) throw unfit(`it belongs to user ${stats.uid}`);
}

/** The rest of an open file. @throws Error where that is more than `limit` bytes, as of a device without an end */
export function readAtMost(fd: number, limit: number): Buffer {
  const chunks: Buffer[] = [];
  let size = 0;
  for (;;) {
    const chunk = Buffer.alloc(Math.min(65_536, limit + 1));
    const length = readSync(fd, chunk);
    if (length === 0) return Buffer.concat(chunks);
    size += length;
    if (size > limit) throw new Error(`it has more than ${limit} bytes`);
    chunks.push(chunk.subarray(0, length));
  }
}

/** @throws Failure STATE_UNUSABLE where others could put something in the place of what is in a folder */
export function requireOwnFolder(path: string): void {
  const unfit = (detail: string) => failure('STATE_UNUSABLE', { path, detail });
  const { uid, mode } = statSync(path);
  if (!trustedOwners().includes(uid)) throw unfit(`it belongs to user ${uid}`);
  // In a sticky folder names of files stay with whom the files belong to.
  if ((mode & 0o022) !== 0 && (mode & 0o1000) === 0)
    throw unfit('others may write to it; its mode must be 0700');
}

/** Opens the file that processes take turns by, and makes it where there is none. @throws Failure STATE_UNUSABLE */
export function openLock(path: string): number {
  const { O_RDWR, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
  let fd: number | undefined;
  try {
    fd = openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
    requireOwn(path, fstatSync(fd));
    return fd;
  } catch (error) {
    if (fd !== undefined) closeSync(fd);
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
    if (!statSync(path).isFile())
      throw failure('STATE_UNUSABLE', { path, detail: 'it is not a regular file' });
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
  if (error instanceof Failure) return error;
  return failure('STATE_UNUSABLE', { path, detail: reason(error) });
}
