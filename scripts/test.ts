import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, statSync } from 'node:fs';
import { resolve } from 'node:path';

/**
 * Runs tests by Node's own runner:
 *
 *     npm test                          lints, checks types, builds, and runs all tests
 *     npm test -- [OPTION …] FILE …     builds where sources have changed, and runs these; OPTION as `node --test` has it
 *     npm run unit                      runs those of pure code, which need no executable
 */
const root = resolve(import.meta.dirname, '..');
process.chdir(root);

/** Tests of pure code, but those that take texts at random, which take as long as all others. */
const unit = globSync('test/{policy,secrets,attestation,audit,protocol}/**/*.test.ts', {
  exclude: ['**/*fuzz.test.ts'],
});

const given = process.argv.slice(2);
const isUnit = given[0] === 'unit';
const isWhole = given.length === 0;

if (isWhole) await run('scripts/check.ts');
if (!isUnit && !isBuilt()) await run('scripts/build.ts');
await run(
  '--test',
  '--test-concurrency=2',
  '--test-timeout=600000',
  ...(isWhole ? ['test/**/*.test.ts'] : isUnit ? [...given.slice(1), ...unit] : given),
);

/** Ends with the status of what fails, and has a signal end it too. */
async function run(...args: string[]): Promise<void> {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', ...args], {
    stdio: 'inherit',
  });
  // A terminal sends SIGINT to the child as well.
  process.on('SIGINT', () => {});
  for (const signal of ['SIGHUP', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
  const [status] = await once(child, 'exit');
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
