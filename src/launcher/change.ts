import {
  closeSync,
  lstatSync,
  openSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename } from 'node:path';
import { type Ownership, ownershipOf, sameOwnership, setOwnership } from '../platform/ownership.ts';
import { renameToNew } from '../platform/rename.ts';
import { reading, type Stage } from './temporary.ts';

/** Something that a launch puts into a place, decided when it looked at the place. */
export interface Change {
  path: string;
  /** Makes it under a temporary name, owner and mode included; gives what lets it take its place. */
  make(stage: Stage): () => void;
  /** The same for what was there before. */
  restore(stage: Stage): () => void;
}

export interface Content extends Ownership {
  content: Buffer;
}

/**
 * A file in a place, where a symbolic link is replaced and not followed.
 * @param place in an open folder; undefined where there is none
 * @returns undefined where there is just such a file already
 */
export function changeFile(path: string, place: string | undefined, wanted: Content): Change | undefined {
  const before = place === undefined ? undefined : lookAt(place);
  if (typeof before === 'object' && before.names === 1 && sameContent(before, wanted)) return undefined;
  return {
    path,
    make: (stage) => putFile(stage, path, wanted),
    restore: (stage) => putFile(stage, path, before),
  };
}

/**
 * A folder in a place.
 * @param place in an open folder; undefined where there is none
 * @returns undefined where there is one already, which stays as it is
 */
export function changeFolder(path: string, place: string | undefined, wanted: Ownership): Change | undefined {
  if (place !== undefined && isFolder(place)) return undefined;
  let made = false;
  return {
    path,
    make(stage) {
      const { name, fd } = stage.folder();
      setOwnership(fd, wanted);
      return () => {
        const [from, to] = [stage.at(name), stage.at(basename(path))];
        made = renameToNew(from, to);
        // Another launch can have made it meanwhile; else the file system cannot tell.
        if (made || isFolder(to)) return;
        renameSync(from, to);
        made = true;
      };
    },
    restore: (stage) => () => {
      if (made) rmdirSync(stage.at(basename(path)));
    },
  };
}

function isFolder(place: string): boolean {
  const found = lstatSync(place, { throwIfNoEntry: false });
  if (found && !found.isDirectory()) throw new Error('there is something that is not a folder');
  return found !== undefined;
}

/** Readies a file, or the text of a symbolic link, or nothing, for a place. */
function putFile(stage: Stage, path: string, what: Content | string | undefined): () => void {
  const place = stage.at(basename(path));
  if (what === undefined) return () => rmSync(place, { force: true });
  const temporary = stage.temporary();
  if (typeof what === 'string') symlinkSync(what, temporary);
  else writeNew(temporary, what);
  return () => renameSync(temporary, place);
}

/** Writes a file that does not exist yet, in a folder that nobody else may enter. */
export function writeNew(path: string, file: Content): void {
  const fd = openSync(path, 'wx', 0o600);
  try {
    writeFileSync(fd, file.content);
    setOwnership(fd, file);
  } finally {
    closeSync(fd);
  }
}

export function sameContent(one: Content, other: Content): boolean {
  return one.content.equals(other.content) && sameOwnership(one, other);
}

/**
 * What is in the place of a file: a file, the text of a symbolic link, or undefined for nothing.
 * @throws Error where there is something else, or a file that the launcher may not put back
 */
function lookAt(place: string): (Content & { names: number }) | string | undefined {
  const neither = 'there is something that is neither a file nor a symbolic link';
  const found = lstatSync(place, { throwIfNoEntry: false });
  if (!found) return undefined;
  if (found.isSymbolicLink()) return readlinkSync(place);
  if (!found.isFile()) throw new Error(neither);
  const user = process.geteuid?.();
  if (user !== 0 && user !== found.uid) throw new Error('a file of another user is there');
  return reading(place, (fd, opened) => {
    if (!opened.isFile()) throw new Error(neither);
    return { ...ownershipOf(opened), names: opened.nlink, content: readFileSync(fd) };
  });
}
