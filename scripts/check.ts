import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';

/** Lints the sources, and checks their format and their types: `npm run check`. */
const root = resolve(import.meta.dirname, '..');

for (const [tool = '', ...args] of [['@biomejs/biome/bin/biome', 'ci', '.'], ['typescript/bin/tsc']]) {
  const { status } = spawnSync(process.execPath, [resolve(root, 'node_modules', tool), ...args], {
    cwd: root,
    stdio: 'inherit',
  });
  if (status !== 0) process.exit(1);
}
