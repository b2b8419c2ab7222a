import { AssertionError } from 'node:assert';
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { cannotMake, makeSystem, type Outcome, pass } from '../test/systems/system.ts';
import { type Combination, type Command, combinations, commands, row } from '../test/systems/table.ts';

/**
 * Runs both commands of the README in all minimal systems, and writes the results into docs/platforms.md:
 *
 *     npm run platforms                      all, in hours
 *     npm run platforms -- [WORD …]          those with each of the words in their row or command: bookworm 20.20.2 demo
 */
const document = resolve(import.meta.dirname, '../docs/platforms.md');
const words = process.argv.slice(2);

if (cannotMake) {
  console.error(`platforms: ${cannotMake}`);
  process.exit(1);
}
const count = { passed: 0, failed: 0 };
for (const command of commands) {
  for (const combination of combinations) {
    const text = `${row(combination)} ${command} |`;
    if (!words.every((word) => text.includes(` ${word} `))) continue;
    console.log(text);
    write(combination, command, attempt(combination, command));
  }
}
console.log(`${count.passed} passed, ${count.failed} failed`);
process.exitCode = count.failed > 0 || count.passed === 0 ? 1 : 0;

function attempt(combination: Combination, command: Command): string {
  try {
    const outcome = pass(makeSystem(combination), combination, command);
    count.passed++;
    return `passed${testsOf(outcome)} in ${outcome.seconds} s`;
  } catch (error) {
    if (!(error instanceof AssertionError)) throw error;
    console.error(error.message);
    count.failed++;
    return '**failed**';
  }
}

/** How many tests were run and left out, where there were any. */
function testsOf({ output }: Outcome): string {
  const [, passed] = /^ℹ pass (\d+)$/m.exec(output) ?? [];
  const [, skipped] = /^ℹ skipped (\d+)$/m.exec(output) ?? [];
  return passed === undefined ? '' : ` ${passed}, skipped ${skipped},`;
}

/** Replaces one cell of the table. */
function write(combination: Combination, command: Command, result: string): void {
  const start = row(combination);
  const date = new Date().toISOString().slice(0, 10);
  const lines = readFileSync(document, 'utf8').split('\n');
  const written = lines.map((line) => {
    if (!line.startsWith(start)) return line;
    const cells = line.slice(start.length, -1).split('|');
    cells[commands.indexOf(command)] = ` ${result}, ${date} `;
    return `${start}${cells.join('|')}|`;
  });
  writeFileSync(document, written.join('\n'));
}
