import { constants, readdirSync } from 'node:fs';
import type { Socket } from 'node:net';
import { cLibrary, lastError } from './library.ts';

/** The few calls into the C library that Node does not offer. */
const libc = cLibrary({
  dup2: { arguments: ['i32', 'i32'], return: 'i32' },
  fcntl: { arguments: ['i32', 'i32', 'i32'], return: 'i32' },
  flock: { arguments: ['i32', 'i32'], return: 'i32' },
  getrlimit: { arguments: ['i32', 'buffer'], return: 'i32' },
  getsockopt: { arguments: ['i32', 'i32', 'i32', 'buffer', 'buffer'], return: 'i32' },
  initgroups: { arguments: ['string', 'u32'], return: 'i32' },
  mlockall: { arguments: ['i32'], return: 'i32' },
  munlockall: { arguments: [], return: 'i32' },
  prctl: { arguments: ['i32', 'u64', 'u64', 'u64', 'u64'], return: 'i32' },
  setresgid: { arguments: ['u32', 'u32', 'u32'], return: 'i32' },
  setresuid: { arguments: ['u32', 'u32', 'u32'], return: 'i32' },
  setrlimit: { arguments: ['i32', 'buffer'], return: 'i32' },
  sigprocmask: { arguments: ['i32', 'buffer', 'buffer'], return: 'i32' },
  signal: { arguments: ['i32', 'u64'], return: 'u64' },
  syscall: { arguments: ['i64', 'u64', 'u64', 'u64'], return: 'i64' },
});

const LOCK_EX = 2;
const LOCK_NB = 4;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const PR_SET_DUMPABLE = 4;
const PR_SET_NAME = 15;
const PR_CAP_AMBIENT = 47;
const PR_CAP_AMBIENT_CLEAR_ALL = 4n;
const RLIMIT_CORE = 4;
const RLIMIT_MEMLOCK = 8;
const RLIM_INFINITY = 2n ** 64n - 1n;
const SIG_DFL = 0n;
const SIG_UNBLOCK = 1;
const SIGSET_BYTES = 128;
const SIGUSR1 = 10;
const SIGPIPE = 13;
const SIGXFSZ = 25;

const F_RDLCK = 0;
const F_UNLCK = 2;
const F_SETLEASE = 1024;
const F_SETSIG = 10;
const EAGAIN = 11;
const SIGCHLD = 17;
const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const F_DUPFD_CLOEXEC = 1030;
const FD_CLOEXEC = 1;
/** The same on every processor; the C library has had a function for it since glibc 2.34. */
const SYS_close_range = 436n;
const CLOSE_RANGE_UNSHARE = 2n;
const MCL_CURRENT = 1;
const MCL_FUTURE = 2;
const MCL_ONFAULT = 4;

/** Process, user and group of the other end of a Unix socket at the time it connected (unix(7), SO_PEERCRED). */
export interface PeerCredentials {
  pid: number;
  uid: number;
  gid: number;
}

/** @throws Error when the socket is not a connected Unix socket. */
export function peerCredentials(socket: Socket): PeerCredentials {
  const { _handle: handle } = socket as unknown as { _handle?: { fd?: number } | null };
  const fd = handle?.fd;
  if (typeof fd !== 'number' || fd < 0) throw new Error('the socket is closed');
  const ucred = Buffer.alloc(12);
  const length = Buffer.from(Uint32Array.of(ucred.length).buffer);
  if (libc().getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ucred, length) !== 0)
    throw new Error('the kernel does not name the peer of the socket');
  const [pid, uid, gid] = new Int32Array(ucred.buffer, ucred.byteOffset, 3);
  if (pid === undefined || pid <= 0) throw new Error('the peer is in another process namespace');
  return { pid, uid: Number(uid) >>> 0, gid: Number(gid) >>> 0 };
}

/**
 * Keeps other processes of the same user from reading this one's memory, and the kernel from writing it to a
 * core dump (prctl(2), PR_SET_DUMPABLE). Undone by execve.
 */
