'use strict';

/**
 * Runs a script with the Node that this project pins, whatever Node this is run by:
 *
 *     node scripts/node.cjs SCRIPT [ARGUMENT …]
 *
 * The pinned Node is the package node-linux-ARCH, made portable once and kept in node_modules/.cache. npm makes no link to
 * it (bin-links in .npmrc): npm 9 and 10 remove that link with the package for the other processor.
 */
const OLDEST = 18;
if (Number.parseInt(process.versions.node, 10) < OLDEST)
  stop(
    `Node.js ${OLDEST} or newer is needed, and this is ${process.versions.node}; get one from https://nodejs.org`,
  );

const { spawn } = require('node:child_process');
const {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} = require('node:fs');
const { constants } = require('node:os');
const { join } = require('node:path');

const root = join(__dirname, '..');
const original = join(root, `node_modules/node-linux-${process.arch}/bin/node`);
const cache = join(root, 'node_modules/.cache/envcas');
const portable = join(cache, 'node');
const maker = join(__dirname, 'portable-node.cjs');

if (!isMade()) {
  checkMachine();
  make();
}
run();

function isMade() {
  if (!existsSync(original) || !existsSync(portable)) return false;
  const { mtimeMs } = statSync(portable);
  return [original, maker].every((source) => statSync(source).mtimeMs < mtimeMs);
}

function checkMachine() {
  const { platform, arch } = process;
  if (platform !== 'linux' || !['x64', 'arm64'].includes(arch))
    stop(`Linux on x64 or arm64 is needed, and this is ${platform} on ${arch}`);
  const { header } = /** @type {{ header: { glibcVersionRuntime?: string } }} */ (process.report.getReport());
  if (header.glibcVersionRuntime === undefined)
    stop('Linux with glibc is needed, such as Debian, Ubuntu or Fedora; Alpine has musl');
  if (!existsSync(original)) stop('the dependencies are not installed; run: npm ci');
}

function make() {
  mkdirSync(cache, { recursive: true });
  // Another run may be making it as well.
  const made = `${portable}.${process.pid}`;
  try {
    writeFileSync(made, portableNode());
    chmodSync(made, 0o755);
    renameSync(made, portable);
  } finally {
    rmSync(made, { force: true });
  }
}

function portableNode() {
  try {
    return require(maker).makePortable(readFileSync(original));
  } catch (error) {
    return stop(`${original} is damaged (${/** @type {Error} */ (error).message}); run: npm ci`);
  }
}

function run() {
  const args = ['--disable-warning=ExperimentalWarning', ...process.argv.slice(2)];
  const child = spawn(portable, args, { stdio: 'inherit' });
  // A terminal sends SIGINT to the child as well.
  process.on('SIGINT', () => {});
  for (const signal of /** @type {const} */ (['SIGTERM', 'SIGHUP']))
    process.on(signal, () => child.kill(signal));
  child.on('error', (error) => stop(`Node.js does not start: ${error.message}`));
  child.on('exit', (status, signal) => {
    process.exitCode = signal === null ? Number(status) : 128 + constants.signals[signal];
  });
}

/**
 * @param {string} why
 * @returns {never}
 */
function stop(why) {
  console.error(`envcas: ${why}`);
  process.exit(1);
}
