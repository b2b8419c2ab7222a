import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { documentErrors, errorsDocument } from '../scripts/document-errors.ts';
import { verdicts } from '../src/audit/verify-log.ts';
import { errors, failure } from '../src/errors.ts';
import { version } from '../src/version.ts';

const root = resolve(import.meta.dirname, '..');
const read = (path: string) => readFileSync(join(root, path), 'utf8');

test('docs/errors.md lists the declared errors (node scripts/node.cjs scripts/document-errors.ts writes it)', () => {
  assert.equal(readFileSync(errorsDocument, 'utf8'), documentErrors());
});

test('every declared error has a message, a hint and a status, and fills in its values', () => {
  for (const [code, { message, hint, exit }] of Object.entries(errors)) {
    assert.match(code, /^[A-Z][A-Z0-9_]+$/);
    assert.ok(message && hint, code);
    assert.ok(exit >= 64 && exit <= 127, code);
  }
  const made = failure('HOST_ARGUMENT_MISSING', { number: 3, count: 1 });
  assert.equal(made.message, 'the policy asks for host argument @@3, but only 1 were given');
});

test('docs/operations.md says what each exit status of verify-audit-log means', () => {
  const operations = readFileSync(join(root, 'docs/operations.md'), 'utf8');
  const said = [...operations.matchAll(/^\| (\d+) \| (.*) \|$/gm)].map(([, exit, text]) => ({
    exit: Number(exit),
    text,
  }));
  assert.deepEqual(said, Object.values(verdicts));
});

test('every dependency has its line in docs/dependencies.md, and no other has', () => {
  const { dependencies, optionalDependencies, devDependencies } = JSON.parse(read('package.json'));
  const listed = [...read('docs/dependencies.md').matchAll(/^\| `([^`]+)`/gm)].map(([, name]) => name);
  assert.deepEqual(
    listed.sort(),
    Object.keys({ ...dependencies, ...optionalDependencies, ...devDependencies }).sort(),
  );
});

test('no package runs a script when it is installed, and docs/dependencies.md says which would', () => {
  assert.match(read('.npmrc'), /^ignore-scripts=true$/m);
  const { packages } = JSON.parse(read('package-lock.json'));
  const would = Object.entries<{ hasInstallScript?: boolean }>(packages).filter(
    ([, { hasInstallScript }]) => hasInstallScript,
  );
  const [, said = ''] = /has such a\s+script: `([^`]+)`/.exec(read('docs/dependencies.md')) ?? [];
  assert.deepEqual(
    would.map(([path]) => path),
    [`node_modules/${said}`],
  );
});

test('the version of the programs is that of the package', () => {
  assert.equal(version, JSON.parse(read('package.json')).version);
});

/** Rows of a table below a heading, by cells without the marks at both ends. */
function rowsBelow(document: string, heading: string): string[][] {
  const [, below = ''] = document.split(`\n## ${heading}\n`);
  const [section = ''] = below.split('\n## ');
  const lines = section.match(/^\|.*\|$/gm) ?? [];
  return lines.slice(2).map((line) =>
    line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim()),
  );
}

test('docs/threat-model.md says of each adversary and asset what stops him, by tests that are there, and what does not', () => {
  const document = read('docs/threat-model.md');
  const adversaries = rowsBelow(document, 'Who attacks').map(([adversary]) => adversary);
  const assets = [...document.matchAll(/^- \*\*(\w+)\*\*:/gm)].map(([, asset = '']) => asset.toLowerCase());
  assert.ok(adversaries.length > 5 && assets.length > 2);
  const pairs = new Set<string>();
  const named = new Set<string>();
  let adversary = '';
  let asset = '';
  for (const row of rowsBelow(document, 'What stops them')) {
    assert.equal(row.length, 5, row.join());
    const [who = '', what = '', means = '', tests = '', not = ''] = row;
    adversary = who || adversary;
    asset = what || (who ? '' : asset);
    for (const each of asset.split(', ')) pairs.add(`${adversary}: ${each}`);
    const names = [...tests.matchAll(/`([a-z-]+(?:\/[a-z-]+)+)`/g)].map(([, name = '']) => name);
    for (const name of names) assert.ok(existsSync(join(root, `test/${name}.test.ts`)), name);
    assert.ok(means && not && (names.length > 0 || tests === '–'), row.join());
    for (const name of names) named.add(name);
  }
  assert.deepEqual(
    [...pairs].toSorted(),
    adversaries.flatMap((each) => assets.map((it) => `${each}: ${it}`)).toSorted(),
  );
  const attacks = readdirSync(join(root, 'test/attacks')).filter((name) => name.endsWith('.test.ts'));
  for (const name of attacks) assert.ok(named.has(`attacks/${name.replace('.test.ts', '')}`), name);
});

test('each line of the contract in docs/launcher.md names tests that are there', () => {
  const [, contract = ''] = read('docs/launcher.md').split(/^## The contract$/m);
  const lines = contract.split('\n## ')[0]?.match(/^\| (?!what|---|\*\*).*$/gm) ?? [];
  assert.ok(lines.length > 40);
  for (const line of lines) {
    const proofs = [...line.matchAll(/`([\w/.-]+\.test\.ts)` \*([^*]+)\*/g)];
    assert.ok(proofs.length > 0, line);
    for (const [, file = '', title = ''] of proofs) {
      const path = file.startsWith('test/') ? file : `test/launcher/${file}`;
      assert.ok(read(path).includes(title), `${path} has no test "${title}"`);
    }
  }
});
