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
  readdirSync,
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
  const prefix = `node-${createHash('sha256').update(source).digest('hex').slice(0, 16)}-`;
  return find(prefix) ?? make(prefix);
}

/**
 * @param {string} prefix the name of the folder goes on with the size of the file, so that one that was cut short is known
 * @returns {string | undefined}
 */
function find(prefix) {
  const names = existsSync(cache) ? readdirSync(cache) : [];
  const name = names.find((name) => name.startsWith(prefix) && isWhole(name));
  return name && join(cache, name, 'node');
}

/** @param {string} name */
function isWhole(name) {
  const { size } = statSync(join(cache, name, 'node'), { throwIfNoEntry: false }) ?? {};
  return name.endsWith(`-${size}`);
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

/**
 * @param {string} prefix
 * @returns {string}
 */
function make(prefix) {
  const portable = madePortable();
  const folder = join(cache, `${prefix}${portable.length}`);
  /** @type {string | undefined} */
  let work;
  try {
    mkdirSync(cache, { recursive: true, mode: 0o755 });
    for (const name of readdirSync(cache))
      if (isLeft(name, prefix)) rmSync(join(cache, name), { recursive: true, force: true });
    work = mkdtempSync(join(cache, `making-${process.pid}-`));
    const file = openSync(join(work, 'node'), 'wx');
    writeFileSync(file, portable);
    fchmodSync(file, 0o755);
    fsyncSync(file);
    closeSync(file);
    chmodSync(work, 0o755);
    renameSync(work, folder);
  } catch (error) {
    // Another run may have made it meanwhile.
    if (!find(prefix)) stop(`cannot make ${folder}: ${/** @type {Error} */ (error).message}`);
  } finally {
    if (work) rmSync(work, { recursive: true, force: true });
  }
  return join(folder, 'node');
}

/**
 * Whether a folder is of a run that was killed, or a Node of before.
 * @param {string} name
 * @param {string} prefix
 */
function isLeft(name, prefix) {
  const [, pid] = /^making-(\d+)-/.exec(name) ?? [];
  if (pid) return !existsSync(`/proc/${pid}`);
  return name.startsWith('node-') && !(name.startsWith(prefix) && isWhole(name));
}

function madePortable() {
  try {
    return require(maker).makePortable(readFileSync(original));
  } catch (error) {
    return stop(`${original} is damaged (${/** @type {Error} */ (error).message}); run: npm ci`);
  }
}

/** npm has put there what is in any folder above this one, whoever made it. */
function withoutBins() {
  const bins = /\/(node_modules\/\.bin|node-gyp-bin)\/*$/;
  return process.env.PATH?.split(':')
    .filter((folder) => !bins.test(folder))
    .join(':');
}

/** @param {string} node */
function run(node) {
  const args = ['--disable-warning=ExperimentalWarning', ...process.argv.slice(2)];
  const child = spawn(node, args, { stdio: 'inherit', env: { ...process.env, PATH: withoutBins() } });
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
