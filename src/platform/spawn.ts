import { readdirSync, readFileSync } from 'node:fs';
import { cLibrary, ffi } from './library.ts';

/** Child processes by posix_spawn(3) and waitpid(2), which Node's own do not show stopped, and not without pipes. */

const library = cLibrary({
  getpgid: { arguments: ['i32'], return: 'i32' },
  getsid: { arguments: ['i32'], return: 'i32' },
  pipe2: { arguments: ['buffer', 'i32'], return: 'i32' },
  posix_spawn: {
    arguments: ['buffer', 'string', 'buffer', 'buffer', 'buffer', 'buffer'],
    return: 'i32',
  },
  posix_spawn_file_actions_adddup2: { arguments: ['buffer', 'i32', 'i32'], return: 'i32' },
  posix_spawn_file_actions_destroy: { arguments: ['buffer'], return: 'i32' },
  posix_spawn_file_actions_init: { arguments: ['buffer'], return: 'i32' },
  posix_spawnattr_init: { arguments: ['buffer'], return: 'i32' },
  posix_spawnattr_setflags: { arguments: ['buffer', 'i16'], return: 'i32' },
  posix_spawnattr_setpgroup: { arguments: ['buffer', 'i32'], return: 'i32' },
  posix_spawnattr_setsigdefault: { arguments: ['buffer', 'buffer'], return: 'i32' },
  posix_spawnattr_setsigmask: { arguments: ['buffer', 'buffer'], return: 'i32' },
  tcgetpgrp: { arguments: ['i32'], return: 'i32' },
  tcsetpgrp: { arguments: ['i32', 'i32'], return: 'i32' },
  signal: { arguments: ['i32', 'u64'], return: 'u64' },
  waitpid: { arguments: ['i32', 'buffer', 'i32'], return: 'i32' },
});

const POSIX_SPAWN_RESETIDS = 0x01;
const POSIX_SPAWN_SETPGROUP = 0x02;
const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
/** More than the C library's types have on any processor. */
const OPAQUE_BYTES = 1024;
const SIGSET_BYTES = 128;
const WNOHANG = 1;
const WUNTRACED = 2;
const O_CLOEXEC = 0o2000000;
const SIGTTOU = 22;
const SIG_IGN = 1n;

/** What is spawned. Signals are as a program expects them: none ignored, none blocked. */
export interface Spawned {
  /** Executed as it is, without a search. */
  path: string;
  /** The name that the program sees first among them. */
  arguments: readonly string[];
  environment: Readonly<Record<string, string>>;
  /** Descriptors that it has beside standard input, output and error; all others are closed. */
  descriptors: readonly { from: number; to: number }[];
  /** Whether it begins a process group of its own. */
  ownGroup: boolean;
  /** A terminal that this group is put into the foreground of, before the program runs. */
  terminal?: number | undefined;
}

/** In glibc since 2.35. */
const foreground = cLibrary({
  posix_spawn_file_actions_addtcsetpgrp_np: { arguments: ['buffer', 'i32'], return: 'i32' },
});

/**
 * Starts a process, with the real user and group of this one as its only ones.
 * @returns its pid
 * @throws Error with errno, as process.execve does
 */
export function spawn({
  path,
  arguments: args,
  environment,
  descriptors,
  ownGroup,
  terminal,
}: Spawned): number {
  const c = library();
  const actions = Buffer.alloc(OPAQUE_BYTES);
  const attributes = Buffer.alloc(OPAQUE_BYTES);
  c.posix_spawn_file_actions_init(actions);
  c.posix_spawnattr_init(attributes);
  try {
    if (terminal !== undefined) bringToForeground(actions, terminal);
    // Node has had its own standard streams closed by execve.
    for (const fd of [0, 1, 2]) c.posix_spawn_file_actions_adddup2(actions, fd, fd);
    for (const { from, to } of descriptors) c.posix_spawn_file_actions_adddup2(actions, from, to);
    c.posix_spawnattr_setflags(
      attributes,
      POSIX_SPAWN_RESETIDS |
        POSIX_SPAWN_SETSIGDEF |
        POSIX_SPAWN_SETSIGMASK |
        (ownGroup ? POSIX_SPAWN_SETPGROUP : 0),
    );
    c.posix_spawnattr_setpgroup(attributes, 0);
    c.posix_spawnattr_setsigdefault(attributes, Buffer.alloc(SIGSET_BYTES, 0xff));
    c.posix_spawnattr_setsigmask(attributes, Buffer.alloc(SIGSET_BYTES));
    const pid = Buffer.alloc(4);
    const argv = stringArray(args);
    const envp = stringArray(Object.entries(environment).map(([name, value]) => `${name}=${value}`));
    const errno = c.posix_spawn(pid, path, actions, attributes, argv.pointers, envp.pointers);
    for (const { bytes } of [argv, envp]) bytes.fill(0);
    if (errno !== 0)
      throw Object.assign(new Error(`posix_spawn failed: error ${errno}`), { errno, code: '' });
    return pid.readInt32LE();
  } finally {
    c.posix_spawn_file_actions_destroy(actions);
  }
}

