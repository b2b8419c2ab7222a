import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmdirSync,
  type Stats,
  unlinkSync,
} from 'node:fs';
import { lockFile } from '../platform/libc.ts';
import { isError, O_PATH, openFolder, pathIn } from './folder.ts';

/**
 * Files and folders on their way to their names. A launch makes them in folders of its own with random names, which
 * it keeps locked (flock(2)): what is not locked was left behind by one that was killed.
 *
 * All paths here start at an open folder. Whom a folder belongs to can replace what is in it at any time, and a
 * launcher that runs as root must not be led elsewhere by that.
 */

const { O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants;

const PREFIX = '.envcas-';
/** Names of the folders that are made here; those of generations hold the name of the link that leads to them. */
const MADE = /^\.(?:envcas-|(?<link>.+)\.)[0-9a-f]{16}$/s;

/** Whether a folder of this name is, or was, what the symbolic link of a generation leads to. */
export function isGenerationOf(link: string, name: string): boolean {
  return MADE.exec(name)?.groups?.link === link;
}

/** A folder with mode 0700 that other launches leave alone until its descriptor is closed. */
export interface Held {
  name: string;
  fd: number;
}

function hold(parent: number, prefix: string): Held {
  for (let attempt = 1; attempt <= 5; attempt++) {
    const name = prefix + randomBytes(8).toString('hex');
    const path = pathIn(parent, name);
    mkdirSync(path, 0o700);
    const fd = openIfThere(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (fd === undefined) continue;
    if (!isOwn(fd)) {
      closeSync(fd);
      continue;
    }
    // Another launch can have taken it for a leftover before it was locked. Where that seems to happen over and
    // over, the file system has no locks for folders (NFS), so nobody else locks it either.
    if ((lockFile(fd, 0) || attempt === 5) && isStill(path, fd)) return { name, fd };
    closeSync(fd);
    remove(path);
  }
  throw new Error('what is made in the folder is taken away by another process');
}

/** Whether nobody else can put anything into a folder, as into one that was put in the place of what was made. */
function isOwn(fd: number): boolean {
  const { uid, mode } = fstatSync(fd);
  return uid === process.geteuid?.() && (mode & 0o022) === 0;
}

/** A folder that is being worked on, and where its new things are made. */
export interface Stage {
  /** Path of a name in the folder. */
  at(name: string): string;
  /** A new path on the same file system, in a folder that only the launcher may enter. */
  temporary(): string;
  /**
   * A new folder beside it, since one with a mode of its own cannot always be moved to another.
   * @param link where it is for a generation: the name of its symbolic link
   */
  folder(link?: string): Held;
  /**
   * Removes what killed launches have left in it, as far as that can be done.
   * @param links names of the generations in it
   * @param users whose leftovers these can be
   */
  clean(links: ReadonlySet<string>, users: ReadonlySet<number>): void;
  /** Removes what has not taken its place, and lets go of all. */
  close(): void;
}

/** @throws Error as of openFolder() */
export function openStage(path: string): Stage {
  const parent = openFolder(path);
  const made: { held: Held; link?: string }[] = [];
  let shop: Held | undefined;
  let count = 0;
  const folder = (link?: string) => {
    const held = hold(parent, link === undefined ? PREFIX : `.${link}.`);
    made.push({ held, ...(link !== undefined && { link }) });
    return held;
  };
  return {
    at: (name) => pathIn(parent, name),
    temporary() {
      shop ??= folder();
      return pathIn(shop.fd, String(count++));
    },
    folder,
    clean(links, users) {
      for (const name of readdirSync(pathIn(parent))) {
        const made = MADE.exec(name);
        const link = made?.groups?.link;
        if (made && (link === undefined || links.has(link))) removeLeftover(parent, name, link, users);
      }
    },
    close() {
      for (const { held, link } of made) {
        try {
          if (!isCurrent(parent, held.name, link)) remove(pathIn(parent, held.name));
        } catch {
          // The next launch tries again.
        }
        closeSync(held.fd);
      }
      closeSync(parent);
    },
  };
}

/** Whether a generation is the one that its symbolic link leads to. */
function isCurrent(parent: number, name: string, link: string | undefined): boolean {
  return link !== undefined && linkAt(pathIn(parent, link)) === name;
}

function removeLeftover(
  parent: number,
  name: string,
  link: string | undefined,
  users: ReadonlySet<number>,
): void {
  const path = pathIn(parent, name);
  try {
    reading(path, (fd, { uid }) => {
      if (!users.has(uid) || !lockFile(fd, 0)) return;
      // Whoever had the lock before may have made it the current generation. One that got its final name is not found.
      if (!isCurrent(parent, name, link)) remove(path);
    });
  } catch {
    // The next launch tries again.
  }
}

/**
 * Removes a file, or a folder with all that is in it, whatever its mode. No symbolic link is followed.
 * @param path in an open folder
 */
export function remove(path: string): void {
  try {
    const folder = openSync(path, O_PATH | O_DIRECTORY | O_NOFOLLOW);
    try {
      const { mode } = fstatSync(folder);
      if ((mode & 0o700) !== 0o700) chmodSync(pathIn(folder), (mode & 0o7777) | 0o700);
      for (const name of readdirSync(pathIn(folder))) remove(pathIn(folder, name));
    } finally {
      closeSync(folder);
    }
    rmdirSync(path);
  } catch (error) {
    if (isMissing(error)) return;
    if (!isError(error, 'ENOTDIR')) throw error;
    try {
      unlinkSync(path);
    } catch (failed) {
      if (!isMissing(failed)) throw failed;
    }
  }
}

/**
 * Opens a file or folder for reading. A mode that keeps its owner from that is another one meanwhile.
 * @returns undefined where there is none, or something else
 */
export function reading<Result>(
  path: string,
  read: (fd: number, stats: Stats) => Result,
): Result | undefined {
  const place = openIfThere(path, O_PATH | O_NOFOLLOW);
  if (place === undefined) return undefined;
  const same = `/proc/self/fd/${place}`;
  let fd: number | undefined;
  try {
    const stats = fstatSync(place);
    if (!stats.isFile() && !stats.isDirectory()) return undefined;
    const needed = stats.isFile() ? 0o400 : 0o500;
    const user = process.geteuid?.();
    const isClosed = user !== 0 && user === stats.uid && (stats.mode & needed) !== needed;
    if (isClosed) chmodSync(same, (stats.mode & 0o7777) | needed);
    try {
      fd = openSync(same, O_RDONLY | O_NONBLOCK);
      return read(fd, stats);
    } finally {
      if (isClosed) chmodSync(same, stats.mode & 0o7777);
    }
  } finally {
    if (fd !== undefined) closeSync(fd);
    closeSync(place);
  }
}

/** The open file or folder, or undefined where there is none. */
function openIfThere(path: string, flags: number): number | undefined {
  try {
    return openSync(path, flags);
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** What a symbolic link holds; undefined where there is nothing. @throws Error where there is something else */
export function linkAt(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch (error) {
    if (isMissing(error)) return undefined;
    if (isError(error, 'EINVAL')) throw new Error('there is something that is not a symbolic link');
    throw error;
  }
}

function isStill(path: string, fd: number): boolean {
  const named = lstatSync(path, { throwIfNoEntry: false });
  const open = fstatSync(fd);
  return named?.ino === open.ino && named.dev === open.dev;
}

const isMissing = (error: unknown) => isError(error, 'ENOENT');
