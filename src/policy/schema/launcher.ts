import * as v from 'valibot';
import { parseDuration } from '../../secrets/duration.ts';
import { boolean, choice, hex, integer, list, object, oneOf, oneOrMany, text, textOr } from '../shapes.ts';

/**
 * /etc/envcas/config.yaml: what a launcher does with what was released. What the schema gives out is valid input to it
 * again, so it is also the form in which the CAS hands it to the launcher.
 */

const path = v.pipe(
  text,
  v.regex(/^\/[^\0]*[^/\0]$/, 'expected the absolute path of a file'),
  v.check((written) => !written.includes('$$SCONE::'), 'a path holds no secret, since everybody can see it'),
);

/** Bits of a file mode, or of a umask (chmod(2)). */
const mode = choice(
  (input) => typeof input === 'number',
  v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0o1777)),
  v.pipe(
    text,
    v.regex(/^(0o?)?[01]?[0-7]{3}$/, 'expected an octal mode such as "0640", without setuid and setgid bits'),
    v.transform((written) => Number.parseInt(written.replace('0o', ''), 8)),
  ),
);

/** A user or group of the host, by name or number; which there are is known when the program is started. */
const principal = v.pipe(
  text,
  v.regex(
    /^([A-Za-z_][A-Za-z0-9_.-]{0,255}\$?|0|[1-9][0-9]{0,9})$/,
    'expected the name or number of a user or group',
  ),
  v.check((written) => !/^\d/.test(written) || Number(written) < 2 ** 32 - 1, 'there is no such number'),
);

const duration = v.pipe(
  text,
  v.check(
    (written) => (parseDuration(written) ?? Number.POSITIVE_INFINITY) <= 86_400_000,
    'expected a duration of at most a day, such as 10s',
  ),
);

const ownership = {
  mode: v.optional(mode),
  owner: v.optional(principal),
  group: v.optional(principal),
};

/** Lower ones are standard input, output and error; higher ones than this no limit lets a process have. */
const descriptor = object({ fd: integer(3, 1023) });

const file = object({ from: text, to: textOr(path, descriptor), ...ownership });

const directory = object({ path, ...ownership, generation: v.optional(boolean) });

/** Signals that a program may be sent; what they mean is its own affair (signal(7)). */
const signal = oneOf('SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH', 'SIGKILL');

const argument = v.pipe(
  text,
  v.check((word) => !word.includes('\0'), 'an argument holds no NUL byte'),
  v.check(
    (word) => !word.includes('$$SCONE::'),
    'a command here holds no secret, since everybody can see it',
  ),
);

const onChange = textOr(
  oneOf('restart', 'files'),
  choice(
    (input) => typeof input === 'object' && input !== null && 'command' in input,
    object({
      command: v.pipe(
        list(argument),
        v.check(
          ([program]) => program?.startsWith('/') === true,
          'expected the absolute path of a program, and its arguments',
        ),
      ),
    }),
    object({ signal }),
  ),
);

const supervise = object({
  on_change: v.optional(onChange),
  kill_signal: v.optional(signal),
  kill_timeout: v.optional(duration),
  splay: v.optional(duration),
  debounce: v.optional(duration),
  remove_files: v.optional(boolean),
  redact: v.optional(boolean),
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

/** `injected_file` is another spelling of `injection_files`. */
export const launcherConfiguration = object({
  program: path,
  sha256: v.optional(oneOrMany(hex(64))),
  user: v.optional(principal),
  group: v.optional(principal),
  umask: v.optional(mode),
  pwd: v.optional(textOr(v.literal('/'), path)),
  directories: v.optional(list(directory)),
  injection_files: v.optional(list(file)),
  injected_file: v.optional(list(file)),
  supervise: v.optional(supervise),
});

type Written = v.InferOutput<typeof launcherConfiguration>;
export type FileTarget = NonNullable<Written['injection_files']>[number];
export type Directory = NonNullable<Written['directories']>[number];
export type Supervision = NonNullable<Written['supervise']>;
/** Files under one key, however they were written. */
export type LauncherConfiguration = Omit<Written, 'injected_file' | 'injection_files'> & {
  injection_files: FileTarget[];
};
