import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { run, type Stack, startStack } from '../support/stack.ts';

let stack: Stack;
before(async () => {
  stack = await startStack();
});

const session = (name: string, security: string, service = '') => `
name: ${name}
version: "0.3.10"
security: ${security}
services:
  - {name: s, image_name: i, command: [envcas, started]${service}}
images:
  - name: i
    injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/echo"}]
secrets:
  - {name: token, kind: ascii, value: "a \\"token\\" $ of some length"}
`;
const withToken = (token: string | undefined) =>
  stack.launch(`token/s`, { env: token === undefined ? {} : { SCONE_SERVICE_ACCESS_TOKEN: token } });

test('an access token must be known to the launcher, and to the CAS', () => {
  stack.create(session('token', '{attestation: {mode: none}, service_access_token: $$SCONE::token$$}'));
  assert.equal(withToken('a "token" $ of some length').stdout, 'started\n');
  const missing = withToken(undefined);
  assert.equal(missing.status, 77);
  assert.match(missing.stderr, /Caused by: a service access token is required[\s\S]*ACCESS_TOKEN_MISSING/);
  const wrong = withToken('another');
  assert.match(wrong.stderr, /ACCESS_TOKEN_INVALID/);
  assert.doesNotMatch(wrong.stderr + missing.stderr, /of some length|another/);

  stack.create(session('without', '{attestation: {mode: none}}'));
  const unproven = stack.launch('without/s', { env: { SCONE_SERVICE_ACCESS_TOKEN: 'a token' } });
  assert.equal(unproven.status, 77);
  assert.match(
    unproven.stderr,
    /did not prove that it knows the service access token[\s\S]*ACCESS_TOKEN_UNPROVEN/,
  );
});

test('guesses at a token cost more and more time', () => {
  for (let guess = 0; guess < 5; guess++) withToken(`guess ${guess}`);
  assert.match(withToken('a "token" $ of some length').stderr, /ACCESS_TOKEN_THROTTLED/);
});

test('a token alone is a second factor, so that a session in mode none does not warn', () => {
  const text = session('quiet', '{attestation: {mode: none}, service_access_token: secret}');
  const { stderr } = run(join(stack.envcas, '../scone'), ['session', 'check', '-'], stack.env, text);
  assert.doesNotMatch(stderr, /second factor/);
});

test('with singleton_enclaves, a process is given a configuration once', () => {
  const node = process.execPath;
  const measurement = createHash('sha256').update(readFileSync(node)).digest('hex');
  const security = '{attestation: {tolerate: [debug-mode]}, singleton_enclaves: true}';
  stack.create(session('single', security, `, attestation: {mrenclave: ${measurement}}`));
  stack.create(
    session('many', security.replace('true', 'false'), `, attestation: {mrenclave: ${measurement}}`),
  );
  const askTwice = (id: string) => {
    const script = join(import.meta.dirname, '../fixtures/launcher/ask-twice.ts');
    const args = ['--disable-warning=ExperimentalWarning', script, id];
    return run(node, args, { ...stack.env, SCONE_CONFIG_ID: id })
      .stdout.trim()
      .split('\n');
  };
  assert.deepEqual(askTwice('single/s'), ['granted', 'PROCESS_SEEN']);
  assert.deepEqual(askTwice('single/s'), ['granted', 'PROCESS_SEEN'], 'another process');
  assert.deepEqual(askTwice('many/s'), ['granted', 'granted']);
});

test('singleton_enclaves needs Evidence', () => {
  const text = session('single-none', '{attestation: {mode: none}, singleton_enclaves: true}');
  const { status, stderr } = run(join(stack.envcas, '../scone'), ['session', 'check', '-'], stack.env, text);
  assert.equal(status, 65);
  assert.match(stderr, /4:\d+: error: security\.singleton_enclaves/);
});
