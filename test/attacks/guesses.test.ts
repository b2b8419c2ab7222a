import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSession } from '../../src/policy/session.ts';

test('a service access token of a few characters, which is soon guessed, is warned of before it is used', () => {
  const warnings = (token: string) =>
    parseSession(
      `{name: s, version: "0.3", security: {service_access_token: ${token}}, secrets: [{name: t, kind: ascii}]}`,
    ).warnings.map(({ message }) => message);
  assert.match(warnings('a').join(), /less than 16 characters/);
  assert.deepEqual(warnings('0123456789abcdef'), []);
  assert.deepEqual(warnings('"$$SCONE::t$$"'), []);
});
