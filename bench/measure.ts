import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import type { Server } from '../test/support/stack.ts';

/** The value that a part of all values lies below: 0.5 gives the median. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN;
}

/** Median of what one is as a multiple of the other, taken in the pairs that they were measured in. */
export function medianRatio(ones: readonly number[], others: readonly number[]): number {
  return quantile(
    ones.map((one, index) => one / (others[index] ?? Number.NaN)),
    0.5,
  );
}

export const milliseconds = (value: number) => `${value.toFixed(value < 10 ? 2 : 1)} ms`;

/** A program that is run again and again, and is to succeed. */
export interface Program {
  name: string;
  command: string;
  args: string[];
  env: NodeJS.ProcessEnv;
}

const WARM_UP = 3;

/** Runs programs in turn, and prints how long each takes from start to end, and the first beside each. */
export async function comparePrograms(
  title: string,
  programs: readonly Program[],
  rounds: number,
): Promise<void> {
  const took: number[][] = programs.map(() => []);
  for (let round = -WARM_UP; round < rounds; round++) {
    for (const [index, { name, command, args, env }] of programs.entries()) {
      const before = performance.now();
      const { status, stderr } = spawnSync(command, args, { env, stdio: ['ignore', 'ignore', 'pipe'] });
      const passed = performance.now() - before;
      if (status !== 0) throw new Error(`${name} failed with ${status}: ${stderr}`);
      if (round >= 0) took[index]?.push(passed);
    }
    // Servers wait until somebody takes what they print.
    await setImmediate();
  }
  const [first = []] = took;
  printTable(
    `${title}, ${rounds} rounds in turn`,
    ['what', 'median', 'p90', 'the first, as a multiple (median of pairs)'],
    programs.map(({ name }, index) => {
      const own = took[index] ?? [];
      const ratio = medianRatio(first, own).toFixed(2);
      return [name, milliseconds(quantile(own, 0.5)), milliseconds(quantile(own, 0.9)), ratio];
    }),
  );
}

/** Prints a table in Markdown. */
export function printTable(title: string, head: readonly string[], rows: readonly string[][]): void {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  console.log(`\n${title}:\n`);
  console.log([line(head), `|${'---|'.repeat(head.length)}`, ...rows.map(line)].join('\n'));
}

/** A process and those that it has started. */
function processes({ process: { pid } }: Pick<Server, 'process'>): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return [pid ?? 0, ...children.split(' ').filter(Boolean).map(Number)];
}

/** Milliseconds of CPU time that a server has taken, with all its processes (proc(5)). */
export function cpuOf(server: Pick<Server, 'process'>): number {
  const MILLISECONDS_PER_TICK = 10;
  let ticks = 0;
  for (const pid of processes(server)) {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [user, system] = stat.slice(stat.lastIndexOf(')')).split(' ').slice(12, 14).map(Number);
    ticks += (user ?? 0) + (system ?? 0);
  }
  return ticks * MILLISECONDS_PER_TICK;
}

const memoryOf = (server: Pick<Server, 'process'>, what: 'VmHWM' | 'VmRSS') =>
  processes(server).reduce((sum, pid) => {
    const [, kibibytes] =
      new RegExp(`^${what}:\\s+(\\d+) kB$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
    return sum + Number(kibibytes ?? 0) * 1024;
  }, 0);

/** Bytes of memory that a server has had at most, and has now. */
export const peakMemory = (server: Pick<Server, 'process'>) => memoryOf(server, 'VmHWM');
export const presentMemory = (server: Pick<Server, 'process'>) => memoryOf(server, 'VmRSS');
