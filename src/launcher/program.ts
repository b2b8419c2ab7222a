import { createHash } from 'node:crypto';
import { accessSync, closeSync, constants, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { failure, reason } from '../errors.ts';
import { duplicateAbove, holdOffWriters, letWritersIn } from '../platform/libc.ts';
import { fileIdentity, identityKey } from '../platform/process.ts';
import type { Launch } from './assemble.ts';
import { openFile } from './folder.ts';

/** A program that may be started. */
export interface Executable {
  /** What to execute: the program's path, or that of the descriptor by which it was checked. */
  path: string;
  /** Open on the very file that was checked. */
  descriptor: number | undefined;
  /** Its interpreter opens the script again, by the descriptor. */
  isScript: boolean;
  /** @throws Failure PROGRAM_CHANGEABLE where the file is not as it was when it was checked */
  confirm(): void;
  close(): void;
}

const CHUNK = 1 << 20;

/** A program, and what of it is checked: nothing; or that nobody else can change it; or its SHA-256 as well. */
interface Checked extends Pick<Launch, 'program' | 'user'> {
  sha256: string[] | 'any' | undefined;
}

/**
 * Finds the program, and where the policy says what it must be, checks it. What was checked is what is executed: the
 * descriptor stands for the file whatever becomes of its path, and the file can be changed only by those who could do
 * to the running program what they like anyway.
 *
 * @param least lowest number that the descriptor may have
 * @throws Failure PROGRAM_MISSING, PROGRAM_NOT_EXECUTABLE, PROGRAM_CHANGEABLE or PROGRAM_UNEXPECTED
 */
export function openProgram({ program, sha256, user }: Checked, least: number): Executable {
  try {
    if (!statSync(program).isFile())
      throw failure('PROGRAM_NOT_EXECUTABLE', { program, detail: 'it is not a file' });
    accessSync(program, constants.X_OK);
    if (sha256 === undefined)
      return { path: program, descriptor: undefined, isScript: false, confirm() {}, close() {} };
    const descriptor = openAbove(program, sha256, least);
    try {
      return check(program, descriptor, sha256, user?.uid);
    } catch (error) {
      closeSync(descriptor);
      throw error;
    }
  } catch (error) {
    throw programFailure(program, error);
  }
}

function openAbove(program: string, sha256: string[] | 'any', least: number): number {
  // Where nothing says what it holds, the way to it counts: a link of somebody else could lead to any program.
  const opened = sha256 === 'any' ? openSafely(program) : openSync(program, 'r');
  try {
    return duplicateAbove(opened, least);
  } catch (error) {
    throw failure('DESCRIPTOR_UNAVAILABLE', { fd: least - 1, detail: reason(error) });
  } finally {
    closeSync(opened);
  }
}

function openSafely(program: string): number {
  try {
    return openFile(program);
  } catch (error) {
    if (error instanceof Error && 'errno' in error) throw error;
    throw failure('PROGRAM_CHANGEABLE', { program, detail: reason(error) });
  }
}

function check(
  program: string,
  descriptor: number,
  sha256: string[] | 'any',
  runsAs: number | undefined,
): Executable {
  const { uid, mode } = fstatSync(descriptor);
  const unsafe = (detail: string) => failure('PROGRAM_CHANGEABLE', { program, detail });
  if (![0, process.geteuid?.(), runsAs].includes(uid)) throw unsafe(`it belongs to user ${uid}`);
  if ((mode & 0o022) !== 0) throw unsafe('its group or others may write to it');
  if (!holdOffWriters(descriptor)) throw unsafe('somebody has it open to write to it');
  const identity = identityKey(fileIdentity(descriptor));
  const hash = createHash('sha256');
  const chunk = Buffer.allocUnsafe(CHUNK);
  let isScript = false;
  for (let at = 0, count = 1; count > 0; at += count) {
    count = readSync(descriptor, chunk, 0, CHUNK, at);
    if (at === 0) isScript = chunk.toString('latin1', 0, Math.min(2, count)) === '#!';
    hash.update(chunk.subarray(0, count));
  }
  const actual = hash.digest('hex');
  if (sha256 !== 'any' && !sha256.includes(actual))
    throw failure('PROGRAM_UNEXPECTED', { program, actual, expected: sha256.join(' or ') });
  const confirm = () => {
    if (identityKey(fileIdentity(descriptor)) !== identity) throw unsafe('it was changed meanwhile');
  };
  confirm();
  // Its interpreter keeps the descriptor, and would hold off writers as long as it runs.
  if (isScript) letWritersIn(descriptor);
  return {
    path: `/proc/self/fd/${descriptor}`,
    descriptor,
    isScript,
    confirm,
    close: () => closeSync(descriptor),
  };
}

const ENOENT = 2;
const E2BIG = 7;
const ENOTDIR = 20;
const ETXTBSY = 26;

/** Why a program could not be started, in words. */
export function programFailure(program: string, error: unknown): unknown {
  if (!(error instanceof Error && 'errno' in error)) return error;
  const errno = Math.abs(Number(error.errno));
  // Node has no name for this number, so the code is empty.
  if (errno === E2BIG) return failure('ARGUMENTS_TOO_LARGE', { program });
  if (errno === ETXTBSY)
    return failure('PROGRAM_NOT_EXECUTABLE', { program, detail: 'somebody has it open to write to it' });
  if (errno !== ENOENT && errno !== ENOTDIR)
    return failure('PROGRAM_NOT_EXECUTABLE', { program, detail: reason(error) });
  return statSync(program, { throwIfNoEntry: false })
    ? failure('PROGRAM_NOT_EXECUTABLE', { program, detail: 'the interpreter it names does not exist' })
    : failure('PROGRAM_MISSING', { program });
}
