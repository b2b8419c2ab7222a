import { spawnSync } from 'node:child_process';
import { setImmediate } from 'node:timers/promises';

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
