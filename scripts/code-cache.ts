import { readFileSync, writeFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { Script } from 'node:vm';

/**
 * Compiles scripts, all functions of them, to what V8 takes for `cachedData`:
 *
 *     node [V8 OPTION …] scripts/code-cache.ts FILE …        (writes FILE.cache)
 *
 * V8 takes it only under the same options, but for `--random-seed`, with which it is the same in every run.
 */
for (const file of process.argv.slice(2)) {
  const source = readFileSync(file, 'utf8');
  setFlagsFromString('--no-lazy');
  const script = new Script(source, { filename: file });
  setFlagsFromString('--lazy');
  writeFileSync(`${file}.cache`, script.createCachedData());
}
