import { type ChildProcess, spawn } from 'node:child_process';
import { subscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { mkdtempSync, realpathSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';

/**
 * Reads folders, one a line, and the processes of now in one line, until its input ends.
 *
 * That is when the process that writes it ends, by SIGKILL too. Then it ends those processes and what they started,
 * and removes the folders.
 */
const JANITOR = `
while IFS= read -r line; do
  case $line in
    /*) set -- "$@" "$line" ;;
    *) processes=$line ;;
  esac
done
# Stopped, they start no more meanwhile.
descendants() {
  for pid; do
    kill -STOP "$pid"
    echo "$pid"
    descendants $(cat "/proc/$pid/task/"*/children)
  done
}
alive() {
  for pid; do grep -s '^State:.[^ZX]' "/proc/$pid/status" >/dev/null && echo "$pid"; done
}
descendants $processes
all=$(descendants $processes)
for pid in $processes; do kill "$pid"; done
for pid in $all; do kill -CONT "$pid"; done
tries=0
while all=$(alive $all); [ "$all" ] && [ $((tries += 1)) -le 100 ]; do sleep 0.1; done
for pid in $all; do kill -KILL "$pid"; done
while read -r _ place _; do
  place=$(printf %b "$place")
  for folder; do case $place in "$folder"/*) umount -l "$place" ;; esac; done
done </proc/mounts
# Without a folder, find would take the whole root directory.
[ $# -gt 0 ] || exit 0
# Each before what is in it is looked at.
find "$@" -xdev -type d -exec chmod u+rwx {} \\;
rm -rf --one-file-system -- "$@"
`;

// What tests make has the mode that they ask for, whoever runs them.
process.umask(0o022);

const processes = new Set<ChildProcess>();
let janitor: ChildProcess | undefined;
let isOver = false;

/** A folder of the test's own, which goes with its process. */
export function temporaryFolder(): string {
  // As /proc/mounts names it.
  const given = realpathSync(tmpdir());
  // Sockets have paths of at most 107 bytes (unix(7)).
  const place = Buffer.byteLength(given) > 50 ? realpathSync('/tmp') : given;
  const folder = mkdtempSync(join(place, 'envcas-test-'));
  if (folder.includes('\n')) throw new Error('TMPDIR has a line break in its name');
  tell(folder);
  return folder;
}

function tell(line: string): void {
  if (janitor === undefined) {
    // A session of its own, so that no signal to this one ends it.
    janitor = spawn('/bin/sh', ['-c', JANITOR], {
      cwd: '/',
      env: { PATH: process.env.PATH ?? '' },
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
    });
    janitor.unref();
    (janitor.stdin as Socket).unref();
  }
  janitor.stdin?.write(`${line}\n`);
}

const tellProcesses = () => tell([...processes].map(({ pid }) => pid).join(' '));

// Every child, however it is started, so that none can be forgotten.
subscribe('child_process', (message) => {
  const { process: child } = message as { process: ChildProcess };
  child.once('spawn', () => {
    if (child.spawnargs.includes(JANITOR)) return;
    processes.add(child);
    tellProcesses();
    // A hook that took too long may go on after the tests.
    if (isOver) child.kill('SIGKILL');
  });
  child.once('exit', () => {
    if (processes.delete(child)) tellProcesses();
  });
});

// A child that is left would keep the process of a test file, and so the suite, waiting.
if (process.argv[1]?.endsWith('.test.ts'))
  after(async () => {
    // What was started last is heard of by then.
    await new Promise(setImmediate);
    isOver = true;
    if (janitor !== undefined) {
      const ended = once(janitor, 'exit');
      janitor.ref();
      janitor.stdin?.end();
      janitor = undefined;
      await ended;
    }
    // So would a server that a failed test has left open.
    setTimeout(() => process.exit(1), 20_000).unref();
  });
