import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

/** Evidence of real machines and what their makers publish, read where it is. */
export const folder = resolve(import.meta.dirname, '../../../shared/quotes');
/** Why tests of it are skipped, or false. */
export const skip = existsSync(folder) ? false : `${folder} is not there`;

export function recorded(file: string): Buffer {
  return readFileSync(join(folder, file));
}
