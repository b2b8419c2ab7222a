import { closeSync, constants, fstatSync, openSync, type Stats, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { readOpenLink } from '../platform/readlink.ts';

/**
 * The way to the folder of a target. Whom a folder on it belongs to decides what its names stand for, and must not have
 * a launcher write, replace or remove where he may not do so himself.
 */

const { O_DIRECTORY, O_NOFOLLOW } = constants;
/** Opens to name what is in a folder, without a right to list it (open(2)). */
export const O_PATH = 0o10000000;

/** As many as Linux follows (path_resolution(7)). */
const MOST_LINKS = 40;
/** Type of the file system /proc (statfs(2), PROC_SUPER_MAGIC). */
const PROC = 0x9fa0;

/** Path of an open folder, or of what is in it (proc_pid_fd(5)). */
export function pathIn(folder: number, name = ''): string {
  return `/proc/self/fd/${folder}/${name}`;
}

export function isError(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

/** A folder or a symbolic link on the way. */
interface Step {
  fd: number;
  path: string;
  stats: Stats;
}

/**
 * Opens a folder step by step. Nothing is looked up twice: what was opened is what is judged.
 *
 * What belongs to somebody who is not trusted leads only to what belongs to the same user, as systemd has it ("unsafe
 * path transition": unsafe_transition() and CHASE_SAFE in its sources). Trusted are root, the launcher's own user, and
 * the owner of `/`, who in a user namespace may be one that has no number in it. Two things are different:
 *
 * - A launcher of root follows a trusted link only out of a folder that nobody else may write to. Others can move such a
 *   link there, also where a sticky bit, which is enough for the kernel's fs.protected_symlinks, keeps it there then.
 * - Any other launcher goes through the folders of all users, since the kernel keeps it from writing to most. Only links
 *   and `..` lead astray there.
 *
 * Links of /proc, such as /proc/self/cwd, stand for more than a path: the kernel follows them.
 *
 * @returns a descriptor with O_PATH, to be closed
 * @throws Error of open(2), or one that says which step is not safe
 */
export function openFolder(path: string): number {
  return walk(path, false);
}

/**
 * Opens a regular file to read it, as {@link openFolder} goes to its folder; it may be a symbolic link itself.
 * @returns a descriptor, to be closed
 * @throws Error of open(2), or one that says which step is not safe
 */
export function openFile(path: string): number {
  const found = walk(path, true);
  try {
    // By what was found, which is no path that could lead elsewhere by now.
    return openSync(`/proc/self/fd/${found}`, constants.O_RDONLY);
  } finally {
    closeSync(found);
  }
}

/** @param toFile whether the last step is a file */
function walk(path: string, toFile: boolean): number {
  const opened: number[] = [];
  const open = (at: string, name: string, flags: number): Step => {
    const fd = openSync(name, O_PATH | flags);
    opened.push(fd);
    return { fd, path: at, stats: fstatSync(fd) };
  };
  try {
    const keep = ({ fd }: Step) => opened.splice(opened.indexOf(fd), 1)[0] as number;
    let folder = open('/', '/', O_DIRECTORY);
    const judge = judgeFor(folder);
    /** What leads to the next step: the folder, or a link in it. */
    let from = folder;
    const names = namesIn(path);
    for (let links = 0; names.length > 0; ) {
      const name = names.shift() ?? '';
      const [at, named] = [join(folder.path, name), pathIn(folder.fd, name)];
      let next: Step;
      try {
        next = open(at, named, O_DIRECTORY | O_NOFOLLOW);
      } catch (error) {
        if (!isError(error, 'ENOTDIR')) throw error;
        next = open(at, named, O_NOFOLLOW);
        const isEnd = toFile && names.length === 0 && !next.stats.isSymbolicLink();
        if (isEnd && !next.stats.isFile()) throw new Error('it is not a regular file');
        if (!isEnd && !next.stats.isSymbolicLink()) throw error;
      }
      judge(from, next, folder, name);
      from = next;
      if (next.stats.isFile()) return keep(next);
      if (next.stats.isDirectory()) {
        folder = next;
        continue;
      }
      if (++links > MOST_LINKS) throw new Error('too many symbolic links');
      if (statfsSync(pathIn(folder.fd)).type === PROC) folder = open(at, named, O_DIRECTORY);
      else {
        const text = readOpenLink(next.fd);
        names.unshift(...namesIn(text));
        if (!text.startsWith('/')) continue;
        folder = open('/', '/', O_DIRECTORY);
      }
      judge(from, folder, folder);
      from = folder;
    }
    if (toFile) throw new Error('it is a directory');
    return keep(folder);
  } finally {
    for (const fd of opened) closeSync(fd);
  }
}

const namesIn = (path: string) => path.split('/').filter((name) => name !== '');

/** @returns what throws where one step must not lead to the next, which was found in a folder */
function judgeFor(top: Step): (from: Step, to: Step, folder: Step, name?: string) => void {
  const user = process.geteuid?.() ?? 0;
  const trusted = [0, user, top.stats.uid];
  return (from, to, folder, name) => {
    const [owner, next] = [from.stats.uid, to.stats.uid];
    if (!trusted.includes(owner) && owner !== next) {
      const isEntered = from.stats.isDirectory() && !to.stats.isSymbolicLink() && name !== '..';
      if (user === 0 || !isEntered)
        throw new Error(`${told(from)} of user ${owner} leads to ${told(to)} of user ${next}`);
    }
    if (user !== 0 || !to.stats.isSymbolicLink() || !trusted.includes(next)) return;
    if ((folder.stats.mode & 0o022) !== 0)
      throw new Error(`others may write to ${told(folder)}, so that ${told(to)} may be of their making`);
  };
}

const told = ({ path, stats }: Step) => `the ${stats.isDirectory() ? 'folder' : 'symbolic link'} ${path}`;
