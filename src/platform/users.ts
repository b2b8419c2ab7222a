import { readFileSync } from 'node:fs';
import { failure } from '../errors.ts';
import { cLibrary, ffi } from './library.ts';

/** Users and groups of the host, as the C library knows them: /etc/passwd, /etc/group and what nsswitch.conf(5) adds. */

const library = cLibrary({
  getpwnam: { arguments: ['string'], return: 'pointer' },
  getpwuid: { arguments: ['u32'], return: 'pointer' },
  getgrnam: { arguments: ['string'], return: 'pointer' },
});

export interface User {
  /** Undefined for a number that no user has. */
  name: string | undefined;
  uid: number;
  /** Its primary group; undefined for a number that no user has. */
  gid: number | undefined;
}

const isNumber = (written: string) => /^\d+$/.test(written);

/** A user by name or number (getpwnam(3)). @throws Failure USER_UNKNOWN */
export function findUser(written: string): User {
  const { getpwnam, getpwuid } = library();
  const entry = isNumber(written) ? getpwuid(Number(written)) : getpwnam(written);
  if (entry === 0n) {
    if (isNumber(written)) return { name: undefined, uid: Number(written), gid: undefined };
    throw failure('USER_UNKNOWN', { user: written });
  }
  // struct passwd: name, password, then uid and gid.
  const name = ffi().toString(ffi().getUint64(entry)) ?? undefined;
  return { name, uid: ffi().getUint32(entry, 16), gid: ffi().getUint32(entry, 20) };
}

const FRESH = 60_000;
const MOST_NAMES = 1024;
const names = new Map<number, { name: string | undefined; until: number }>();

/** Name of a user by number, as it was within the last minute: a directory service may take long to say. */
export function nameOfUser(uid: number): string | undefined {
  const now = performance.now();
  const known = names.get(uid);
  if (known && known.until > now) return known.name;
  const { name } = findUser(String(uid));
  names.delete(uid);
  names.set(uid, { name, until: now + FRESH });
  if (names.size > MOST_NAMES) names.delete(names.keys().next().value ?? uid);
  return name;
}

/** Number of a group by name or number (getgrnam(3)). @throws Failure GROUP_UNKNOWN */
export function findGroup(written: string): number {
  if (isNumber(written)) return Number(written);
  const entry = library().getgrnam(written);
  if (entry === 0n) throw failure('GROUP_UNKNOWN', { group: written });
  // struct group: name, password, then gid.
  return ffi().getUint32(entry, 16);
}

/** The least number that users are given for their namespaces (login.defs(5), SUB_UID_MIN). */
const SUBORDINATE = 65_536;

/**
 * Who commands a user: that is himself, but for those that another was given for his namespaces (subuid(5)).
 * @param file that says whom they were given to
 */
export function commanderOf(uid: number, file = '/etc/subuid'): number {
  if (uid < SUBORDINATE) return uid;
  for (const line of textOf(file).split('\n')) {
    const [name = '', first, count] = line.split(':');
    if (uid >= Number(first) && uid < Number(first) + Number(count)) return numberOf(name) ?? uid;
  }
  return uid;
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function numberOf(user: string): number | undefined {
  try {
    return findUser(user).uid;
  } catch {
    return undefined;
  }
}
