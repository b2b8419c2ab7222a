import type { Socket } from 'node:net';

/** The few calls into the C library that Node does not offer. Loaded on first use. */
type Libc = ReturnType<typeof load>;
let loaded: Libc | undefined;

function load() {
  // Required lazily: opening a library is the dearest thing that a launch does before it talks to anyone.
  const { dlopen } = process.getBuiltinModule('node:ffi');
  return dlopen('libc.so.6', {
    flock: { arguments: ['i32', 'i32'], return: 'i32' },
    getsockopt: { arguments: ['i32', 'i32', 'i32', 'buffer', 'buffer'], return: 'i32' },
    prctl: { arguments: ['i32', 'u64', 'u64', 'u64', 'u64'], return: 'i32' },
    setrlimit: { arguments: ['i32', 'buffer'], return: 'i32' },
    sigprocmask: { arguments: ['i32', 'buffer', 'buffer'], return: 'i32' },
    signal: { arguments: ['i32', 'u64'], return: 'u64' },
  }).functions;
}

function libc(): Libc {
  loaded ??= load();
  return loaded;
}

const LOCK_EX = 2;
const LOCK_NB = 4;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const PR_SET_DUMPABLE = 4;
const RLIMIT_CORE = 4;
const SIG_DFL = 0n;
const SIG_UNBLOCK = 1;
const SIGSET_BYTES = 128;
const SIGUSR1 = 10;
const SIGPIPE = 13;
const SIGXFSZ = 25;

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
  if (libc().prctl(PR_SET_DUMPABLE, 0n, 0n, 0n, 0n) !== 0) throw new Error('prctl(PR_SET_DUMPABLE) failed');
}

/**
 * Keeps the kernel from dumping the memory of this process, to a file or to a program (core(5)). Of all limits
 * only that of one byte also keeps it from a program.
 */
export function forbidCoreDumps(): void {
  const oneByte = Buffer.from(BigUint64Array.of(1n, 1n).buffer);
  if (libc().setrlimit(RLIMIT_CORE, oneByte) !== 0) throw new Error('setrlimit(RLIMIT_CORE) failed');
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
  const { signal, sigprocmask } = libc();
  signal(SIGPIPE, SIG_DFL);
  signal(SIGXFSZ, SIG_DFL);
  const set = Buffer.alloc(SIGSET_BYTES);
  set.writeUInt32LE(1 << (SIGUSR1 - 1));
  sigprocmask(SIG_UNBLOCK, set, Buffer.alloc(SIGSET_BYTES));
}
