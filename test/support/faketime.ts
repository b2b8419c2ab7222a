import { globSync } from 'node:fs';

/** Debian's libfaketime, by which a process believes in another time. Timers go on as they do. */
const [library] = globSync('/usr/lib/*/faketime/libfaketimeMT.so.1');

/** For the `skip` of a test that needs it. */
export const missingFaketime = library === undefined && 'not installed: libfaketime';

/** Variables of a process with another clock: an offset, or a file that is read whenever it asks for the time. */
export const clockOf = (
  what: { FAKETIME: string } | { FAKETIME_TIMESTAMP_FILE: string },
): NodeJS.ProcessEnv =>
  library === undefined
    ? {}
    : { LD_PRELOAD: library, FAKETIME_NO_CACHE: '1', FAKETIME_DONT_FAKE_MONOTONIC: '1', ...what };
