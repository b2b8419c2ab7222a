import assert from 'node:assert/strict';
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { executables, run, type Stack, startStack } from '../support/stack.ts';

let stack: Stack;
let sconeMeasurement: string;
let platform: string;
before(async () => {
  stack = await startStack();
  sconeMeasurement = run('sha256sum', [executables().scone], {}).stdout.slice(0, 64);
  platform = /platform\): ([0-9a-f]{64})/.exec(stack.server.output())?.[1] ?? '';
});

const debug = '--only_for_testing-debug';
const ignoreSigner = '--only_for_testing-ignore-signer';
const trustAny = '--only_for_testing-trust-any';
const ownUser = ['--run-as', `uid:${process.getuid?.()}`];

/** Attests as a user who has attested nothing yet. */
function attest(...args: string[]) {
  const config = join(stack.files, `config-${Math.random()}.json`);
  const env = { ...stack.env, SCONE_CLI_CONFIG: config };
  const result = run(executables().scone, ['cas', 'attest', 'localhost', ...args], env);
  return { ...result, config, env };
}

test('without testing flags, software Evidence makes no CAS trustworthy', () => {
  for (const args of [[], ['-C', '-G', '-S'], [sconeMeasurement]]) {
    const { status, stderr, stdout } = attest(...args);
    assert.equal(status, 77, stderr);
    assert.match(stderr, /Error during attestation of CAS: .*software alone \(debug\)/);
    assert.equal(stdout, '');
  }
});

test('flags that weaken the check need each other', () => {
  for (const args of [
    [trustAny],
    [debug],
    [trustAny, debug],
    [ignoreSigner],
    [debug, ignoreSigner],
    ['abc'],
  ]) {
    const { status, stderr } = attest(...args);
    assert.equal(status, 64, `${args}: ${stderr}`);
    assert.match(stderr, /Code: USAGE/);
  }
});

test('a measurement counts only when the LAS that vouches for it is trusted', () => {
  assert.match(
    attest(debug, ignoreSigner, sconeMeasurement).stderr,
    /its LAS key [0-9a-f]{64} is not trusted/,
  );
  assert.equal(
    attest(debug, ignoreSigner, ...ownUser, '--trusted-platform', platform, sconeMeasurement).status,
    0,
  );
  const wrong = attest(debug, ignoreSigner, '--trusted-platform', platform, 'ab'.repeat(32));
  assert.equal(wrong.status, 77);
  assert.match(wrong.stderr, new RegExp(`Enclave hash does not match expectation: ${sconeMeasurement}`));
});

test('an attested CAS is pinned by its key, in a file that is private', () => {
  const { status, stdout, stderr, config, env } = attest(debug, ignoreSigner, trustAny);
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^CAS localhost at https:\/\/localhost:\d+\/ is trustworthy\n/);
  assert.match(stderr, /Warning: the Evidence is vouched for by software alone/);
  assert.equal(statSync(config).mode & 0o777, 0o600);
  const { scone } = executables();
  assert.match(run(scone, ['cas', 'list'], env).stdout, /^\* localhost: https:\/\/localhost:\d+\/\n$/);
  const hash = run(scone, ['cas', 'show-identification', '-c'], env).stdout.trim();
  assert.ok(stack.server.output().includes(`CAS key hash: ${hash}`));
  assert.equal(attest(debug, ignoreSigner, trustAny, '-c', hash).status, 0);
});

test('another key than the expected or pinned one is refused', async () => {
  const other = await startStack();
  try {
    const hash = other.scone('cas', 'show-identification').trim();
    assert.match(
      attest(debug, ignoreSigner, trustAny, '-c', hash).stderr,
      /Code: CAS_KEY_MISMATCH, exit status 76/,
    );
    // The same address, behind which another CAS answers now.
    const { config, env } = attest(debug, ignoreSigner, trustAny);
    const text = readFileSync(config, 'utf8');
    writeFileSync(
      config,
      text.replaceAll(stack.env.SCONE_CAS_API_PORT ?? '', other.env.SCONE_CAS_API_PORT ?? ''),
    );
    const read = run(executables().scone, ['session', 'read', 'any'], env);
    assert.equal(read.status, 76);
    assert.match(read.stderr, /is pinned \(by `scone cas attest`\)/);
  } finally {
    await other.stop();
  }
});

test('a state file that others can read, or that is broken, is refused without quoting it', () => {
  const { config, env } = attest(debug, ignoreSigner, trustAny);
  const { scone } = executables();
  assert.equal(run(scone, ['self', 'show'], env).status, 0);
  chmodSync(config, 0o644);
  assert.match(run(scone, ['self', 'show'], env).stderr, /STATE_UNUSABLE/);
  chmodSync(config, 0o600);
  writeFileSync(config, '{"identity": "-----BEGIN PRIVATE');
  const broken = run(scone, ['self', 'show'], env);
  assert.match(broken.stderr, /FILE_INVALID/);
  assert.doesNotMatch(broken.stderr, /PRIVATE/);
});

test('a CAS that is not there, and an address that is none', () => {
  const down = run(executables().scone, ['cas', 'attest', 'localhost:1'], stack.env);
  assert.equal(down.status, 69);
  assert.match(down.stderr, /cannot reach the CAS at localhost:1: connection refused/);
  assert.equal(run(executables().scone, ['cas', 'attest', 'a b'], stack.env).status, 78);
});
