import { accessSync, constants, statSync } from 'node:fs';
import { failure, reason } from '../errors.ts';
import { restoreSignals } from '../platform/libc.ts';
import type { Launch } from './assemble.ts';

const E2BIG = 7;

/** @throws Failure PROGRAM_MISSING, PROGRAM_NOT_EXECUTABLE or WORKING_DIRECTORY, before anything was written */
export function checkStart({ program, pwd }: Launch): void {
  try {
    if (!statSync(program).isFile())
      throw failure('PROGRAM_NOT_EXECUTABLE', { program, detail: 'it is not a file' });
    accessSync(program, constants.X_OK);
  } catch (error) {
    throw programFailure(program, error);
  }
  if (pwd === undefined) return;
  try {
    process.chdir(pwd);
  } catch (error) {
    throw failure('WORKING_DIRECTORY', { path: pwd, detail: reason(error) });
  }
}

/**
 * Replaces this process with the program: same pid, nothing of the launcher left.
 * @throws Failure PROGRAM_MISSING, PROGRAM_NOT_EXECUTABLE or ARGUMENTS_TOO_LARGE
 */
export function start({ program, arguments: args, environment }: Launch): never {
  restoreSignals();
  try {
    if (!process.execve) throw new Error('this system cannot replace a process');
    return process.execve(program, [program, ...args], environment);
  } catch (error) {
    throw programFailure(program, error);
  }
}

function programFailure(program: string, error: unknown): unknown {
  if (!(error instanceof Error && 'code' in error) || error.name === 'Failure') return error;
  // Node has no name for this number, so the code is empty.
  if ('errno' in error && error.errno === E2BIG) return failure('ARGUMENTS_TOO_LARGE', { program });
  if (error.code !== 'ENOENT' && error.code !== 'ENOTDIR')
    return failure('PROGRAM_NOT_EXECUTABLE', { program, detail: reason(error) });
  return statSync(program, { throwIfNoEntry: false })
    ? failure('PROGRAM_NOT_EXECUTABLE', { program, detail: 'the interpreter it names does not exist' })
    : failure('PROGRAM_MISSING', { program });
}
