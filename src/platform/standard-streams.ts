import { isBlocking, makeBlocking } from './libc.ts';

let blocking: number[] | undefined;

/** Remembers, the first time, which of standard output and error block, before Node changes it. */
export function noteBlocking(): void {
  blocking ??= [1, 2].filter(isBlocking);
}

/**
 * Has writes to standard output and error wait again where they did when this process was started. Node changes that
 * for all who share these, and as soon as any socket is closed, since it then looks at `process.stderr`.
 */
export function restoreBlocking(): void {
  for (const fd of blocking ?? []) if (!isBlocking(fd)) makeBlocking(fd);
}
