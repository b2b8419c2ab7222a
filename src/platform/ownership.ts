import { fchmodSync, fchownSync, fstatSync, type Stats, statSync } from 'node:fs';

/**
 * Users who could do as they like with this process anyway: itself, root, and the owner of `/`, who in a user namespace may be
 * one that has no number in it.
 */
export function trustedOwners(): number[] {
  return [0, process.geteuid?.() ?? 0, statSync('/').uid];
}

/** Owner and mode that a file or folder has from its first moment; what is undefined is this process's own. */
export interface Ownership {
  mode: number;
  uid: number | undefined;
  gid: number | undefined;
}

/** With numbers in place of what is undefined. */
type Owner = { [Key in keyof Ownership]: number };

/** The effective group may be one that is only borrowed to be vouched for, and is for no file (see identity.ts). */
function resolve({ mode, uid, gid }: Ownership): Owner {
  return { mode, uid: uid ?? process.geteuid?.() ?? 0, gid: gid ?? process.getgid?.() ?? 0 };
}

/** Owner and mode that a file has, without its type. */
export function ownershipOf({ mode, uid, gid }: Stats): Owner {
  return { mode: mode & 0o7777, uid, gid };
}

export function sameOwnership(one: Ownership, other: Ownership): boolean {
  const [a, b] = [resolve(one), resolve(other)];
  return a.mode === b.mode && a.uid === b.uid && a.gid === b.gid;
}

/** Gives an open file or folder its owner, then its mode, which a change of owner could reduce (chown(2)). */
export function setOwnership(fd: number, wanted: Ownership): void {
  const { mode, uid, gid } = resolve(wanted);
  const has = fstatSync(fd);
  if (has.uid !== uid || has.gid !== gid)
    try {
      fchownSync(fd, uid, gid);
    } catch (cause) {
      const user = process.geteuid?.();
      throw new Error(`user ${user} cannot give it to user ${uid} and group ${gid}`, { cause });
    }
  fchmodSync(fd, mode);
}
