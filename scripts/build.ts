import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { build } from 'esbuild';

/**
 * Builds the two executables, byte for byte the same from the same sources:
 *
 *     node scripts/build.ts [FOLDER [NAME=ENTRY …]]        (default: envcas and scone, into dist)
 *
 * One bundle each, put into a copy of the Node executable that runs this script. No code cache, as it differs
 * from run to run, and a measurement must not.
 */
const standard = ['envcas=src/launcher/main.ts', 'scone=src/cli/main.ts'];

const root = resolve(import.meta.dirname, '..');
const [folder = join(root, 'dist'), ...given] = process.argv.slice(2);
const target = resolve(folder);
const programs = (given.length > 0 ? given : standard).map((program) => program.split('=', 2));
mkdirSync(target, { recursive: true });
const work = mkdtempSync(join(target, '.build-'));
try {
  for (const [name = '', entry = ''] of programs) {
    const bundle = `${name}.cjs`;
    await build({
      absWorkingDir: root,
      entryPoints: [entry],
      outfile: join(work, bundle),
      bundle: true,
      platform: 'node',
      target: `node${process.versions.node}`,
      format: 'cjs',
      minify: true,
      // reflect-metadata and the like tell by names; so does whoever reads a stack.
      keepNames: name === 'scone',
      logLevel: 'warning',
    });
    writeFileSync(
      join(work, 'sea.json'),
      JSON.stringify({
        main: bundle,
        output: name,
        disableExperimentalSEAWarning: true,
        useCodeCache: false,
        useSnapshot: false,
        // SIGUSR1 would open a debugger to every process of the host.
        execArgv: ['--disable-warning=ExperimentalWarning', '--disable-sigusr1'],
        // The environment (NODE_OPTIONS) and the command line give Node no options.
        execArgvExtension: 'none',
      }),
    );
    execFileSync(process.execPath, ['--build-sea', 'sea.json'], {
      cwd: work,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    chmodSync(join(work, name), 0o755);
    renameSync(join(work, name), join(target, name));
  }
} finally {
  rmSync(work, { recursive: true, force: true });
}
