import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { buildSync } from 'esbuild';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { executables } from '../support/stack.ts';

/** The two programs of one version. */
export interface Build {
  version: string;
  envcas: string;
  scone: string;
}

/** The release whose programs, stores and backups must go on working, by the commit that it was built from. */
const VERSION = '0.1.0';
const COMMIT = '8b26338fb3b985ba50dd617a19d13012ad9890c7';

const root = resolve(import.meta.dirname, '../..');
const cache = join(root, 'node_modules/.cache/envcas');

/** What the tests use of it, built once for each Node and each way of building it, which this file says. */
const recipe = `${COMMIT} ${basename(dirname(process.execPath))} ${readFileSync(import.meta.filename, 'utf8')}`;
const prefix = `release-${VERSION}-`;
const folder = join(cache, prefix + createHash('sha256').update(recipe).digest('hex').slice(0, 16));

/** For the `skip` of a test that starts the release: why this machine has none, or false. */
export const missingRelease: string | false = (() => {
  if (existsSync(folder)) return false;
  const { status, stderr, error } = git('cat-file', '-e', `${COMMIT}^{commit}`);
  if (error) return `${VERSION} is built from the history, which needs git: ${error.message}`;
  if (status !== 0)
    return `${VERSION} is built from commit ${COMMIT}, which the history here does not have: ${stderr.trim()}`;
  try {
    build();
    return false;
  } catch (error) {
    return `${VERSION} cannot be built here: ${error instanceof Error ? error.message : error}`;
  }
})();

export const release: Build = {
  version: VERSION,
  envcas: join(folder, 'envcas'),
  scone: join(folder, 'scone'),
};
export const present: Build = { version: 'the present version', ...executables() };

/** The session language of the release, as a module. */
export const releaseLanguage = (): Promise<typeof import('../../src/policy/session.ts')> =>
  import(join(folder, 'session.cjs'));

function git(...args: string[]) {
  // Whoever runs the tests need not own the repository.
  return spawnSync('git', ['-c', `safe.directory=${root}`, '-C', root, ...args], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
}

/** Takes the sources from the history, and moves what is built of them to its place at once. */
function build(): void {
  // Node reads no TypeScript below node_modules.
  const sources = temporaryFolder();
  const archive = join(sources, 'archive.tar');
  const { status, stderr } = git('archive', '--format=tar', '-o', archive, COMMIT);
  if (status !== 0) throw new Error(stderr);
  execFileSync('tar', ['-xf', archive, '-C', sources]);
  addDependencies(sources);

  mkdirSync(cache, { recursive: true });
  // The next build removes a folder of this name whose process is gone.
  const work = mkdtempSync(join(cache, `build-${process.pid}-`));
  try {
    execFileSync(process.execPath, [join(sources, 'scripts/build.ts'), work], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    buildSync({
      entryPoints: [join(sources, 'src/policy/session.ts')],
      outfile: join(work, 'session.cjs'),
      ...{ bundle: true, platform: 'node', format: 'cjs', logLevel: 'error' },
    });
    // For whoever runs the tests next.
    chmodSync(work, 0o755);
    renameSync(work, folder);
  } catch (error) {
    // Another test file may have made it meanwhile.
    if (!existsSync(folder)) throw error;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  for (const name of readdirSync(cache))
    if (name.startsWith(prefix) && name !== basename(folder))
      rmSync(join(cache, name), { recursive: true, force: true });
}

/** What is installed here will do where it is the same; else what the release names is installed for it. */
function addDependencies(sources: string): void {
  if (packagesOf(sources) === packagesOf(root))
    symlinkSync(join(root, 'node_modules'), join(sources, 'node_modules'));
  else
    execFileSync('npm', ['ci', '--no-audit', '--no-fund'], {
      cwd: sources,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
}

/** Every package and its hash, as npm has locked them. */
function packagesOf(project: string): string {
  const { packages } = JSON.parse(readFileSync(join(project, 'package-lock.json'), 'utf8'));
  const { '': _, ...others } = packages;
  return JSON.stringify(others);
}
