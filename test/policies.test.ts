import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseSession } from '../src/policy/session.ts';
import { files, publicSession, skip, variables } from './support/public-sessions.ts';

describe('public session files', { skip }, () => {
  for (const file of files)
    test(`${file} is understood`, () => {
      const { session } = parseSession(publicSession(file), variables);
      assert.ok(session.name);
    });
});
