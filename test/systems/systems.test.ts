import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { type TestContext, test } from 'node:test';
import { cannotMake, makeSystem, pass, runIn, Unavailable } from './system.ts';
import { type Combination, combinations, commands, everyRun, row, tooOld } from './table.ts';

/** The commands of the README in minimal systems; `npm run platforms` tries all combinations. */
const options = { skip: cannotMake, timeout: 3_600_000 };

for (const command of commands) {
  for (const combination of combinations.filter((each) => everyRun[command].includes(row(each)))) {
    test(`${command}: ${row(combination)}`, options, (t) => {
      const layers = madeOrSkipped(t, combination);
      if (layers) pass(layers, combination, command);
    });
  }
}

test('a Node that is too old is told which one is needed, in one line', options, (t) => {
  const layers = madeOrSkipped(t, tooOld);
  if (!layers) return;
  const { status, output } = runIn(layers, tooOld.user, 'npm run --silent demo');
  assert.notEqual(status, 0);
  // npm tells of its own newer versions now and then.
  const told = output.split('\n').filter((line) => line && !line.startsWith('npm notice'));
  assert.equal(told.length, 1, output);
  assert.match(told[0] ?? '', /^envcas: Node\.js 18 or newer is needed, and this is 16\.20\.2;/);
});

function madeOrSkipped(t: TestContext, combination: Combination): string[] | undefined {
  try {
    return makeSystem(combination);
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error;
    t.skip(error.message);
    return undefined;
  }
}

test('each run tries every release, user, and major version of Node and npm', () => {
  const major = (version: string) => version.split('.')[0];
  const kinds = (chosen: Combination[]) =>
    new Set(
      chosen.flatMap(({ release, user, node, npm }) => [
        release,
        user,
        `Node ${major(node)}`,
        `npm ${major(npm)}`,
      ]),
    );
  const tried = combinations.filter((each) => everyRun['npm ci && npm run demo'].includes(row(each)));
  assert.deepEqual([...kinds(tried)].sort(), [...kinds(combinations)].sort());
});

test('docs/platforms.md has a row for each combination, and no other (npm run platforms writes it)', () => {
  const document = readFileSync(resolve(import.meta.dirname, '../../docs/platforms.md'), 'utf8');
  const rows = document.match(/^\| (bookworm|trixie) \|.*\|$/gm) ?? [];
  assert.deepEqual(
    rows.map((line) => line.split(' | ').slice(0, 4).join(' | ').concat(' |')),
    combinations.map((each) => row(each)),
  );
});
