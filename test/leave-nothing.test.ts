import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
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
const kept = join(temporaryFolder(), 'kept');
mkdirSync(join(kept, 'within'), { recursive: true });
chmodSync(kept, 0o500);
test('a test', () => {});
`;

/** A test file that starts servers, and then does something else than ending them. */
const testFile = (then: string, limit = PATIENCE) => `
import { before, test } from 'node:test';
import { temporaryFolder } from ${support('leave-nothing.ts')};
import { startStack } from ${support('stack.ts')};
before(async () => {
  temporaryFolder();
  await startStack();
  console.log('started');
  ${then}
}, { timeout: ${limit} });
test('a test', () => {});
`;

/** Processes of which a variable or an argument has this text. */
function processesWith(text: string): string[] {
  const has = (path: string) => {
    try {
      return readFileSync(path).includes(text);
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
  writeFileSync(path, text);
  const running = start(process.execPath, [path], {
    env: { PATH: process.env.PATH, HOME: home, TMPDIR: home },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const nothingIsLeft = () =>
    until(
      () => processesWith(home).length === 0 && readdirSync(home).length === 0,
      `no process and no folder of ${home}`,
    );
  return { ...running, home, nothingIsLeft };
}

test('a test file that makes a folder, and takes rights away, leaves nothing', async () => {
  const running = begin(folderAlone);
  const { status, stdout } = await running.finished;
  assert.equal(status, 0, stdout);
  await running.nothingIsLeft();
});

test('a test file whose hook throws leaves nothing', async () => {
  const running = begin(testFile("throw new Error('it throws');"));
  const { status, stdout } = await running.finished;
  assert.equal(status, 1);
  assert.match(stdout, /^started$[\s\S]*it throws/m);
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
  await running.seen(/^started$/m);
  assert.ok(processesWith(running.home).length > 1);
  assert.equal(readdirSync(running.home).length, 2);
  running.child.kill('SIGKILL');
  await running.nothingIsLeft();
});
