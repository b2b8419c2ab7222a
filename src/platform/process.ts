import { createHash } from 'node:crypto';
import {
  closeSync,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  type Stats,
  statSync,
} from 'node:fs';
import { failure } from '../errors.ts';

/** What tells one content of a file from another without reading it (stat(2)); times in nanoseconds. */
export interface FileIdentity {
  device: bigint;
  inode: bigint;
  size: bigint;
  modified: bigint;
  changed: bigint;
}

/** Identity of an open file. */
export function fileIdentity(fd: number): FileIdentity {
  const s = fstatSync(fd, { bigint: true });
  return { device: s.dev, inode: s.ino, size: s.size, modified: s.mtimeNs, changed: s.ctimeNs };
}

/** One text for one identity, to compare and to use as a key. */
export function identityKey(identity: FileIdentity): string {
  return Object.values(identity).join(':');
}

/** A descriptor of the executable file that a process runs, whatever its path names by now (proc_pid_exe(5)). */
export function openExecutable(pid: number): number {
  return openSync(`/proc/${pid}/exe`, 'r');
}

/** Bytes of what /proc says of a process, at most: of more, somebody wants the reader to be busy. */
const MOST_TOLD = 1 << 20;
/** One for all who are looked at, one after the other. */
let told: Buffer | undefined;

/**
 * What a file of /proc says of a process, until the next one is read.
 * @throws Failure PROCESS_UNREADABLE where it is longer than of any launcher
 */
function readTold(pid: number, name: string): Buffer {
  told ??= Buffer.allocUnsafeSlow(MOST_TOLD);
  const fd = openSync(`/proc/${pid}/${name}`, 'r');
  try {
    let length = 0;
    for (let count = 1; count > 0; length += count) {
      if (length === told.length)
        throw failure('PROCESS_UNREADABLE', { pid, detail: `its ${name} has more than ${MOST_TOLD} bytes` });
      count = readSync(fd, told, length, told.length - length, null);
    }
    return told.subarray(0, length);
  } finally {
    closeSync(fd);
  }
}

