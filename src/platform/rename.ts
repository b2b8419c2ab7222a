import { cLibrary } from './library.ts';

/** Renaming that replaces nothing, which Node does not offer. */
const library = cLibrary({
  renameat2: { arguments: ['i32', 'string', 'i32', 'string', 'u32'], return: 'i32' },
});

const AT_FDCWD = -100;
const RENAME_NOREPLACE = 1;

/**
 * Gives a file or folder another absolute path, where there is nothing yet (renameat2(2)).
 * @returns false where there is something, or the file system cannot do it
 */
export function renameToNew(from: string, to: string): boolean {
  return library().renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) === 0;
}
