import { createHash } from 'node:crypto';
import {
  closeSync,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  statSync,
  writeFileSync,
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

/** Start of a process in clock ticks since boot; with the pid it names one process (proc_pid_stat(5), field 22). */
export function startTime(pid: number): bigint {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
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

/** A launcher has about ten. */
const MOST_THREADS = 256;

/** Pid of a process that traces any thread of this one, or 0 (proc_pid_status(5), TracerPid). */
export function tracer(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  if (threads.length > MOST_THREADS)
    throw failure('PROCESS_UNREADABLE', { pid, detail: `it has more than ${MOST_THREADS} threads` });
  for (const thread of threads) {
    let status: string;
    try {
      status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'latin1');
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT' || code === 'ESRCH') continue; // The thread has ended meanwhile.
      throw error;
    }
    const by = Number(/^TracerPid:\t(\d+)$/m.exec(status)?.[1]);
    if (by !== 0) return by;
  }
  return 0;
}

/** Names of the variables a process was started with (proc_pid_environ(5)). */
export function initialEnvironmentNames(pid: number): string[] {
  return readFileSync(`/proc/${pid}/environ`, 'latin1')
    .split('\0')
    .filter((entry) => entry !== '')
    .map((entry) => entry.split('=', 1)[0] ?? '');
}

/** Name of a process, which only its own threads can set (proc_pid_comm(5)); at most 15 bytes. */
export function processName(pid: number | 'self'): string {
  return readFileSync(`/proc/${pid}/comm`, 'latin1').replace(/\n$/, '');
}

export function setOwnProcessName(name: string): void {
  writeFileSync('/proc/self/comm', name);
}

/** A memory image that a process had; close it when done. */
export interface MemoryImage {
  /** Whether the process still has it. */
  isCurrent(): boolean;
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
    close: () => closeSync(fd),
  };
}

/**
 * What a process takes the files of its system from: its namespaces of mounts and users, and its root folder.
 * Two processes for which this is the same see the same libraries (namespaces(7)).
 */
export function fileSystemView(pid: number | 'self'): string {
  const root = statSync(`/proc/${pid}/root/`, { bigint: true });
  const namespaces = ['mnt', 'user'].map((kind) => readlinkSync(`/proc/${pid}/ns/${kind}`));
  return [...namespaces, root.dev, root.ino].join(' ');
}
