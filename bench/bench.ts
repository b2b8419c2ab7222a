import { cpus } from 'node:os';
import { abuse } from './abuse.ts';
import { changes } from './changes.ts';
import { check } from './check.ts';
import { evidence } from './evidence.ts';
import { launch } from './launch.ts';
import { load, memory, storm } from './load.ts';
import { release } from './release.ts';
import { sessions } from './sessions.ts';
import { versions } from './versions.ts';

/**
 * What is measured, each beside what it is compared with, in turn on one machine in one run:
 *
 *     npm run bench [-- PART …]        (default: all parts; the executables must be built)
 *
 * Ratios count; absolute figures are those of the machine.
 */
const parts: Record<string, () => Promise<void>> = {
  launch,
  changes,
  check,
  evidence,
  release,
  sessions,
  load,
  storm,
  memory,
  abuse,
  versions,
};

const chosen = process.argv.slice(2);
const unknown = chosen.filter((name) => !Object.hasOwn(parts, name));
if (unknown.length > 0)
  throw new Error(`There is no part ${unknown}; there are: ${Object.keys(parts).join(' ')}`);
console.log(`Node ${process.versions.node}, ${cpus().length} × ${cpus()[0]?.model}`);
for (const [name, part] of Object.entries(parts))
  if (chosen.length === 0 || chosen.includes(name)) await part();