export function makeNonDumpable(): void {
  setDumpable(0n);
}

/** Lets them again. */
export function makeDumpable(): void {
  setDumpable(1n);
}

function setDumpable(value: bigint): void {
  if (libc().prctl(PR_SET_DUMPABLE, value, 0n, 0n, 0n) !== 0)
    throw new Error('prctl(PR_SET_DUMPABLE) failed');
}

/**
 * Names this process, by at most 15 bytes (prctl(2), PR_SET_NAME). To be called on the main thread, as Node does with
 * all that is not in a worker. `/proc/self/comm` would not do: where a process was started setgid, it is root's.
 */
export function setOwnProcessName(name: string): void {
  const { getRawPointer } = process.getBuiltinModule('node:ffi');
  const bytes = Buffer.from(`${name}\0`);
  if (libc().prctl(PR_SET_NAME, getRawPointer(bytes), 0n, 0n, 0n) !== 0)
    throw new Error('prctl(PR_SET_NAME) failed');
}

/**
 * Keeps the kernel from dumping the memory of this process, to a file or to a program (core(5)). Of all limits
 * only that of one byte also keeps it from a program; where none may be dumped anyhow, a limit above that is not to be had,
 * and a program that takes dumps is told of it.
 */
export function forbidCoreDumps(): void {
  const limited = [1n, 0n].some(
    (bytes) => libc().setrlimit(RLIMIT_CORE, Buffer.from(BigUint64Array.of(bytes, bytes).buffer)) === 0,
  );
  if (!limited) throw new Error('setrlimit(RLIMIT_CORE) failed');
}

/**
 * Keeps the memory of this process out of swap, page by page as it is used (mlockall(2)). Undone by execve. Not for long:
 * V8 ends a process when it gives unused memory back, as it does after a while, and the kernel refuses that (madvise(2),
 * EINVAL for locked pages).
 * @returns whether the limits allow it (RLIMIT_MEMLOCK, CAP_IPC_LOCK)
 */
export function lockMemory(): boolean {
  const limit = Buffer.alloc(16);
  libc().getrlimit(RLIMIT_MEMLOCK, limit);
  // Under a limit that is just enough for now, later memory would be refused.
  if (process.geteuid?.() !== 0 && limit.readBigUInt64LE() !== RLIM_INFINITY) return false;
  return libc().mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) === 0;
}

/** Undoes lockMemory(), also for who loses the right to it, since he could have no new memory else. */
export function unlockMemory(): void {
  libc().munlockall();
}

/** Sets whether a descriptor is closed by execve (fcntl(2), FD_CLOEXEC). */
export function setCloseOnExec(fd: number, close: boolean): void {
  libc().fcntl(fd, F_SETFD, close ? FD_CLOEXEC : 0);
}

/**
 * Keeps descriptors of whoever started this process from what it executes. Those that Node opens are never handed on.
 */
export function closeOthersOnExec(): void {
  for (const fd of readdirSync('/proc/self/fd')) if (Number(fd) > 2) setCloseOnExec(Number(fd), true);
}

/** Makes the functions that every launch calls, which takes a millisecond. */
export function prepareCalls(): void {
  const { prctl, signal, sigprocmask } = libc();
  void [prctl, signal, sigprocmask];
}

/**
 * Makes whoever opens a file to write to it wait until the descriptor is closed (fcntl(2), F_SETLEASE). A program that
 * is executed meanwhile is not what was written: execve fails while somebody waits.
 * @returns false where somebody has it open to write to it already. It is true also where the kernel gives no lease: on
 *   some file systems, and for a file of another user, whom this process must trust then
 */
export function holdOffWriters(fd: number): boolean {
  const { fcntl } = libc();
  // Tells of a writer by a signal that does nothing, where its own would end this process.
  fcntl(fd, F_SETSIG, SIGCHLD);
  return fcntl(fd, F_SETLEASE, F_RDLCK) === 0 || lastError() !== EAGAIN;
}

