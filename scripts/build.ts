import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { build, transform } from 'esbuild';

/**
 * Builds the two executables, byte for byte the same from the same sources:
 *
 *     node scripts/build.ts [FOLDER [NAME=ENTRY …]]        (default: envcas and scone, into dist)
 *
 * One program each, put into a copy of the Node executable that runs this script. No code cache, as it differs
 * from run to run, and a measurement must not.
 */
const standard = ['envcas=src/launcher/main.ts', 'scone=src/cli/main.ts'];

const root = resolve(import.meta.dirname, '..');
const [folder = join(root, 'dist'), ...given] = process.argv.slice(2);
const target = resolve(folder);
const programs = (given.length > 0 ? given : standard).map((program) => program.split('=', 2));

/** How the pieces of a program find each other. */
const loader = `'use strict';
const builtin = require, pieces = {};
require = (name) => {
  if (!name.startsWith('./')) return builtin(name);
  if (!pieces[name]) {
    const source = builtin('node:sea').getAsset(name.slice(2), 'utf8');
    const piece = pieces[name] = { exports: {} };
    builtin('node:vm').compileFunction(source, ['module', 'exports', 'require'])(piece, piece.exports, require);
  }
  return pieces[name].exports;
};
`;

mkdirSync(target, { recursive: true });
const work = mkdtempSync(join(target, '.build-'));
try {
  for (const [name = '', entry = ''] of programs) {
    const assets = await bundle(resolve(root, entry), name);
    writeFileSync(
      join(work, 'sea.json'),
      JSON.stringify({
        main: `${name}.cjs`,
        output: name,
        assets,
        disableExperimentalSEAWarning: true,
        useCodeCache: false,
        useSnapshot: false,
        execArgv: [
          '--disable-warning=ExperimentalWarning',
          // SIGUSR1 would open a debugger to every process of the host.
          '--disable-sigusr1',
          // Room for a whole start without a garbage collection; a twentieth of it.
          '--min-semi-space-size=16',
        ],
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

/**
 * Writes a program in pieces: `NAME.cjs`, which is compiled at every start, and what only some runs need, by its
 * `import()`, to be kept in assets of the executable and compiled when it is used.
 * @returns the files of the assets, by name
 */
async function bundle(entry: string, name: string): Promise<Record<string, string>> {
  const options = {
    platform: 'node',
    target: `node${process.versions.node}`,
    minifyWhitespace: true,
    minifySyntax: true,
    // fastify and pino go by the names of functions.
    minifyIdentifiers: name !== 'scone',
    logLevel: 'warning',
  } as const;
  const { outputFiles } = await build({
    ...options,
    absWorkingDir: root,
    entryPoints: { [name]: entry },
    outdir: work,
    bundle: true,
    splitting: true,
    // The only one that is split.
    format: 'esm',
    // openpgp asks where it lies before anything else, which a script does not know; it uses the answer for nothing.
    define: { 'import.meta.url': '"file:///"' },
    write: false,
  });
  const assets: Record<string, string> = {};
  for (const { path, text } of outputFiles) {
    const { code } = await transform(text, {
      ...options,
      format: 'cjs',
      supported: { 'dynamic-import': false },
    });
    const piece = basename(path);
    if (piece === `${name}.js`) writeFileSync(join(work, `${name}.cjs`), loader + code);
    else {
      assets[piece] = piece;
      writeFileSync(join(work, piece), code);
    }
  }
  return assets;
}
