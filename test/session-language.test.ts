import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, test } from 'node:test';
import { parseSession } from '../src/policy/session.ts';
import { formatsOf, secretKinds } from '../src/secrets/kinds.ts';

const document = readFileSync(join(resolve(import.meta.dirname, '..'), 'docs/session-language.md'), 'utf8');
const snippets = [...document.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, snippet = '']) => snippet);

describe('the snippets of docs/session-language.md', () => {
  assert.ok(snippets.length >= 3);
  for (const snippet of snippets)
    test(`${/^name: .*/m.exec(snippet)} is a session without warnings`, () => {
      assert.deepEqual(parseSession(snippet).warnings, []);
    });
});

test('docs/session-language.md names every kind of secret, and every format of those that are made', () => {
  for (const kind of secretKinds) assert.ok(document.includes(`\`${kind}\``), kind);
  for (const kind of ['binary', 'private-key', 'public-key', 'x509'] as const)
    for (const format of formatsOf(kind))
      assert.ok(format === '' || document.includes(`\`${format}\``), `${kind}${format}`);
});
