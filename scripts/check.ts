import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';

/** Lints the sources, and checks their format and their types: `npm run check`. */
const root = resolve(import.meta.dirname, '..');

const colors = process.stdout.isTTY ? 'force' : 'off';
const tools = [['@biomejs/biome/bin/biome', 'ci', `--colors=${colors}`, '.'], ['typescript/bin/tsc']];

for (const [tool = '', ...args] of tools) {
  const { status } = spawnSync(process.execPath, [resolve(root, 'node_modules', tool), ...args], {
    cwd: root,
    stdio: 'inherit',
  });
  if (status !== 0) process.exit(1);
}
