import { failure, reason } from '../errors.ts';
import { dropAmbientCapabilities, KEEP, setGroupIds, setGroupsOf, setUserIds, unlockMemory } from './libc.ts';
import type { User } from './users.ts';

/** Whom this process acts as, and whom the program it starts runs as (credentials(7)). */

const installed = process.getegid?.() ?? 0;
const own = process.getgid?.() ?? 0;
/** Whether `envcas` is installed so (setgid, with a group of its own) that its user may not look into it. */
export const isInstalled = installed !== own;

/**
 * The group of its own that `envcas` may be installed with (setgid), so that nobody can preload into it or trace it. It
 * is borrowed to be vouched for, and given back for everything else.
 */
export function borrowGroup(): void {
  if (isInstalled) setGroupIds(KEEP, installed, KEEP);
}

/** Files and programs do not get the group from here on. */
export function giveGroupBack(): void {
  if (isInstalled) setGroupIds(KEEP, own, KEEP);
}

/** Whom a program runs as, where not as the launcher itself. */
export interface RunAs {
  user: User | undefined;
  gid: number | undefined;
}

/** @throws Failure USER_NOT_PERMITTED */
export function checkRunAs({ user, gid }: RunAs): void {
  if (process.geteuid?.() === 0) return;
  if ((user === undefined || user.uid === process.getuid?.()) && (gid === undefined || gid === own)) return;
  throw failure('USER_NOT_PERMITTED', { user: nameOf({ user, gid }), detail: 'only root may choose' });
}

const nameOf = ({ user, gid }: RunAs) =>
  [user && `user ${user.name ?? user.uid}`, gid !== undefined && `group ${gid}`].filter(Boolean).join(', ');

/**
 * Starts a program as somebody else: meanwhile this process has his groups, and his ids as its real ones. What the
 * kernel executes gets its effective ids as saved ones, so nothing of ours is left in it.
 *
 * @param inPlace whether this process itself becomes the program, so that the effective ids must be his too
 */
export function runAs<Result>({ user, gid }: RunAs, inPlace: boolean, start: () => Result): Result {
  giveGroupBack();
  if (process.geteuid?.() !== 0 || (user === undefined && gid === undefined)) return start();
  const groups = process.getgroups?.() ?? [];
  const before = process.getuid?.() ?? 0;
  const effective = (id: number) => (inPlace ? id : KEEP);
  const become = () => {
    if (user?.name !== undefined) setGroupsOf(user.name, gid ?? own);
    else process.setgroups?.(gid === undefined ? [] : [gid]);
    if (gid !== undefined) setGroupIds(gid, effective(gid), KEEP);
    if (inPlace) unlockMemory();
    if (user && user.uid !== 0) dropAmbientCapabilities();
    if (user) setUserIds(user.uid, effective(user.uid), KEEP);
  };
  const restore = () => {
    // The saved ids are still ours.
    setUserIds(KEEP, 0, KEEP);
    setUserIds(before, 0, KEEP);
    setGroupIds(own, own, KEEP);
    process.setgroups?.(groups);
  };
  let result: Result;
  try {
    try {
      become();
    } catch (error) {
      throw failure('USER_NOT_PERMITTED', { user: nameOf({ user, gid }), detail: reason(error) });
    }
    result = start();
  } catch (error) {
    try {
      restore();
    } catch {
      // What was not allowed before is not allowed now; the first error says why.
    }
    throw error;
  }
  restore();
  return result;
}
