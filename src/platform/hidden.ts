import { statSync } from 'node:fs';
import { borrowGroup, giveGroupBack, isInstalled } from './identity.ts';
import { makeDumpable, makeNonDumpable } from './libc.ts';

/** Whether this process keeps others from looking at it. */
let hidden = false;
export const isHidden = (): boolean => hidden;

/** Keeps other processes of this one's user from looking at it. */
export function hide(): void {
  giveGroupBack();
  makeNonDumpable();
  hidden = true;
}

/**
 * Lets a LAS look at this process meanwhile: with the group it is installed with, and where the LAS has the same user, by
 * letting that user read it. Who has such a LAS trusts that user with all that it vouches for.
 * @param las path of its socket
 */
export async function seenBy<Result>(las: string, work: () => Promise<Result>): Promise<Result> {
  borrowGroup();
  try {
    if (hidden && !isInstalled && isOwn(las)) makeDumpable();
    return await work();
  } finally {
    hide();
  }
}

function isOwn(path: string): boolean {
  try {
    return statSync(path).uid === process.geteuid?.();
  } catch {
    // Connecting to it will say what is wrong.
    return false;
  }
}
