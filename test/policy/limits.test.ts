import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSession } from '../../src/policy/session.ts';
import { problemsOf, sessionText } from './support.ts';

const secrets = (count: number, rest: string) =>
  sessionText('secrets:', ...Array.from({ length: count }, (_, index) => `  - {name: s${index}, ${rest}}`));

test('a session has so many secrets, and so many RSA keys, and no more', () => {
  assert.equal(parseSession(secrets(2000, 'kind: ascii')).session.secrets.length, 2000);
  assert.match(
    problemsOf(() => parseSession(secrets(2001, 'kind: ascii'))).join(),
    /secrets: expected at most 2000 items, found 2001/,
  );
  assert.ok(parseSession(secrets(16, 'kind: private-key, key_type: RSA-2048')));
  assert.match(
    problemsOf(() => parseSession(secrets(17, 'kind: private-key, key_type: RSA-3072'))).join(),
    /at most 16 RSA keys/,
  );
});

test('a misspelled key, value or secret comes with what was probably meant', () => {
  for (const [line, suggestion] of [
    ['servces: []', 'services'],
    ['services: [{name: a, attestation: {mrenclav: 00}}]', 'mrenclave'],
    ['secrets: [{name: a, kind: private_key}]', 'private-key'],
    ['secrets: [{name: token, kind: ascii}]\nservices: [{name: a, command: [$$SCONE::tokn$$]}]', 'token'],
  ] as const)
    try {
      parseSession(sessionText(line));
      assert.fail('nothing was refused');
    } catch (error) {
      const { problems } = error as { problems: { suggestion?: string }[] };
      assert.equal(problems[0]?.suggestion, suggestion, line);
    }
});

test('issuers that issue each other are refused', () => {
  const text = sessionText(
    'secrets:',
    '  - {name: k, kind: private-key}',
    '  - {name: a, kind: x509-ca, private_key: k, issuer: b}',
    '  - {name: b, kind: x509-ca, private_key: k, issuer: a}',
  );
  assert.match(problemsOf(() => parseSession(text)).join(), /is issued by itself, in a circle/);
});
