import { rmSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { failure, reason } from '../errors.ts';
import type { DirectoryToMake, FileToWrite, Launch } from './assemble.ts';
import { type Change, type Content, changeFile, changeFolder } from './change.ts';
import { isError } from './folder.ts';
import { changeGeneration, removeGeneration } from './generation.ts';
import { openStage, type Stage } from './temporary.ts';

export interface Materialised {
  /** Whether anything was not yet as it should be. */
  changed: boolean;
  /** Puts back what was there before, for a launch that fails later; gives the first error of doing so. */
  undo(): unknown;
}

/**
 * Makes the folders of a launch and writes its files: all of them, or none. Files for a descriptor are left out.
 * Each is made under a temporary name beside its place, with its owner and mode, and takes its place by rename, so
 * nobody ever sees a part of one. What is there already as it should be is not touched.
 *
 * @throws Failure TARGET_UNWRITABLE
 */
export function materialise({ files, directories }: Pick<Launch, 'files' | 'directories'>): Materialised {
  const placed: Change[] = [];
  const undo = () =>
    attemptAll(placed.splice(0).reverse(), ({ path, restore }) =>
      inStages((stageIn) => restore(stageIn(dirname(path)))()),
    );
  let at = '';
  const place = (change: Change, take: () => void) => {
    at = change.path;
    take();
    placed.push(change);
  };
  try {
    const targets = sort(files, directories);
    inStages((stageIn) => {
      const looking = <Item extends Target>(
        items: Item[],
        look: (item: Item, place: string | undefined) => Change | undefined,
      ) =>
        items.flatMap((item) => {
          at = item.path;
          return look(item, placeOf(at, stageIn)) ?? [];
        });
      const make = (change: Change) => {
        at = change.path;
        return change.make(stageIn(dirname(at)));
      };
      cleanAround(targets, stageIn);
      const folders = looking(targets.folders, (it, now) => changeFolder(it.path, now, it));
      const changes = [
        ...looking(targets.files, (it, now) => changeFile(it.path, now, it)),
        ...looking(targets.generations, (it, now) => changeGeneration(it.path, now, it.files, it)),
      ];
      for (const folder of folders) place(folder, make(folder));
      const made = changes.map((change) => [change, make(change)] as const);
      for (const [change, take] of made) place(change, take);
    });
  } catch (error) {
    throw failure('TARGET_UNWRITABLE', { path: at, detail: reason(error) }, undo());
  }
  return { changed: placed.length > 0, undo };
}

/**
 * Removes the files of a launch, whatever they hold by now, and generations with all that is in them. Folders stay.
 * @returns the first error of doing so
 */
export function removeFiles({ files, directories }: Pick<Launch, 'files' | 'directories'>): unknown {
  const targets = sort(files, directories);
  return attemptAll([...targets.files, ...targets.generations], (target) =>
    inStages((stageIn) => {
      const place = placeOf(target.path, stageIn);
      if (place === undefined) return;
      if ('files' in target) removeGeneration(stageIn(dirname(target.path)), target.path);
      else rmSync(place, { force: true });
    }),
  );
}

interface Target {
  path: string;
}

interface Targets {
  folders: DirectoryToMake[];
  files: (Content & Target)[];
  generations: (DirectoryToMake & { files: Map<string, Content> })[];
}

/** Finds which files make a generation together. */
function sort(files: FileToWrite[], directories: DirectoryToMake[]): Targets {
  const targets: Targets = { folders: [], files: [], generations: [] };
  for (const directory of directories)
    if (directory.generation) targets.generations.push({ ...directory, files: new Map() });
    else targets.folders.push(directory);
  for (const { to, ...file } of files) {
    if (typeof to !== 'string') continue;
    const generation = targets.generations.find(({ path }) => to.startsWith(`${path}/`));
    if (generation) generation.files.set(to.slice(generation.path.length + 1), file);
    else targets.files.push({ path: to, ...file });
  }
  return targets;
}

/** Opens a folder, once. @throws Error where it cannot be opened */
type StageIn = (folder: string) => Stage;

/** A path in its open folder, or undefined where there is no such folder. */
function placeOf(path: string, stageIn: StageIn): string | undefined {
  try {
    return stageIn(dirname(path)).at(basename(path));
  } catch (error) {
    if (isError(error, 'ENOENT') || isError(error, 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** Removes what killed launches have left beside the targets. */
function cleanAround({ folders, files, generations }: Targets, stageIn: StageIn): void {
  const user = process.geteuid?.() ?? 0;
  const users = new Set([user]);
  const links = new Map<string, Set<string>>();
  for (const { path } of [...folders, ...files, ...generations]) links.set(dirname(path), new Set());
  for (const { path } of generations) links.get(dirname(path))?.add(basename(path));
  // What root was about to give to a user may already have been given.
  if (user === 0) for (const { uid } of [...folders, ...generations]) if (uid !== undefined) users.add(uid);
  for (const [folder, names] of links)
    try {
      stageIn(folder).clean(names, users);
    } catch {
      // A launch can do without. Why the folder cannot be used is told when something is put into it.
    }
}

/**
 * Lets things be made in folders, and removes all that is temporary at the end. Each folder is opened once, so that it
 * is the same one in which a place is looked at and taken.
 */
function inStages(work: (stageIn: StageIn) => void): void {
  const stages = new Map<string, Stage>();
  // The launcher itself must be able to use what it makes.
  const umask = process.umask(0o077);
  try {
    work((folder) => {
      const stage = stages.get(folder) ?? openStage(folder);
      stages.set(folder, stage);
      return stage;
    });
  } finally {
    process.umask(umask);
    for (const stage of stages.values()) stage.close();
  }
}

/** Does something with all, also after it has failed with one; gives the first error. */
function attemptAll<Item>(items: Item[], attempt: (item: Item) => void): unknown {
  const errors: unknown[] = [];
  for (const item of items)
    try {
      attempt(item);
    } catch (error) {
      errors.push(error);
    }
  return errors[0];
}
