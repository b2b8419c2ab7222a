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
const { createHash } = require('node:crypto');
const {
  chmodSync,
  closeSync,
  existsSync,
  fchmodSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} = require('node:fs');
const { constants } = require('node:os');
const { join } = require('node:path');

const original = join(__dirname, `../node_modules/node-linux-${process.arch}/bin/node`);
const maker = join(__dirname, 'portable-node.cjs');
const cache = join(__dirname, '../node_modules/.cache/envcas');

checkMachine();
run(portableNode());

/** @returns {string} the path of the portable Node, made where this very file has not been made portable yet */
function portableNode() {
  const { size, ino, mtimeMs, ctimeMs } = statSync(original);
  const source = JSON.stringify([size, ino, mtimeMs, ctimeMs]) + readFileSync(maker, 'utf8');
  const folder = join(cache, `node-${createHash('sha256').update(source).digest('hex').slice(0, 16)}`);
  if (!existsSync(folder)) make(folder);
  return join(folder, 'node');
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

/** @param {string} folder */
function make(folder) {
  const portable = madePortable();
  mkdirSync(cache, { recursive: true, mode: 0o755 });
  const work = mkdtempSync(join(cache, 'making-'));
  try {
    const file = openSync(join(work, 'node'), 'wx');
    writeFileSync(file, portable);
    fchmodSync(file, 0o755);
    fsyncSync(file);
    closeSync(file);
    chmodSync(work, 0o755);
    renameSync(work, folder);
  } catch (error) {
    // Another run may have made it meanwhile.
    if (!existsSync(folder)) throw error;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function madePortable() {
  try {
    return require(maker).makePortable(readFileSync(original));
  } catch (error) {
    return stop(`${original} is damaged (${/** @type {Error} */ (error).message}); run: npm ci`);
  }
}

/** @param {string} node */
function run(node) {
  const args = ['--disable-warning=ExperimentalWarning', ...process.argv.slice(2)];
  const child = spawn(node, args, { stdio: 'inherit' });
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
