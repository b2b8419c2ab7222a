import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync, watch, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { temporaryFolder } from './support/leave-nothing.ts';
import { executables, run } from './support/stack.ts';
import { until } from './support/until.ts';

const root = resolve(import.meta.dirname, '..');
const digest = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');

test('the executables are the same byte for byte when they are built again, elsewhere, after a build was killed', async () => {
  const built = executables();
  const folder = temporaryFolder();
  const script = resolve(import.meta.dirname, '../scripts/build.ts');
  const killed = spawn(process.execPath, [script, folder], { stdio: 'ignore' });
  const left = () =>
    readdirSync(join(root, 'node_modules/.cache/envcas')).filter((name) =>
      name.startsWith(`build-${killed.pid}-`),
    );
  await until(() => left().length > 0, 'a build in work');
  killed.kill('SIGKILL');
  await once(killed, 'exit');
  assert.deepEqual(readdirSync(folder), []);
  assert.equal(left().length, 1);

  // Others may see, and put, what they like in the folder for temporary files.
  const temporary = temporaryFolder();
  const seen: (string | null)[] = [];
  const watcher = watch(temporary, (_, name) => seen.push(name));
  const again = spawn(process.execPath, [script, folder], { env: { ...process.env, TMPDIR: temporary } });
  assert.deepEqual(await once(again, 'exit'), [0, null]);
  watcher.close();
  assert.deepEqual(seen, []);
  assert.equal(digest(join(folder, 'envcas')), digest(built.envcas));
  assert.equal(digest(join(folder, 'scone')), digest(built.scone));
  assert.deepEqual(readdirSync(folder).sort(), ['envcas', 'scone']);
  assert.deepEqual(left(), []);
});

test('what is compiled when they are built is taken by V8 that has another seed, and the same options', () => {
  const folder = temporaryFolder();
  const file = join(folder, 'piece.js');
  writeFileSync(file, '(function () { return () => "a piece"; })');
  const compiler = resolve(import.meta.dirname, '../scripts/code-cache.ts');
  execFileSync(process.execPath, ['--min-semi-space-size=16', '--random-seed=1', compiler, file]);
  const take = `
      const { readFileSync } = require('node:fs');
      const script = new (require('node:vm').Script)(readFileSync(process.argv[1], 'utf8'), {
        filename: process.argv[1],
        cachedData: readFileSync(process.argv[1] + '.cache'),
      });
      console.log(script.cachedDataRejected, script.runInThisContext()()());`;
  const taken = (...options: string[]) =>
    execFileSync(process.execPath, [...options, '-e', take, file], { encoding: 'utf8' });
  assert.equal(taken('--min-semi-space-size=16'), 'false a piece\n');
  assert.equal(taken('--min-semi-space-size=16', '--no-flush-bytecode'), 'true a piece\n');
});

test('SCONE_HASH=1 prints what sha256sum prints of the file, SCONE_VERSION=1 the settings', () => {
  const { envcas } = executables();
  const expected = execFileSync('sha256sum', [envcas], { encoding: 'utf8' }).slice(0, 64);
  assert.equal(run(envcas, [], { SCONE_HASH: '1' }).stdout, `${expected}\n`);
  const { stdout } = run(envcas, [], { SCONE_VERSION: '1', SCONE_CONFIG_ID: 's/s@123456' });
  assert.match(stdout, /^SCONE_CONFIG_ID: s\/s@<one-time password>$/m);
  assert.match(stdout, new RegExp(`^Enclave hash: ${expected}$`, 'm'));
});
