import { closeSync, openSync } from 'node:fs';
import { failure, reason } from '../errors.ts';
import { checkRunAs, runAs } from '../platform/identity.ts';
import {
  duplicateAbove,
  duplicateTo,
  restoreSignals,
  setCloseOnExec,
  unshareDescriptors,
} from '../platform/libc.ts';
import { restoreBlocking } from '../platform/standard-streams.ts';
import type { FileToWrite, Launch } from './assemble.ts';
import { O_PATH, pathIn } from './folder.ts';
import { type Executable, openProgram, programFailure } from './program.ts';

/** A launch that can go ahead, as far as can be told before anything is written. */
export interface Prepared {
  executable: Executable;
  /** Descriptors for the program, each open on what it is to read there. */
  descriptors: { from: number; to: number }[];
}

/** @throws Failure PROGRAM_*, USER_NOT_PERMITTED, DESCRIPTOR_UNAVAILABLE or WORKING_DIRECTORY, before anything was written */
export async function prepare(launch: Launch): Promise<Prepared> {
  checkRunAs(launch);
  const wanted = launch.files.flatMap(({ to, ...file }) =>
    typeof to === 'string' ? [] : [{ ...file, fd: to.fd }],
  );
  // Out of the way of the numbers that descriptors of the program are to have.
  const least = Math.max(2, ...wanted.map(({ fd }) => fd)) + 1;
  const executable = openProgram(launch, least);
  enter(launch.pwd);
  leave();
  const descriptors = await makeDescriptors(wanted, least);
  const { descriptor, isScript } = executable;
  if (descriptor !== undefined && isScript) descriptors.push({ from: descriptor, to: descriptor });
  return { executable, descriptors };
}

let home: number | undefined;

/** Goes to the working directory of a program. @throws Failure WORKING_DIRECTORY */
export function enter(pwd: string | undefined): void {
  if (pwd === undefined) return;
  home ??= openSync('.', O_PATH);
  try {
    process.chdir(pwd);
  } catch (error) {
    throw failure('WORKING_DIRECTORY', { path: pwd, detail: reason(error) });
  }
}

/** Goes back to where the launcher was started. */
export function leave(): void {
  if (home !== undefined) process.chdir(pathIn(home));
}

async function makeDescriptors(
  files: (Omit<FileToWrite, 'to'> & { fd: number })[],
  least: number,
): Promise<Prepared['descriptors']> {
  if (files.length === 0) return [];
  const { sealedMemfd } = await import('../platform/memfd.ts');
  return files.map(({ fd, content, ...ownership }) => {
    try {
      const sealed = sealedMemfd(`envcas-${fd}`, content, ownership);
      const from = duplicateAbove(sealed, least);
      closeSync(sealed);
      return { from, to: fd };
    } catch (error) {
      throw failure('DESCRIPTOR_UNAVAILABLE', { fd, detail: reason(error) });
    }
  });
}

/** Closes what a program would have been started with, or was. */
export function letGo({ executable, descriptors }: Prepared): void {
  executable.close();
  for (const { from } of descriptors) if (from !== executable.descriptor) closeSync(from);
}

/** Clears released files in memory, once they are written. */
export function wipe(files: Launch['files']): void {
  for (const { content } of files) content.fill(0);
}

/**
 * Puts descriptors where the program is to find them, even where Node has its own.
 * @returns what gives Node its own back, without which it could not even end in order
 */
function placeDescriptors(descriptors: Prepared['descriptors']): () => void {
  const moved = descriptors.filter(({ from, to }) => from !== to);
  const own = moved.flatMap(({ from, to }) => {
    try {
      return [{ from: duplicateAbove(to, from), to }];
    } catch {
      return []; // None has this number.
    }
  });
  // A thread of Node that waits by one of them would end the process.
  if (moved.length > 0) unshareDescriptors();
  for (const { from, to } of descriptors) if (from === to) setCloseOnExec(to, false);
  for (const { from, to } of moved) duplicateTo(from, to);
  return () => {
    for (const { from, to } of own) duplicateTo(from, to);
  };
}

/**
 * Replaces this process with the program: same pid, nothing of the launcher left.
 * @throws Failure PROGRAM_MISSING, PROGRAM_NOT_EXECUTABLE or ARGUMENTS_TOO_LARGE
 */
export function start(launch: Launch, { executable, descriptors }: Prepared): never {
  const { program, arguments: args, environment, umask } = launch;
  restoreSignals();
  restoreBlocking();
  if (umask !== undefined) process.umask(umask);
  try {
    enter(launch.pwd);
    const { execve } = process;
    if (!execve) throw new Error('this system cannot replace a process');
    return runAs(launch, true, () => {
      executable.confirm();
      const putBack = placeDescriptors(descriptors);
      try {
        return execve(executable.path, [program, ...args], environment);
      } finally {
        putBack();
      }
    });
  } catch (error) {
    throw programFailure(program, error);
  }
}
