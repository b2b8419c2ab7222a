import * as v from 'valibot';
import { type Failure, failure } from '../errors.ts';
import type { Ids } from '../platform/process.ts';

/** As whom a process runs, as the kernel of its host says. */
export interface Credentials {
  uid: Ids;
  gid: Ids;
  /** Name of the real user, where the process sees the files of its LAS. */
  user?: string;
  /** The systemd service that it belongs to, such as `envcas-cas.service`; no ordinary user enters one. */
  unit?: string;
}

/** Characters of a unit's name (systemd.unit(5)). */
const unitName = String.raw`[A-Za-z0-9:_.@\\-]{1,240}\.service`;
const inSystemSlice = new RegExp(String.raw`^/system\.slice/(${unitName})$`);

/** The unit whose control group this is, in none of which ordinary users may put processes. */
export function unitOf(cgroup: string): string | undefined {
  return inSystemSlice.exec(cgroup)?.[1];
}

const written = new RegExp(
  String.raw`^(uid:(0|[1-9][0-9]{0,9})|user:[^\s:/$\p{C}]{1,256}|unit:${unitName})$`,
  'u',
);

/** As whom something may run: `uid:N`, `user:NAME` or `unit:NAME.service`. */
export const runAs = v.pipe(
  v.string(),
  v.regex(written, 'expected uid:NUMBER, user:NAME or unit:NAME.service'),
);

/** As whom a CAS runs where nobody says otherwise: as root, or as the unit of packaging/. */
export const RUN_AS_OF_CAS: readonly string[] = ['uid:0', 'unit:envcas-cas.service'];

/** In the words of {@link runAs}, all that holds, its number first; none where the ids differ, as then the process has two users. */
export function wordsOf({ uid: { real, effective, saved }, user, unit }: Credentials): string[] {
  if (real !== effective || real !== saved) return [];
  return [
    `uid:${real}`,
    ...(user === undefined ? [] : [`user:${user}`]),
    ...(unit === undefined ? [] : [`unit:${unit}`]),
  ];
}

/** For people. */
export function describeCredentials(credentials: Credentials | undefined): string {
  if (!credentials)
    return 'nobody knows whom (its LAS, of an older version, does not say: start the present one there)';
  const { real, effective, saved } = credentials.uid;
  return (
    wordsOf(credentials).join(', ') ||
    `the users ${real} (real), ${effective} (effective) and ${saved} (saved)`
  );
}

/**
 * Whether a process runs as one of these; where nobody knows, it does not.
 * @returns RUN_AS_UNEXPECTED where it does not
 */
export function runAsRefusal(
  expected: readonly string[],
  credentials: Credentials | undefined,
): Failure | undefined {
  const words = credentials ? wordsOf(credentials) : [];
  if (expected.some((each) => words.includes(each))) return undefined;
  const actual = describeCredentials(credentials);
  return failure('RUN_AS_UNEXPECTED', { actual, expected: expected.join(' or ') || 'nobody' });
}
