import { AssertionError } from 'node:assert';
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { cannotMake, makeSystem, pass } from '../test/systems/system.ts';
import { combinations, commands, row } from '../test/systems/table.ts';

/**
 * Runs both commands of the README in all minimal systems, and writes the results into docs/platforms.md:
 *
 *     npm run platforms                      all, in hours
 *     npm run platforms -- [WORD …]          those with each of the words in their row: bookworm 20.20.2 root
 */
const document = resolve(import.meta.dirname, '../docs/platforms.md');
const words = process.argv.slice(2);

if (cannotMake) {
  console.error(`platforms: ${cannotMake}`);
  process.exit(1);
}
const count = { passed: 0, failed: 0 };
for (const combination of combinations) {
  const start = row(combination);
  if (!words.every((word) => start.includes(` ${word} `))) continue;
  const results = commands.map((command) => {
    console.log(`${start} ${command}`);
    try {
      const { seconds } = pass(makeSystem(combination), combination, command);
      count.passed++;
      return `passed in ${seconds} s`;
    } catch (error) {
      if (!(error instanceof AssertionError)) throw error;
      console.error(error.message);
      count.failed++;
      return '**failed**';
    }
  });
  const date = new Date().toISOString().slice(0, 10);
  const lines = readFileSync(document, 'utf8').split('\n');
  const written = lines.map((line) =>
    line.startsWith(start) ? `${start} ${results.join(' | ')} | ${date} |` : line,
  );
  writeFileSync(document, written.join('\n'));
}
console.log(`${count.passed} passed, ${count.failed} failed`);
process.exitCode = count.failed > 0 || count.passed === 0 ? 1 : 0;
