import { execFile } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { build, transform } from 'esbuild';
import portableNode from './portable-node.cjs';

/**
 * Builds the two executables, byte for byte the same from the same sources:
 *
 *     node scripts/node.cjs scripts/build.ts [FOLDER [NAME=ENTRY …]]        (default: envcas and scone, into dist)
 *
 * One program each, put into a copy of the Node executable that runs this script. It is compiled here (code-cache.ts);
 * Node's own code cache would differ from run to run, and a measurement must not.
 */
/** The second entry of a program is that of its threads. */
const standard = ['envcas=src/launcher/main.ts', 'scone=src/cli/main.ts,src/cas/thread.ts'];

const root = resolve(import.meta.dirname, '..');
const [folder = join(root, 'dist'), ...given] = process.argv.slice(2);
const target = resolve(folder);
const programs = (given.length > 0 ? given : standard).map((program) => program.split('=', 2));

/** Options of V8. Other ones would void Node's own code cache, which costs 15 ms. */
const v8Options = [
  // Room for a whole start without a garbage collection; a twentieth of it.
  '--min-semi-space-size=16',
];

/** What is compiled is compiled the same in every run: V8 hashes strings with this, instead of a random number. */
const V8_SEED = '--random-seed=1';

/** How the pieces of a program find each other. Where V8 is not as it was here, it compiles them again. */
const loader = `'use strict';
const builtin = require, { getRawAsset } = builtin('node:sea'), { Script } = builtin('node:vm'), pieces = {};
require = (name) => {
  if (!name.startsWith('./')) return builtin(name);
  if (!pieces[name]) {
    const piece = pieces[name] = { exports: {} }, file = name.slice(2);
    const source = Buffer.from(getRawAsset(file)).toString();
    const cachedData = new Uint8Array(getRawAsset(file + '.cache'));
    new Script(source, { filename: file, cachedData }).runInThisContext()(piece, piece.exports, require);
  }
  return pieces[name].exports;
};
`;

const execute = promisify(execFile);

const work = makeWorkFolder();
// esbuild hands large texts on by files there, whose names can be seen.
process.env.TMPDIR = work;
process.on('exit', () => rmSync(work, { recursive: true, force: true }));
for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(1));

mkdirSync(target, { recursive: true, mode: 0o755 });
checkNode();
for (const [name = '', entries = ''] of programs) {
  const [entry = '', thread] = entries.split(',').map((path) => resolve(root, path));
  const assets = await bundle({ [name]: entry, ...(thread !== undefined && { thread }) });
  writeFileSync(
    join(work, 'sea.json'),
    JSON.stringify({
      main: 'main.cjs',
      output: name,
      assets,
      disableExperimentalSEAWarning: true,
      useCodeCache: false,
      useSnapshot: false,
      execArgv: [
        '--disable-warning=ExperimentalWarning',
        // SIGUSR1 would open a debugger to every process of the host.
        '--disable-sigusr1',
        // It knows its CAS by the key alone, so Node need not load its certificate authorities, which takes 5 ms.
        ...(name === 'envcas' ? ['--use-openssl-ca'] : []),
        ...v8Options,
      ],
      // The environment (NODE_OPTIONS) and the command line give Node no options.
      execArgvExtension: 'none',
    }),
  );
  await execute(process.execPath, ['--build-sea', 'sea.json'], { cwd: work });
  chmodSync(join(work, name), 0o755);
  move(join(work, name), join(target, name));
}

/** The executables are copies of the Node that runs this, so it must be what the pinned one gives. */
function checkNode(): void {
  const pinned = readFileSync(join(root, `node_modules/node-linux-${process.arch}/bin/node`));
  if (portableNode.makePortable(pinned).equals(readFileSync(process.execPath))) return;
  console.error(`${process.execPath} is not what the pinned Node gives; run: npm ci`);
  process.exit(1);
}

/** Folder of this build, apart from its result. Folders of builds that were killed are removed. */
function makeWorkFolder(): string {
  const cache = join(root, 'node_modules/.cache/envcas');
  mkdirSync(cache, { recursive: true, mode: 0o755 });
  for (const name of readdirSync(cache)) {
    const [, pid] = /^build-(\d+)-/.exec(name) ?? [];
    if (pid && !existsSync(`/proc/${pid}`)) remove(join(cache, name));
  }
  return mkdtempSync(join(cache, `build-${process.pid}-`));
}

/** Removes a folder, unless it is another user's. */
function remove(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true });
  } catch (error) {
    console.error(`${folder} is not removed: ${(error as Error).message}`);
  }
}

/** Replaces a file at once, also on another file system. */
function move(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EXDEV') throw error;
    copyFileSync(from, `${to}.new`);
    renameSync(`${to}.new`, to);
  }
}

/**
 * Writes a program in pieces: `NAME.js`, which every start loads, and what only some runs need, by its `import()`.
 * @returns the files of the pieces and of what they are compiled to, by name
 */
async function bundle(entryPoints: Record<string, string>): Promise<Record<string, string>> {
  const [name = ''] = Object.keys(entryPoints);
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
    entryPoints,
    outdir: work,
    bundle: true,
    // pg asks for it where it is installed, which it is not.
    external: ['pg-native'],
    splitting: true,
    // The only one that is split.
    format: 'esm',
    // openpgp asks where it lies before anything else, which a script does not know; it uses the answer for nothing.
    define: { 'import.meta.url': '"file:///"' },
    write: false,
  });
  const pieces = await Promise.all(
    outputFiles.map(async ({ path, text }) => {
      const { code } = await transform(text, {
        ...options,
        format: 'cjs',
        supported: { 'dynamic-import': false },
      });
      const piece = basename(path);
      writeFileSync(join(work, piece), `(function(module,exports,require){${code}\n})`);
      return piece;
    }),
  );
  const compiler = join(root, 'scripts/code-cache.ts');
  await execute(process.execPath, [...v8Options, V8_SEED, compiler, ...pieces], { cwd: work });
  const files = pieces.flatMap((piece) => [piece, `${piece}.cache`]);
  if ('thread' in entryPoints) {
    // A thread is started with the same script.
    files.push('main.cjs');
    const which = `builtin('node:worker_threads').isMainThread ? './${name}.js' : './thread.js'`;
    writeFileSync(join(work, 'main.cjs'), `${loader}require(${which});`);
  } else writeFileSync(join(work, 'main.cjs'), `${loader}require('./${name}.js');`);
  return Object.fromEntries(files.map((file) => [file, file]));
}