function bringToForeground(actions: Buffer, terminal: number): void {
  try {
    foreground().posix_spawn_file_actions_addtcsetpgrp_np(actions, terminal);
  } catch {
    // An older C library: whoever spawns does it a moment later.
  }
}

/** A list of texts as C has it: pointers to bytes that end with NUL, and a null pointer after the last. */
function stringArray(texts: readonly string[]): { pointers: Buffer; bytes: Buffer } {
  const encoded = texts.map((text) => Buffer.from(`${text}\0`));
  // Not from a pool, nor on the heap of V8: their addresses stay what they are.
  const bytes = Buffer.from(new ArrayBuffer(encoded.reduce((sum, { length }) => sum + length, 1)));
  const pointers = Buffer.from(new ArrayBuffer((texts.length + 1) * 8));
  let at = 0;
  const base = ffi().getRawPointer(bytes);
  for (const [index, text] of encoded.entries()) {
    pointers.writeBigUInt64LE(base + BigInt(at), index * 8);
    text.copy(bytes, at);
    text.fill(0);
    at += text.length;
  }
  return { pointers, bytes };
}

/** What has become of a child: it ended with a status or by a signal, or was stopped by a signal. */
export interface ChildEvent {
  pid: number;
  exited?: number;
  killed?: number;
  stopped?: number;
}

/** The next child that something has become of, whoever started it, or undefined (waitpid(2)). */
export function nextChildEvent(): ChildEvent | undefined {
  const buffer = Buffer.alloc(4);
  const pid = library().waitpid(-1, buffer, WNOHANG | WUNTRACED);
  if (pid <= 0) return undefined;
  const status = buffer.readInt32LE();
  const low = status & 0x7f;
  if (low === 0) return { pid, exited: (status >> 8) & 0xff };
  if ((status & 0xff) === 0x7f) return { pid, stopped: (status >> 8) & 0xff };
  return { pid, killed: low };
}

/** A new pipe; both ends are closed by execve. */
export function pipe(): { read: number; write: number } {
  const ends = Buffer.alloc(8);
  if (library().pipe2(ends, O_CLOEXEC) !== 0) throw new Error('no pipe can be made');
  return { read: ends.readInt32LE(0), write: ends.readInt32LE(4) };
}

/** Process group of a process (getpgid(2)), 0 being this one. */
export const processGroup = (pid: number): number => library().getpgid(pid);

/** Whether a process group has other members than this process (proc_pid_stat(5), field 5). */
export function hasOthersInGroup(group: number): boolean {
  return readdirSync('/proc').some((pid) => {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return false;
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
      return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[2]) === group;
    } catch {
      return false; // It has ended meanwhile.
    }
  });
}

/** Whether this process leads its session: no shell is there to continue it when it is stopped. */
export const isSessionLeader = (): boolean => library().getsid(0) === process.pid;

/** The process group in the foreground of a terminal (tcgetpgrp(3)), or -1. */
export const foregroundGroup = (terminal: number): number => library().tcgetpgrp(terminal);

/** Puts a process group into the foreground of a terminal, also from the background (tcsetpgrp(3)). */
export function setForegroundGroup(terminal: number, group: number): void {
  const before = library().signal(SIGTTOU, SIG_IGN);
  library().tcsetpgrp(terminal, group);
  library().signal(SIGTTOU, before);
}
