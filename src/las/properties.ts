import type { Stats } from 'node:fs';
import type { Property } from '../attestation/claims.ts';
import {
  type Ids,
  type MemoryImage,
  mappedFile,
  onlyRootWrites,
  startedSecurely,
} from '../platform/process.ts';

/** What holds of a process in the LAS's own user namespace. */
export function propertiesOf(pid: number, image: MemoryImage, isSecure: boolean): Property[] {
  return [
    ...(isSecure ? (['secure-execution'] as const) : []),
    ...(hasRootOwnedCode(pid, image) ? (['root-owned-code'] as const) : []),
  ];
}

const SETGID = 0o2010;

/**
 * `secure-execution`: the process runs an executable that root installed setgid, with that group, which its user does
 * not have otherwise.
 *
 * So the dynamic linker and Node took no code and no options from the one who started it, and no process of that user
 * could trace it or write its memory since. Each part is needed: a process can write its own auxiliary vector
 * (PR_SET_MM_MAP), and in a user namespace have AT_SECURE by another group; but the group of the file comes from the
 * kernel alone. It does not hold where somebody who is not root has that group, or where another program that has it
 * can be made to run code of its user.
 */
export function isSecureExecution(pid: number, { real, effective, saved }: Ids, file: Stats): boolean {
  return (
    startedSecurely(pid) &&
    onlyRootWrites(file) &&
    (file.mode & SETGID) === SETGID &&
    effective === file.gid &&
    saved === file.gid &&
    real !== file.gid
  );
}

/** A launcher has about ten. */
const MOST_EXECUTABLE = 64;

/**
 * `root-owned-code`: whatever of files is executable in the process now, only root can write those files.
 *
 * So no library of its user's is there: not by a variable, nor by a library path, nor by `/etc/ld.so.preload` of a
 * container. It says nothing of code that was there before and has removed itself, or lies in memory that belongs to no
 * file, where Node's compiler puts its own too; it is looked at once, when the process first speaks, since whoever runs
 * code in it may clear up before that. Nor of file systems whose content somebody else decides, such as those of
 * removable media, which say who owns a file as they like.
 */
function hasRootOwnedCode(pid: number, image: MemoryImage): boolean {
  const places = image.executableFiles();
  if (!places || places.length > MOST_EXECUTABLE) return false;
  try {
    return places.every((place) => onlyRootWrites(mappedFile(pid, place)));
  } catch (error) {
    // A LAS that is not root may not look, and what cannot be looked at is not vouched for.
    if (error instanceof Error && 'errno' in error) return false;
    throw error;
  }
}
