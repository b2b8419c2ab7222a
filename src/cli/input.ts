import { closeSync, openSync } from 'node:fs';
import { failure, reason } from '../errors.ts';
import { readAtMost } from '../platform/private-file.ts';

const STANDARD_INPUT = 0;

/**
 * Reads a file that the user named; `-` is standard input.
 * @param limit bytes; more are an error, so that a device without an end is one as well
 * @throws Failure FILE_INVALID
 */
export function readInput(path: string, limit: number): Buffer {
  try {
    return path === '-' ? readAtMost(STANDARD_INPUT, limit) : readFileAtMost(path, limit);
  } catch (error) {
    throw failure('FILE_INVALID', { path, detail: reason(error) });
  }
}

/** The content of a file of at most `limit` bytes. */
export function readFileAtMost(path: string, limit: number): Buffer {
  const fd = openSync(path, 'r');
  try {
    return readAtMost(fd, limit);
  } finally {
    closeSync(fd);
  }
}
