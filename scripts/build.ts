import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { build, type Plugin } from 'esbuild';

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
    const assets: Record<string, string> = {};
    await bundle(resolve(root, entry), `${name}.cjs`, name === 'envcas' ? [putAside(assets)] : []);
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

async function bundle(entry: string, outfile: string, plugins: Plugin[]): Promise<void> {
  await build({
    absWorkingDir: root,
    entryPoints: [entry],
    outfile: join(work, outfile),
    bundle: true,
    platform: 'node',
    target: `node${process.versions.node}`,
    format: 'cjs',
    // openpgp asks where it lies before anything else, which a script does not know; it uses the answer for nothing.
    define: { 'import.meta.url': '"file:///"' },
    minify: true,
    // fastify and pino go by the names of functions.
    keepNames: outfile === 'scone.cjs',
    logLevel: 'warning',
    plugins,
  });
}

/**
 * Keeps what is imported with `import()` out of the program's own source, which is compiled at every start, and
 * in an asset of the executable, which is compiled when it is used. Such a module has its own copies of what it
 * imports, classes included.
 */
function putAside(assets: Record<string, string>): Plugin {
  return {
    name: 'put-aside',
    setup({ onResolve, onLoad }) {
      onResolve({ filter: /\.ts$/ }, ({ kind, path, resolveDir }) =>
        kind === 'dynamic-import' ? { path: resolve(resolveDir, path), namespace: 'aside' } : undefined,
      );
      onLoad({ filter: /./, namespace: 'aside' }, async ({ path }) => {
        const asset = `${basename(path, '.ts')}.cjs`;
        await bundle(path, asset, []);
        assets[asset] = asset;
        const source = `require('node:sea').getAsset('${asset}', 'utf8')`;
        const parameters = ['module', 'exports', 'require'];
        const contents = `require('node:vm').compileFunction(${source}, ${JSON.stringify(parameters)})(${parameters})`;
        return { contents, loader: 'js' };
      });
    },
  };
}
