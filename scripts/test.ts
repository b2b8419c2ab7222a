import { spawnSync } from 'node:child_process';
import { globSync, statSync } from 'node:fs';
import { resolve } from 'node:path';

/**
 * Runs tests by Node's own runner:
 *
 *     npm test                          lints, checks types, builds, and runs all tests
 *     npm test -- [OPTION …] FILE …     builds where sources have changed, and runs these; OPTION as `node --test` has it
 *     npm run unit                      runs those that need no executable and no other program
 */
const root = resolve(import.meta.dirname, '..');
process.chdir(root);

const UNIT = ['policy', 'secrets', 'attestation', 'audit', 'protocol'].map(
  (room) => `test/${room}/**/*.test.ts`,
);

const given = process.argv.slice(2);
const isUnit = given[0] === 'unit';
const isWhole = given.length === 0;

if (isWhole) run('scripts/check.ts');
if (!isUnit && !isBuilt()) run('scripts/build.ts');
run(
  '--test',
  '--test-concurrency=2',
  '--test-timeout=600000',
  ...(isWhole ? ['test/**/*.test.ts'] : isUnit ? [...given.slice(1), ...UNIT] : given),
);

/** Ends with the status of what fails. */
function run(...args: string[]): void {
  const { status } = spawnSync(process.execPath, ['--disable-warning=ExperimentalWarning', ...args], {
    stdio: 'inherit',
  });
  if (status !== 0) process.exit(status ?? 1);
}

/** True when both executables are newer than everything that they are made of. */
function isBuilt(): boolean {
  const time = (path: string) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const built = Math.min(time('dist/envcas'), time('dist/scone'));
  const sources = [
    'src',
    ...globSync('src/**/*'),
    'scripts/build.ts',
    'scripts/code-cache.ts',
    'package-lock.json',
  ];
  return [...sources, process.execPath].every((source) => time(source) < built);
}
