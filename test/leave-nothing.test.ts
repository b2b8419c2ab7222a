import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { start } from './launcher/support.ts';
import { temporaryFolder } from './support/leave-nothing.ts';
import { PATIENCE, until } from './support/until.ts';

const support = (name: string) =>
  JSON.stringify(pathToFileURL(resolve(import.meta.dirname, 'support', name)));

const folderAlone = `
import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryFolder } from ${support('leave-nothing.ts')};
const folder = temporaryFolder();
console.log('folder', folder);
const kept = join(folder, 'kept');
const within = join(kept, 'within');
mkdirSync(join(within, 'more'), { recursive: true });
chmodSync(within, 0);
chmodSync(kept, 0);
test('a test', () => {});
`;

/** A test file that starts servers, and then does something else than ending them. */
const testFile = (then: string, limit = PATIENCE) => `
import { before, test } from 'node:test';
import { temporaryFolder } from ${support('leave-nothing.ts')};
import { startStack } from ${support('stack.ts')};
before(async () => {
  console.log('folder', temporaryFolder());
  console.log('folder', (await startStack()).directory);
  ${then}
}, { timeout: ${limit} });
test('a test', () => {});
`;

/** Processes of which a variable or an argument has one of these texts. */
function processesWith(texts: string[]): string[] {
  const has = (path: string) => {
    try {
      const content = readFileSync(path);
      return texts.some((text) => content.includes(text));
    } catch {
      return false; // It has ended meanwhile, or is another user's.
    }
  };
  return readdirSync('/proc').filter(
    (pid) => /^\d+$/.test(pid) && ['cmdline', 'environ'].some((name) => has(`/proc/${pid}/${name}`)),
  );
}

function begin(text: string) {
  const home = join(temporaryFolder(), 'with blanks, and ü');
  mkdirSync(home);
  const path = join(home, '../some.test.ts');
  // Node looks for one in every folder above, too.
  writeFileSync(join(home, '../package.json'), '{"type":"module"}');
  writeFileSync(path, text);
  const running = start(process.execPath, [path], {
    env: { PATH: process.env.PATH, HOME: home, TMPDIR: home },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const folders = () => Array.from(running.output().matchAll(/^folder (.*)$/gm), ([, path = '']) => path);
  const processes = () => processesWith([home, ...folders()]);
  const nothingIsLeft = () =>
    until(
      () =>
        processes().length === 0 &&
        readdirSync(home).length === 0 &&
        !folders().some((path) => existsSync(path)),
      `no process and no folder of ${home}`,
    );
  return { ...running, processes, folders, nothingIsLeft };
}

test('a test file that makes a folder, and takes rights away, leaves nothing', async () => {
  const running = begin(folderAlone);
  const { status, stdout } = await running.finished;
  assert.equal(status, 0, stdout);
  assert.equal(running.folders().length, 1);
  await running.nothingIsLeft();
});

test('a test file that makes no folder touches none', async () => {
  const path = join(temporaryFolder(), 'somebody else’s');
  mkdirSync(path, { mode: 0o500 });
  const { finished } = begin(`
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import ${support('leave-nothing.ts')};
test('a test', () => once(spawn('true'), 'exit'));
`);
  const { status, stdout } = await finished;
  assert.equal(status, 0, stdout);
  assert.equal(statSync(path).mode & 0o777, 0o500);
});

test('a test file that leaves a server open, as a test fails before its end, ends all the same', async () => {
  const running = begin(`
import { createServer } from 'node:http';
import { test } from 'node:test';
import ${support('leave-nothing.ts')};
test('a test', () => {
  createServer().listen(0);
  throw new Error('it throws');
});
`);
  const { status, stdout } = await running.finished;
  assert.equal(status, 1);
  assert.match(stdout, /^✖ a test /);
});

test('a test file that fails at once leaves nothing of what a child has started by then', async () => {
  for (let round = 0; round < 5; round++) {
    const running = begin(`
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { temporaryFolder } from ${support('leave-nothing.ts')};
test('a test', () => {
  console.log('folder', temporaryFolder());
  spawn('/bin/sh', ['-c', 'sleep 600 & wait'], { stdio: 'ignore' });
  assert.fail('it fails');
});
`);
    const { status, stdout } = await running.finished;
    assert.equal(status, 1);
    assert.match(stdout, /it fails/);
    await running.nothingIsLeft();
  }
});

test('a test file whose hook throws leaves nothing', async () => {
  const running = begin(testFile("throw new Error('it throws');"));
  const { status, stdout } = await running.finished;
  assert.equal(status, 1);
  assert.match(stdout, /it throws/);
  assert.equal(running.folders().length, 2);
  await running.nothingIsLeft();
});

test('a test file whose hook takes too long leaves nothing, though its servers start later', async () => {
  const running = begin(testFile('await new Promise(() => {});', 300));
  const { status, stdout } = await running.finished;
  assert.equal(status, 1);
  assert.match(stdout, /timed out after 300ms/);
  await running.nothingIsLeft();
});

test('a test file that is killed leaves nothing', async () => {
  const running = begin(testFile('await new Promise(() => setInterval(() => {}, 1000));'));
  await running.seen(/^(folder .*\n){2}/m);
  assert.ok(running.processes().length > 1);
  for (const folder of running.folders()) assert.ok(existsSync(folder));
  running.child.kill('SIGKILL');
  await running.nothingIsLeft();
});
