import { hide } from '../platform/hidden.ts';
import { forbidCoreDumps } from '../platform/libc.ts';

/** What the servers have in common. */

/** No core dump holds what is in memory, and no other process of the same user reads it. To be called before any key is there. */
export function protectMemory(): void {
  forbidCoreDumps();
  hide();
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
