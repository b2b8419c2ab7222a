import * as v from 'valibot';
import {
  boolean,
  choice,
  describe,
  hex,
  integer,
  list,
  object,
  oneOf,
  oneOrMany,
  suggest,
  text,
  textOr,
} from '../shapes.ts';
import { described, duration } from './values.ts';

/**
 * /etc/envcas/config.yaml: what a launcher does with what was released. What the schema gives out is valid input to it
 * again, so it is also the form in which the CAS hands it to the launcher.
 */

const holdsSecret = (written: string) => /\$\$(SCONE|PALAEMON)::/.test(written);

const path = (pattern: RegExp, expected: string) =>
  v.pipe(
    text,
    v.regex(pattern, expected),
    v.check((written) => !holdsSecret(written), 'a path holds no secret, since everybody can see it'),
  );
const filePath = path(/^\/[^\0]*[^/\0]$/, 'expected the absolute path of a file');
const workingDirectory = path(/^\/[^\0]*$/, 'expected the absolute path of a folder');
/** Files are found to be within it by how it is written, so there is one way to write it. */
const folderPath = path(
  /^(?=[^\0]{1,4095}$)(\/(?!\.{1,2}(\/|$))[^/\0]+)+$/,
  'expected the absolute path of a folder, without ., .. and doubled slashes, and none at its end',
);

/**
 * Bits of a mode (chmod(2)), written in octal as there, with quotes or without. They are a number only in what was read
 * already: for the editors that take an unquoted 0640 for one, bounds would mean nothing.
 */
const bits = (pattern: RegExp, most: number, expected: string) =>
  choice(
    (input) => typeof input === 'number',
    v.pipe(
      v.number(),
      v.integer(),
      v.check((number) => number >= 0 && number <= most),
    ),
    v.pipe(
      text,
      v.regex(pattern, expected),
      v.transform((written) => Number.parseInt(written.replace('0o', ''), 8)),
    ),
  );
const mode = bits(/^(0o?)?0?[0-7]{3}$/, 0o777, 'expected an octal mode without special bits, such as 0640');
const folderMode = bits(
  /^(0o?)?[01]?[0-7]{3}$/,
  0o1777,
  'expected an octal mode without setuid and setgid bits, such as 0750',
);
const umask = bits(/^(0o?)?0?[0-7]{3}$/, 0o777, 'expected an octal umask, such as 0027');

/** A user or group of the host, by name or number; which there are is known when the program is started. */
const principal = v.pipe(
  text,
  v.regex(
    /^([A-Za-z_][A-Za-z0-9_.-]{0,255}\$?|0|[1-9][0-9]{0,9})$/,
    'expected the name or number of a user or group',
  ),
  v.check((written) => !/^\d/.test(written) || Number(written) < 2 ** 32 - 1, 'there is no such number'),
);

/** Modes where none is written. */
export const defaultModes = { file: 0o600, directory: 0o700 };

const ownership = {
  owner: v.optional(described(principal, 'User of the host who owns it; default: whom the program runs as')),
  group: v.optional(described(principal, 'Group of the host; default: that of the program')),
};

/** Lower ones are standard input, output and error; higher ones than this no limit lets a process have. */
const descriptor = object({
  fd: described(integer(3, 1023), 'Descriptor that the program inherits; also at /proc/self/fd/N'),
});

const file = object({
  from: described(text, 'Path under which the policy injects the file'),
  to: described(textOr(filePath, descriptor), 'Absolute path to write it to, or {fd: N}'),
  mode: v.optional(described(mode, 'In octal; default: 0600')),
  ...ownership,
});

const directory = object({
  path: described(folderPath, 'Folder that is made where there is none'),
  mode: v.optional(described(folderMode, 'In octal; default: 0700')),
  ...ownership,
  generation: v.optional(
    described(boolean, 'Files below it change at once: the path becomes a symbolic link that is replaced'),
  ),
});

const sha256 = v.pipe(
  oneOrMany(hex(64)),
  v.check((digests) => digests.length > 0, 'no program has one of no digests; leave sha256 out'),
);

