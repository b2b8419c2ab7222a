import { forbidCoreDumps, makeNonDumpable } from '../platform/libc.ts';

/** What the servers have in common. */

/**
 * No core dump holds what is in memory, and as root no other process reads it. As an ordinary user, that user's
 * processes can read the key files as well, and a LAS of that user has to look at the CAS.
 */
export function protectMemory(): void {
  forbidCoreDumps();
  if (process.getuid?.() === 0) makeNonDumpable();
}

/** To be called before anything is said to be ready: who reads that may send one at once. */
export function untilSignal(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
  });
}

export function print(...lines: string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}
