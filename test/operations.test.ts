import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { start } from './launcher/support.ts';
import { temporaryFolder } from './support/leave-nothing.ts';
import { freePorts } from './support/port.ts';
import { missingPostgres, startPostgres } from './support/postgres.ts';
import { executables, missing } from './support/stack.ts';

const root = resolve(import.meta.dirname, '..');
const operations = readFileSync(join(root, 'docs/operations.md'), 'utf8');

test('who follows docs/operations.md has a restored, re-keyed and upgraded CAS of three replicas', {
  skip: missing('curl', 'createdb') || missingPostgres,
}, async () => {
  const { scone } = executables();
  const blocks = [...operations.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map(([, block]) => block);
  assert.ok(blocks.length > 10);
  const folder = temporaryFolder();
  const postgres = await startPostgres();
  // The same program under another name is another program, by its measurement.
  const next = join(folder, 'next');
  execFileSync(process.execPath, [
    join(root, 'scripts/build.ts'),
    next,
    'scone-next=src/cli/main.ts,src/cas/thread.ts',
  ]);
  // What somebody has from before is not gone by.
  writeFileSync(join(folder, '.cas'), '');
  const script = [
    'set -eu',
    "trap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT",
    ...blocks,
    '[ -z "$(jobs -p)" ]',
  ].join('\n');
  const { status, stdout, stderr } = await start('bash', ['-c', script], {
    cwd: folder,
    env: {
      PATH: `${join(scone, '..')}:${process.env.PATH}`,
      ...{ HOME: folder, PGHOST: postgres.folder, PGUSER: postgres.user },
      ...{ NEXT: join(next, 'scone-next'), PORT: String(await freePorts(33)) },
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  }).finished;
  assert.equal(status, 0, `${stdout}\n${stderr}`);
  assert.match(stdout, /^ *CAS is sealed, at /m);
  assert.match(stderr, /was restored from a backup on [\s\S]*CAS_RESTORED/);
  assert.match(stderr, /SESSION_NOT_FOUND/);
  assert.match(stdout, /^Master key 2 is used from now on/m);
  assert.match(stdout, /^name: shop$/m);
  assert.match(stdout, /^All \d+ rows of .+ are as they were written$/m);
  assert.match(stdout, /The log is whole, and nothing that was seen before is missing from it\.\n$/);
  // Nothing of it lies about, and the shares of the backups are still there.
  assert.deepEqual(readdirSync(folder).toSorted(), ['.cas', 'cas-trial', 'next']);
  const share = (name: string) => readFileSync(join(folder, 'cas-trial', name), 'utf8');
  assert.notEqual(share('share-1'), share('new-share-1'));
  for (const replica of [1, 2, 3]) {
    const log = readFileSync(join(folder, 'cas-trial', `cas-${replica}.log`), 'utf8');
    assert.match(log, /^CAS ready/m);
    assert.doesNotMatch(log, /"level":(50|60)/);
  }
});
