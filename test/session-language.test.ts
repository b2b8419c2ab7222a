import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { describe, test } from 'node:test';
import { parseSession } from '../src/policy/session.ts';
import { formatsOf, secretKinds } from '../src/secrets/kinds.ts';
import { missing, run, startStack } from './support/stack.ts';

const document = readFileSync(join(resolve(import.meta.dirname, '..'), 'docs/session-language.md'), 'utf8');
const blocks = (language: string) =>
  [...document.matchAll(new RegExp(`\`\`\`${language}\\n([^]*?)\`\`\``, 'g'))].map(([, block = '']) => block);
const snippets = blocks('yaml');

describe('the snippets of docs/session-language.md', () => {
  assert.ok(snippets.length >= 3);
  for (const snippet of snippets)
    test(`${/^name: .*/m.exec(snippet)} is a session without warnings`, () => {
      assert.deepEqual(parseSession(snippet).warnings, []);
    });
});

test('docs/session-language.md names every kind of secret, and every format of those that are made', () => {
  for (const kind of secretKinds) assert.ok(document.includes(`\`${kind}\``), kind);
  for (const kind of ['binary', 'private-key', 'public-key', 'x509', 'pgp-key'] as const)
    for (const format of formatsOf(kind))
      assert.ok(format === '' || document.includes(`\`${format}\``), `${kind}${format}`);
});

test('the commands of docs/session-language.md work, one after the other', {
  skip: missing('openssl'),
}, async () => {
  const stack = await startStack();
  const script = ['set -euo pipefail', 'cd "$HOME/files"', ...blocks('sh')].join('\n');
  const { status, stdout, stderr } = run('bash', ['-c', script], {
    ...stack.env,
    PATH: `${dirname(stack.envcas)}:${process.env.PATH}`,
  });
  assert.equal(status, 0, stderr);
  const [created, updated, verified, ...others] = stdout.match(/^[0-9a-f]{64}$/gm) ?? [];
  assert.notEqual(created, updated);
  assert.equal(verified, updated);
  assert.equal(others.length, 2, stdout);
  assert.match(stdout, /^demo-\d+$/m);
});
