import { spawnSync } from 'node:child_process';
import { join, resolve } from 'node:path';

/**
 * What the tests do for a while, at full length; the executables must be built. Its last result stands in docs/performance.md.
 *
 *     npm run endure
 */
const root = resolve(import.meta.dirname, '..');
const node = ['--disable-warning=ExperimentalWarning'];
const tests = (name: string) => [...node, '--test', '--test-reporter=spec', join(root, 'test/faults', name)];

const parts: { name: string; args: string[]; env: Record<string, string> }[] = [
  { name: 'a thousand kills on each store', args: tests('kill.test.ts'), env: { ENVCAS_KILLS: '1000' } },
  { name: 'flipped bits', args: tests('damage.test.ts'), env: { ENVCAS_FLIPS: '2000' } },
  { name: 'ten minutes of nonsense', args: tests('fuzz.test.ts'), env: { ENVCAS_FUZZ_SECONDS: '600' } },
  {
    name: 'a million releases',
    args: [...node, join(root, 'bench/bench.ts'), 'memory'],
    env: { ENVCAS_RELEASES: '1000000' },
  },
];

for (const { name, args, env } of parts) {
  const start = performance.now();
  console.log(`\n# ${name}`);
  const { status } = spawnSync(process.execPath, args, { stdio: 'inherit', env: { ...process.env, ...env } });
  console.log(
    `# ${status === 0 ? 'passed' : 'FAILED'} in ${((performance.now() - start) / 60_000).toFixed(1)} minutes`,
  );
  if (status !== 0) process.exitCode = 1;
}
