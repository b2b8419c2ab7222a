import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Collateral, type CollateralFile, parseCollateral } from '../../attestation/collateral.ts';
import { failure, reason } from '../../errors.ts';
import { readInput } from '../input.ts';

/** Bytes of one file, which may be a long revocation list. */
const LARGEST = 4 * 1024 * 1024;
const MOST = 1000;

/**
 * Collateral in files, and in the files of folders.
 * @throws Failure FILE_INVALID or COLLATERAL_INVALID
 */
export function readCollateral(paths: readonly string[]): Collateral {
  return parseCollateral(readFiles(paths));
}

/**
 * Files, and the files of folders.
 * @throws Failure FILE_INVALID
 */
export function readFiles(paths: readonly string[]): CollateralFile[] {
  return paths.flatMap(filesIn).map((name) => ({ name, bytes: readInput(name, LARGEST) }));
}

/** A path itself, or the files in the folder that it is. */
function filesIn(path: string): string[] {
  try {
    if (path === '-' || !statSync(path).isDirectory()) return [path];
    const names = readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ name }) => name);
    if (names.length > MOST) throw new Error(`it has more than ${MOST} files`);
    return names.toSorted().map((name) => join(path, name));
  } catch (error) {
    throw failure('FILE_INVALID', { path, detail: reason(error) });
  }
}