/** Undoes holdOffWriters(). */
export function letWritersIn(fd: number): void {
  libc().fcntl(fd, F_SETLEASE, F_UNLCK);
}

/** Whether reads and writes wait where they must (fcntl(2), O_NONBLOCK). */
export function isBlocking(fd: number): boolean {
  return (libc().fcntl(fd, F_GETFL, 0) & constants.O_NONBLOCK) === 0;
}

/** Has reads and writes wait where they must, for all who share the open file (fcntl(2), O_NONBLOCK). */
export function makeBlocking(fd: number): void {
  const { fcntl } = libc();
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL, 0) & ~constants.O_NONBLOCK);
}

/** Makes another descriptor of what one stands for, no lower than a number, and closed by execve. */
export function duplicateAbove(fd: number, least: number): number {
  const duplicate = libc().fcntl(fd, F_DUPFD_CLOEXEC, least);
  if (duplicate < 0) throw new Error(`no descriptor is free at ${least} or above`);
  return duplicate;
}

/** Makes a descriptor with a given number, whatever it was before, which execve leaves open (dup2(2)). */
export function duplicateTo(fd: number, number: number): void {
  if (libc().dup2(fd, number) !== number) throw new Error(`there can be no descriptor ${number}`);
}

/**
 * Gives this thread descriptors of its own, where the kernel can, so that no other thread sees what changes in them.
 * In contrast to unshare(2), containers allow it (close_range(2)).
 */
export function unshareDescriptors(): void {
  const none = 0xffffffffn;
  libc().syscall(SYS_close_range, none, none, CLOSE_RANGE_UNSHARE);
}

/** Gives this process all groups of a user, and one more (initgroups(3)). */
export function setGroupsOf(user: string, gid: number): void {
  if (libc().initgroups(user, gid) !== 0) throw new Error(`the groups of ${user} cannot be had`);
}

/** Leaves a user or group id as it is (setresuid(2)). */
export const KEEP = 0xffffffff;

/** Has what this thread executes get no capability just because it has it itself (capabilities(7), ambient set). */
export function dropAmbientCapabilities(): void {
  if (libc().prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0n, 0n, 0n) !== 0)
    throw new Error('prctl(PR_CAP_AMBIENT) failed');
}

/** Sets real, effective and saved user id of all threads (setresuid(2)). @throws Error where the kernel does not allow it */
export function setUserIds(real: number, effective: number, saved: number): void {
  if (libc().setresuid(real, effective, saved) !== 0) throw new Error('the kernel allows no other user');
}

/** Sets real, effective and saved group id of all threads (setresgid(2)). @throws Error where the kernel does not allow it */
export function setGroupIds(real: number, effective: number, saved: number): void {
  if (libc().setresgid(real, effective, saved) !== 0) throw new Error('the kernel allows no other group');
}

/**
 * Takes the exclusive lock on an open file, waiting so many milliseconds for it at most; closing the file gives
 * it back (flock(2)).
 * @returns whether it was had
 */
export function lockFile(fd: number, patience: number): boolean {
  const { flock } = libc();
  for (let waited = 0; flock(fd, LOCK_EX | LOCK_NB) !== 0; waited += 10) {
    if (waited >= patience) return false;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
  }
  return true;
}

/**
 * Undoes what Node does to signals, which would outlast execve (signal(7)): it ignores SIGPIPE and SIGXFSZ,
 * and blocks SIGUSR1 where that shall not open its debugger.
 */
export function restoreSignals(): void {
  const { signal } = libc();
  signal(SIGPIPE, SIG_DFL);
  signal(SIGXFSZ, SIG_DFL);
  unblockSigusr1();
}

/** Lets SIGUSR1 reach this process, to be handled or to end it. */
export function unblockSigusr1(): void {
  const { sigprocmask } = libc();
  const set = Buffer.alloc(SIGSET_BYTES);
  set.writeUInt32LE(1 << (SIGUSR1 - 1));
  sigprocmask(SIG_UNBLOCK, set, Buffer.alloc(SIGSET_BYTES));
}
