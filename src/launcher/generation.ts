import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  unlinkSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { type Ownership, ownershipOf, sameOwnership, setOwnership } from '../platform/ownership.ts';
import { type Change, type Content, sameContent, writeNew } from './change.ts';
import { pathIn } from './folder.ts';
import { isGenerationOf, linkAt, reading, remove, type Stage } from './temporary.ts';

/**
 * Files that change together: a symbolic link NAME to a folder `.NAME.RANDOM` beside it, which is replaced by one to
 * another folder. The folder before is removed at once.
 */

const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY } = constants;

type Folder = Ownership & { content?: undefined };
/** By relative path, folders before what is in them, and the uppermost one under the empty path. */
type Tree = Map<string, Content | Folder>;

/**
 * A set of files in the place of a symbolic link.
 * @param place in an open folder; undefined where there is none
 * @param files by relative path
 * @param folder owner and mode of all folders
 * @returns undefined where there are just such files already
 */
export function changeGeneration(
  path: string,
  place: string | undefined,
  files: Iterable<[string, Content]>,
  folder: Ownership,
): Change | undefined {
  const wanted = treeOf(files, folder);
  const before = place === undefined ? undefined : lookAt(place);
  if (typeof before === 'object' && sameTree(before, wanted)) return undefined;
  return {
    path,
    make: (stage) => putGeneration(stage, path, wanted),
    restore: (stage) => putGeneration(stage, path, before),
  };
}

function treeOf(files: Iterable<[string, Content]>, { mode, uid, gid }: Ownership): Tree {
  const folder = { mode, uid, gid };
  const tree: Tree = new Map([['', folder]]);
  for (const [path, file] of files) {
    for (let end = path.indexOf('/'); end > 0; end = path.indexOf('/', end + 1))
      if (!tree.has(path.slice(0, end))) tree.set(path.slice(0, end), folder);
    tree.set(path, file);
  }
  return tree;
}

function sameTree(one: Tree, other: Tree): boolean {
  const same = (a: Content | Folder, b: Content | Folder | undefined) =>
    a.content ? b?.content && sameContent(a, b) : b && !b.content && sameOwnership(a, b);
  return one.size === other.size && [...one].every(([path, entry]) => same(entry, other.get(path)));
}

/** Readies a generation, or the text of a link to something else, or nothing, for a place. */
function putGeneration(stage: Stage, path: string, what: Tree | string | undefined): () => void {
  const name = basename(path);
  const place = stage.at(name);
  let temporary: string | undefined;
  if (what !== undefined) {
    temporary = stage.temporary();
    symlinkSync(typeof what === 'string' ? what : writeTree(stage, name, what), temporary);
  }
  return () => {
    const leaving = linkAt(place);
    if (temporary !== undefined) renameSync(temporary, place);
    else if (leaving !== undefined) unlinkSync(place);
    if (leaving === undefined || !isGenerationOf(name, leaving)) return;
    try {
      remove(stage.at(leaving));
    } catch {
      // The next launch tries again.
    }
  };
}

/** Removes a generation and its symbolic link. */
export function removeGeneration(stage: Stage, path: string): void {
  putGeneration(stage, path, undefined)();
}

/** Writes a tree to a new folder, whose name it gives. */
function writeTree(stage: Stage, link: string, tree: Tree): string {
  const { name, fd } = stage.folder(link);
  for (const [path, entry] of tree)
    if (entry.content) writeNew(pathIn(fd, path), entry);
    else if (path !== '') mkdirSync(pathIn(fd, path), 0o700);
  // From inside out: what is in a folder cannot be reached any more once that has its owner and mode.
  for (const [path, entry] of [...tree].reverse()) {
    if (entry.content) continue;
    const folder = openSync(pathIn(fd, path), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    try {
      setOwnership(folder, entry);
    } finally {
      closeSync(folder);
    }
  }
  return name;
}

/**
 * What is in the place of a generation: one, the text of a link to something else, or undefined for nothing.
 * @throws Error where there is something that is not a symbolic link
 */
function lookAt(place: string): Tree | string | undefined {
  for (;;) {
    const link = linkAt(place);
    if (link === undefined || !isGenerationOf(basename(place), link)) return link;
    const tree = readTree(join(dirname(place), link));
    // Another launch can have replaced it, and removed what was being read.
    if (linkAt(place) === link) return tree.size > 0 ? tree : link;
  }
}

/** Reads files and folders. What else a program has put there is not kept. */
function readTree(root: string): Tree {
  const tree: Tree = new Map();
  const read = (path: string, name: string) => {
    reading(path, (fd, stats) => {
      if (stats.isFile()) {
        tree.set(name, { ...ownershipOf(stats), content: readFileSync(fd) });
        return;
      }
      tree.set(name, ownershipOf(stats));
      for (const entry of readdirSync(pathIn(fd), { withFileTypes: true }))
        if (entry.isFile() || entry.isDirectory()) read(pathIn(fd, entry.name), join(name, entry.name));
    });
  };
  const user = process.geteuid?.();
  read(root, '');
  const top = tree.get('');
  if (top && user !== 0 && user !== top.uid) throw new Error('a folder of another user is there');
  return tree;
}
