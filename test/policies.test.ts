import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, test } from 'node:test';
import { parseSession } from '../src/policy/session.ts';

/** Session files that other people wrote, read where they are; what needs more of the language comes later. */
const shared = resolve(import.meta.dirname, '../../shared/policies');
const files = ['envcas-example/bash.yaml', 'envcas-example/python.yaml', 'args-env-tutorial/namespace.yaml'];

const variables: Record<string, string> = {
  SESSION: 'session',
  MRENCLAVE: 'ab'.repeat(32),
  NAMESPACE: 'namespace',
  NAMESPACE_PREDECESSOR: '~',
};

describe('public session files', { skip: existsSync(shared) ? false : `${shared} is not there` }, () => {
  for (const file of files)
    test(`${file} is understood`, () => {
      const { session } = parseSession(readFileSync(join(shared, file), 'utf8'), (name) => variables[name]);
      assert.ok(session.name);
    });
});