/** Start of a process in clock ticks since boot; with the pid it names one process (proc_pid_stat(5), field 22). */
export function startTime(pid: number): bigint {
  const stat = readTold(pid, 'stat').toString('latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return BigInt(fields[19] ?? '0');
}

/**
 * Names a process for ever: no other one has the same, on this host or another. SHA-256, hexadecimal, of the boot id
 * (random(4)), the namespace its pid is seen from, the pid and the start time.
 */
export function processIdentity(pid: number, started: bigint): string {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  const identity = [boot, readlinkSync('/proc/self/ns/pid'), pid, started].join('\n');
  return createHash('sha256').update(identity).digest('hex');
}

/**
 * A field of proc_pid_status(5). A process chooses its name, which stands there too: the kernel escapes no more of that than
 * `\n`, at which lines end, and nothing else counts as their beginning.
 */
function statusField(status: string, name: string): string | undefined {
  const start = `${name}:\t`;
  const line = status.split('\n').find((each) => each.startsWith(start));
  return line?.slice(start.length);
}

/** A launcher has about ten, a CAS twenty. */
const MOST_THREADS = 32;

/** Pid of a process that traces any thread of this one, or 0 (proc_pid_status(5), TracerPid). */
export function tracer(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  if (threads.length > MOST_THREADS)
    throw failure('PROCESS_UNREADABLE', { pid, detail: `it has more than ${MOST_THREADS} threads` });
  for (const thread of threads) {
    let status: string;
    try {
      status = readTold(pid, `task/${thread}/status`).toString('latin1');
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT' || code === 'ESRCH') continue; // The thread has ended meanwhile.
      throw error;
    }
    const by = Number(statusField(status, 'TracerPid'));
    if (by !== 0) return by;
  }
  return 0;
}

/** A launcher has a hundred. */
const MOST_VARIABLES = 4096;

/**
 * Names of the variables a process was started with (proc_pid_environ(5)).
 * @throws Failure PROCESS_UNREADABLE where there are more, or longer ones, than of any launcher
 */
export function initialEnvironmentNames(pid: number): string[] {
  const environment = readTold(pid, 'environ');
  const names: string[] = [];
  for (let at = 0; at < environment.length; ) {
    const end = environment.indexOf(0, at);
    const next = end < 0 ? environment.length : end;
    if (next > at) {
      const entry = environment.subarray(at, next);
      const equals = entry.indexOf('=');
      names.push(entry.toString('latin1', 0, equals < 0 ? entry.length : equals));
    }
    if (names.length > MOST_VARIABLES)
      throw failure('PROCESS_UNREADABLE', { pid, detail: `it has more than ${MOST_VARIABLES} variables` });
    at = next + 1;
  }
  return names;
}

/** Whether memory of processes can come to lie on a disk (proc_swaps(5)). */
export function hasSwap(): boolean {
  try {
    return readFileSync('/proc/swaps', 'latin1').split('\n').length > 2;
  } catch {
    return true; // Who knows.
  }
}

/** Name of a process, which only its own threads can set (proc_pid_comm(5)); at most 15 bytes. */
export function processName(pid: number | 'self'): string {
  return readFileSync(`/proc/${pid}/comm`, 'latin1').replace(/\n$/, '');
}

/** A memory image that a process had; close it when done. */
export interface MemoryImage {
  /** Whether the process still has it. */
  isCurrent(): boolean;
  /**
   * What of files in it can be executed (proc_pid_maps(5)): places in memory, `START-END` in hexadecimal.
   * @returns undefined where it is made of more pieces than any launcher
   */
  executableFiles(): string[] | undefined;
  close(): void;
}

/**
 * Holds on to the memory image that a process has now. The kernel binds an open /proc/PID/maps to the image,
 * not to the pid: once the process has called execve or has ended, reading it gives nothing.
 */
export function holdMemoryImage(pid: number): MemoryImage {
  const fd = openSync(`/proc/${pid}/maps`, 'r');
  const byte = Buffer.alloc(1);
  return {
    isCurrent() {
      try {
        return readSync(fd, byte, 0, 1, 0) === 1;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
        throw error;
      }
    },
    executableFiles() {
      maps ??= Buffer.allocUnsafe(LARGEST_MAPS);
      let length = 0;
      for (let count = 1; count > 0; length += count) {
        if (length === maps.length) return undefined;
        count = readSync(fd, maps, length, maps.length - length, length);
      }
      return maps
        .toString('latin1', 0, length)
        .split('\n')
        .flatMap((line) => {
          const [place = '', mode, , , inode] = line.split(' ', 5);
          return mode?.[2] === 'x' && inode !== '0' ? place : [];
        });
    },
    close: () => closeSync(fd),
  };
}

/** A launcher has 15 KB. */
const LARGEST_MAPS = 256 * 1024;
/** One for all who are looked at, one after the other: so much anew for each would have the garbage collected all the time. */
let maps: Buffer | undefined;

/**
 * Whether a file can be written by nobody but root: a regular one of root's, which neither its group nor others may
 * write. Access control lists count, as the most that they allow stands in the mode of the group (acl(5)).
 */
export function onlyRootWrites(file: Stats): boolean {
  return file.isFile() && file.uid === 0 && (file.mode & 0o022) === 0;
}

/**
 * The file at a place in a process's memory, whatever its path names by now (proc_pid_map_files(5)).
 * Needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the first user namespace.
 */
export function mappedFile(pid: number, place: string): Stats {
  // The folder's names have no leading zeros.
  const name = place.replace(/\b0+(?=.)/g, '');
  return statSync(`/proc/${pid}/map_files/${name}`);
}

/** Whether this process may look at such files. @returns why not, or undefined */
export function cannotSeeMappedFiles(): Error | undefined {
  try {
    const [place = ''] = readdirSync('/proc/self/map_files');
    mappedFile(process.pid, place);
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

/** Real, effective and saved id of a process (credentials(7)). */
export interface Ids {
  real: number;
  effective: number;
  saved: number;
}

/** User and group of a process (proc_pid_status(5)). */
export function credentialsOf(pid: number): { uid: Ids; gid: Ids } {
  const status = readTold(pid, 'status').toString('latin1');
  const ids = (name: string) => {
    const [real, effective, saved] = statusField(status, name)?.split('\t') ?? [];
    return { real: Number(real), effective: Number(effective), saved: Number(saved) };
  };
  return { uid: ids('Uid'), gid: ids('Gid') };
}

const AT_SECURE = 23n;

/** Whether the kernel told a process to distrust who started it (getauxval(3), AT_SECURE). */
export function startedSecurely(pid: number): boolean {
  const vector = readTold(pid, 'auxv');
  for (let at = 0; at + 16 <= vector.length; at += 16)
    if (vector.readBigUInt64LE(at) === AT_SECURE) return vector.readBigUInt64LE(at + 8) === 1n;
  return false;
}

const LONGEST_CGROUP = 1024;

/**
 * The control group that a process is in, by which a container or service is known (proc_pid_cgroup(5)): that of
 * version 2, or the first of version 1 where that is the root. At most 1024 characters of it.
 * @returns undefined for the root
 */
export function controlGroup(pid: number): string | undefined {
  const paths = controlGroups(pid).sort((a, b) => Number(b.isUnified) - Number(a.isUnified));
  return paths[0]?.path.slice(0, LONGEST_CGROUP);
}

/** The control group that systemd keeps a process in, where it does: of version 2, or of its own hierarchy without one. */
export function systemdControlGroup(pid: number): string | undefined {
  const groups = controlGroups(pid);
  return (groups.find(({ isUnified }) => isUnified) ?? groups.find(({ kind }) => kind === 'name=systemd'))
    ?.path;
}

/** Those that are not the root. */
function controlGroups(pid: number): { isUnified: boolean; kind: string; path: string }[] {
  return readTold(pid, 'cgroup')
    .toString()
    .split('\n')
    .flatMap((line) => {
      const [, hierarchy, kind = '', path] = /^(\d+):([^:]*):(\/.+)$/.exec(line) ?? [];
      return path === undefined ? [] : { isUnified: hierarchy === '0', kind, path };
    });
}

/** Names the user namespace of a process (user_namespaces(7)). */
export function userNamespace(pid: number | 'self'): string {
  return readlinkSync(`/proc/${pid}/ns/user`);
}

/**
 * What a process takes the files of its system from: its mount namespace and its root folder. Two processes for which
 * this is the same see the same libraries (mount_namespaces(7)).
 */
export function fileSystemView(pid: number | 'self'): string {
  const root = statSync(`/proc/${pid}/root/`, { bigint: true });
  return [readlinkSync(`/proc/${pid}/ns/mnt`), root.dev, root.ino].join(' ');
}
