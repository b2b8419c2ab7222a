import { randomBytes } from 'node:crypto';
import {
  accessSync,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  openSync,
  readlinkSync,
  renameSync,
  rmSync,
  type Stats,
  writeSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { isatty } from 'node:tty';
import { failure, reason } from '../errors.ts';
import { isError, openFolder, pathIn } from '../launcher/folder.ts';
import { trustedOwners } from '../platform/ownership.ts';

/** Where `-o` has a command print to. */
export interface Destination {
  descriptor: number;
  isTerminal: boolean;
  write(text: string): void;
  /** Puts a file in its place, whole. */
  finish(): void;
  /** Leaves nothing behind of what is not finished. */
  close(): void;
}

const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW, O_NOCTTY } = constants;
/** As many links as Linux follows (path_resolution(7)). */
const MOST_LINKS = 40;

/** @throws Failure OUTPUT_UNWRITABLE where nothing could be written, or where it would go astray */
export function checkDestination(path: string): void {
  said(path, () => {
    const place = findPlace(path);
    if (typeof place === 'number') return void fstatSync(place);
    try {
      const { folder, name, present } = place;
      accessSync(pathIn(folder, isReplaced(present) ? '' : name), constants.W_OK);
    } finally {
      closeSync(place.folder);
    }
  });
}

/** @throws Failure OUTPUT_UNWRITABLE, also of its methods */
export function openDestination(path: string): Destination {
  return said(path, () => {
    const place = findPlace(path);
    if (typeof place === 'number') return destination(path, place);
    try {
      return isReplaced(place.present) ? newFile(path, place) : existing(path, place);
    } catch (error) {
      closeSync(place.folder);
      throw error;
    }
  });
}

/** A pipe or device. */
function existing(path: string, { folder, name }: Place): Destination {
  const fd = openSync(pathIn(folder, name), O_WRONLY | O_NOFOLLOW | O_NOCTTY);
  const close = () => {
    closeSync(fd);
    closeSync(folder);
  };
  try {
    requireOwn(fstatSync(fd));
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return destination(path, fd, { close });
}

/** A file that is made beside the place, and moved there once it is whole. What is printed may be private, so it is. */
function newFile(path: string, { folder, name, present }: Place): Destination {
  const temporary = pathIn(folder, `.scone-${randomBytes(6).toString('hex')}`);
  const fd = openSync(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  let isDone = false;
  return destination(path, fd, {
    finish() {
      if (present) fchmodSync(fd, present.mode & 0o777);
      fsyncSync(fd);
      renameSync(temporary, pathIn(folder, name));
      isDone = true;
    },
    close() {
      closeSync(fd);
      if (!isDone) rmSync(temporary, { force: true });
      closeSync(folder);
    },
  });
}

function destination(
  path: string,
  descriptor: number,
  { finish = () => {}, close = () => {} }: Partial<Pick<Destination, 'finish' | 'close'>> = {},
): Destination {
  return {
    descriptor,
    isTerminal: isatty(descriptor),
    write: (text) =>
      said(path, () => {
        for (let left = Buffer.from(text); left.length > 0; )
          left = left.subarray(writeSync(descriptor, left));
      }),
    finish: () => said(path, finish),
    close,
  };
}

/** The folder that something is or will be in, open, and what is there. */
interface Place {
  folder: number;
  name: string;
  present: Stats | undefined;
}

const isReplaced = (present: Stats | undefined) => present === undefined || present.isFile();

/**
 * Where a path leads, or the descriptor that it stands for. Nobody else may have it lead elsewhere, or read what is
 * written: links count only where nobody else can put any, and what is there has to be this user's own. A folder of
 * another user that everybody may write to is refused, unless it is sticky.
 */
function findPlace(path: string): Place | number {
  let at = path.startsWith('/') ? path : `${process.cwd()}/${path}`;
  for (let links = 0; links <= MOST_LINKS; links++) {
    const descriptor = descriptorNamed(at);
    if (descriptor !== undefined) return descriptor;
    if (/\/\.{0,2}$/.test(at)) throw new Error('it is a directory');
    const [parent, name] = [dirname(at), basename(at)];
    const folder = openFolder(parent);
    try {
      requireSafeFolder(fstatSync(folder));
      const present = statOf(pathIn(folder, name));
      if (!present?.isSymbolicLink()) {
        if (present) requireOwn(present);
        return { folder, name, present };
      }
      requireTrustedLink(present, fstatSync(folder));
      const to = readlinkSync(pathIn(folder, name));
      at = to.startsWith('/') ? to : `${parent}/${to}`;
    } catch (error) {
      closeSync(folder);
      throw error;
    }
    closeSync(folder);
  }
  throw new Error('too many symbolic links');
}

/** What the shell has opened: `/dev/stdout`, or `>(command)`. */
function descriptorNamed(path: string): number | undefined {
  const [, standard, number] = /^\/(?:dev\/std(out|err)|(?:dev|proc\/self)\/fd\/(\d{1,9}))$/.exec(path) ?? [];
  if (standard) return standard === 'out' ? 1 : 2;
  return number === undefined ? undefined : Number(number);
}

function statOf(path: string): Stats | undefined {
  try {
    return lstatSync(path);
  } catch (error) {
    if (isError(error, 'ENOENT')) return undefined;
    throw error;
  }
}

function requireOwn(stats: Stats): void {
  if (stats.isDirectory()) throw new Error('it is a directory');
  // Devices belong to root, and a terminal to who is logged in.
  const owners = stats.isCharacterDevice() ? trustedOwners() : [process.geteuid?.()];
  if (!owners.includes(stats.uid)) throw new Error(`it belongs to user ${stats.uid}`);
  if (!stats.isFile() && !stats.isFIFO() && !stats.isCharacterDevice())
    throw new Error('it is neither a file nor a pipe nor a terminal');
}

/** Whoever may write there could replace what is written, or put a file there whose mode it takes. */
function requireSafeFolder({ uid, mode }: Stats): void {
  if (!trustedOwners().includes(uid) && (mode & 0o002) !== 0 && (mode & 0o1000) === 0)
    throw new Error(`it is in a folder of user ${uid} that others may write to`);
}

function requireTrustedLink(link: Stats, folder: Stats): void {
  if (!trustedOwners().includes(link.uid)) throw new Error(`it is a symbolic link of user ${link.uid}`);
  if ((folder.mode & 0o022) !== 0)
    throw new Error('it is a symbolic link in a folder that others may write to');
}

function said<Result>(path: string, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    throw failure('OUTPUT_UNWRITABLE', { path, detail: reason(error) });
  }
}