/** Signals that a program may be sent; what they mean is its own affair (signal(7)). */
const signal = oneOf('SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH', 'SIGKILL');

const argument = v.pipe(
  text,
  v.check((word) => !word.includes('\0'), 'an argument holds no NUL byte'),
  v.check((word) => !holdsSecret(word), 'a command here holds no secret, since everybody can see it'),
);

const onChangeWords = ['restart', 'files'] as const;
const onChange = textOr(
  v.picklist(onChangeWords, (issue) => {
    suggest(issue, issue.input, onChangeWords);
    return `expected restart, files, {signal: NAME} or {command: [PROGRAM, …]}, found ${describe(issue.input)}`;
  }),
  choice(
    (input) => typeof input === 'object' && input !== null && 'command' in input,
    object({
      command: described(
        v.pipe(
          list(argument),
          v.check(
            ([program]) => program?.startsWith('/') === true,
            'expected the absolute path of a program, and its arguments',
          ),
        ),
        'Program that is run, and its arguments',
      ),
      sha256: v.optional(
        described(
          sha256,
          'SHA-256 that the command must have, or a list of them; where the program has one, nobody else may be able to write to the command',
        ),
      ),
    }),
    object({ signal: described(signal, 'Signal that the program is sent') }),
  ),
);

const supervise = object({
  on_change: v.optional(
    described(onChange, 'Once files have changed: restart (default), files, {signal} or {command}'),
  ),
  kill_signal: v.optional(described(signal, 'Signal by which the program is ended; default: SIGTERM')),
  kill_timeout: v.optional(described(duration, 'After that it is killed; default: 10s')),
  splay: v.optional(described(duration, 'Wait up to this long, at random, before a change; default: none')),
  debounce: v.optional(described(duration, 'Wait this long for further changes; default: 100ms')),
  remove_files: v.optional(described(boolean, 'Remove the files once the program has ended; default: false')),
  redact: v.optional(
    described(boolean, 'Keep released secrets out of what the program prints; default: false'),
  ),
});

/** What holds where `supervise` does not say otherwise. */
export const supervisionDefaults = {
  on_change: 'restart',
  kill_signal: 'SIGTERM',
  kill_timeout: '10s',
  debounce: '100ms',
  remove_files: false,
  redact: false,
} as const satisfies v.InferOutput<typeof supervise>;

const MOST_DIRECTORIES = 256;

/** Where a policy injects the launcher's own configuration. */
export const LAUNCHER_CONFIGURATION_PATH = '/etc/envcas/config.yaml';

/** `injected_file` is another spelling of `injection_files`. */
export const launcherConfiguration = object({
  program: described(filePath, 'Program that is started'),
  sha256: v.optional(described(sha256, 'SHA-256 that the program must have, or a list of them')),
  user: v.optional(
    described(principal, 'User of the host whom the program runs as; default: the launcher’s'),
  ),
  group: v.optional(described(principal, 'Group of the host; default: that of the user')),
  umask: v.optional(described(umask, 'Umask of the program, in octal')),
  pwd: v.optional(described(workingDirectory, 'Working directory, where the service has none')),
  directories: v.optional(
    described(
      // Each file is compared with each of them.
      v.pipe(list(directory), v.maxLength(MOST_DIRECTORIES, `expected at most ${MOST_DIRECTORIES} folders`)),
      'Folders to make',
    ),
  ),
  injection_files: v.optional(described(list(file), 'Files to write')),
  injected_file: v.optional(described(list(file), 'Another spelling of injection_files')),
  supervise: v.optional(
    described(supervise, 'Stay as the parent of the program, and keep its files up to date'),
  ),
});

type Written = v.InferOutput<typeof launcherConfiguration>;
export type FileTarget = NonNullable<Written['injection_files']>[number];
export type Directory = NonNullable<Written['directories']>[number];
export type Supervision = NonNullable<Written['supervise']>;
/** Files under one key, however they were written. */
export type LauncherConfiguration = Omit<Written, 'injected_file' | 'injection_files'> & {
  injection_files: FileTarget[];
};
