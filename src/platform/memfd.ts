import { closeSync, writeSync } from 'node:fs';
import { getSystemErrorMessage, getSystemErrorName } from 'node:util';
import { cLibrary, lastError } from './library.ts';
import { type Ownership, setOwnership } from './ownership.ts';

/** Files that are in memory only and have no name (memfd_create(2)). */

const library = cLibrary({
  fcntl: { arguments: ['i32', 'i32', 'i32'], return: 'i32' },
  memfd_create: { arguments: ['string', 'u32'], return: 'i32' },
});

const MFD_CLOEXEC = 0x01;
const MFD_ALLOW_SEALING = 0x02;
const MFD_NOEXEC_SEAL = 0x08;
const MFD_EXEC = 0x10;
const F_ADD_SEALS = 1033;
const F_SEAL_SEAL = 0x01;
const F_SEAL_SHRINK = 0x02;
const F_SEAL_GROW = 0x04;
const F_SEAL_WRITE = 0x08;
const EINVAL = 22;

/**
 * Makes a file in memory that nobody can change any more.
 * @param name shows in /proc/PID/fd, for everybody who may look there; at most 249 bytes
 * @returns its descriptor, which is closed by execve, at the start of the content
 * @throws Error with the `code` of errno(3)
 */
export function sealedMemfd(name: string, content: Buffer, ownership: Ownership): number {
  const fd = create(name, (ownership.mode & 0o111) !== 0);
  try {
    // With a position, since the descriptor's own has to stay at the start.
    for (let at = 0; at < content.length; ) at += writeSync(fd, content, at, content.length - at, at);
    setOwnership(fd, ownership);
    const seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    if (library().fcntl(fd, F_ADD_SEALS, seals) !== 0) throw systemError('fcntl', lastError());
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function create(name: string, executable: boolean): number {
  const { memfd_create } = library();
  const flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  let fd = memfd_create(name, flags | (executable ? MFD_EXEC : MFD_NOEXEC_SEAL));
  // Kernels before 6.3 do not know these two.
  if (fd < 0 && lastError() === EINVAL) fd = memfd_create(name, flags);
  if (fd < 0) throw systemError('memfd_create', lastError());
  return fd;
}

function systemError(call: string, errno: number): Error {
  const code = getSystemErrorName(-errno);
  return Object.assign(new Error(`${call}: ${getSystemErrorMessage(-errno)}`), { code, errno: -errno });
}
