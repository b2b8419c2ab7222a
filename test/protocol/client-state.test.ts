import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { Failure } from '../../src/errors.ts';
import {
  clientStatePath,
  pinnedKey,
  readClientState,
  updateClientState,
} from '../../src/protocol/client-state.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { nameless } from '../support/stack.ts';

const home = temporaryFolder();
const path = join(home, 'config.json');
const env = { SCONE_CLI_CONFIG: path };

function write(content: string, mode = 0o600) {
  rmSync(path, { force: true });
  writeFileSync(path, content);
  chmodSync(path, mode);
}

test('it is where SCONE_CLI_CONFIG says, else below the home folder', () => {
  assert.equal(clientStatePath(env), path);
  assert.equal(clientStatePath({ HOME: '/h' }), '/h/.cas/config.json');
  assert.equal(clientStatePath({ HOME: '/h', SCONE_CLI_CONFIG: '' }), '/h/.cas/config.json');
});

test('without HOME it is below the home folder that the system knows', { skip: nameless }, () => {
  assert.equal(clientStatePath({ HOME: '' }), join(userInfo().homedir, '.cas/config.json'));
});

test('of a user whom the system does not know it is below /', {
  skip: process.getuid?.() !== 0 && 'only root can be another user',
}, () => {
  process.seteuid?.(4_000_000);
  try {
    assert.equal(clientStatePath({}), '/.cas/config.json');
  } finally {
    process.seteuid?.(0);
  }
});

test('without a file nothing is remembered', () => {
  assert.deepEqual(readClientState({ HOME: join(home, 'nobody') }), { cas_db: {} });
});

test('what is written is read again, keys of other programs included, and only by its owner', () => {
  const HOME = join(home, 'user');
  const state = {
    default_cas: 'cas',
    identity: 'PEM',
    cas_db: { cas: { url: 'https://cas:8081', chain: 'PEM', enclave: 'cas:1', ias_report: { body: 'x' } } },
    session_signing_keypair_ed25519_seed: 'seed',
  };
  updateClientState({ HOME }, () => state);
  assert.deepEqual(
    updateClientState({ HOME }, (before) => before),
    state,
  );
  assert.deepEqual(readClientState({ HOME }), state);
  assert.deepEqual(readdirSync(join(HOME, '.cas')).sort(), ['config.json', 'config.json.lock']);
  assert.equal(statSync(join(HOME, '.cas')).mode & 0o777, 0o700);
  assert.equal(statSync(join(HOME, '.cas', 'config.json')).mode & 0o777, 0o600);
});

test('a file that others may read is refused', () => {
  for (const mode of [0o640, 0o604, 0o620, 0o601, 0o666]) {
    write('{}', mode);
    assert.throws(() => readClientState(env), { code: 'STATE_UNUSABLE', message: /its mode must be 0600$/ });
  }
  for (const mode of [0o600, 0o400]) {
    write('{}', mode);
    assert.deepEqual(readClientState(env), { cas_db: {} });
  }
});

const secret = '-----BEGIN PRIVATE KEY----- hunter2';
const broken: [what: string, content: string, message: RegExp][] = [
  ['nothing', '', /it is not JSON$/],
  ['not JSON', `{"identity": "${secret}"`, /it is not JSON$/],
  ['a PEM file', secret, /it is not JSON$/],
  ['an identity that is no text', `{"identity": ["${secret}"]}`, /unexpected value at identity$/],
  ['a CAS without chain', `{"identity": "${secret}", "cas_db": {"c": {"url": "u"}}}`, /at cas_db\.c\.chain$/],
  ['a CAS that is a text', `{"cas_db": {"c": "${secret}"}}`, /unexpected value at cas_db\.c$/],
];
for (const [what, content, message] of broken)
  test(`a file that holds ${what} is refused, and not quoted`, () => {
    write(content);
    assert.throws(
      () => readClientState(env),
      (error) => {
        assert.ok(error instanceof Failure);
        assert.equal(error.code, 'FILE_INVALID');
        assert.match(error.message, message);
        assert.equal(inspect(error, { depth: null, showHidden: true }).includes('hunter2'), false);
        return true;
      },
    );
  });

test('a file that holds no mapping is refused in words', () => {
  for (const content of ['5', 'null', `"${secret}"`, '[]']) {
    write(content);
    assert.throws(() => readClientState(env), { code: 'FILE_INVALID', message: /^(?!.*at null)/ }, content);
  }
});

test('no key is pinned for a CAS that is not known', () => {
  write('{"cas_db": {"c": {"url": "u", "chain": "", "enclave": "[::1]:5"}}}');
  assert.equal(pinnedKey(env, { host: '::1', port: 6 }), undefined);
});

test('a folder in place of the file is told', () => {
  const folder = join(home, 'folder');
  mkdirSync(folder, { mode: 0o700 });
  assert.throws(() => readClientState({ SCONE_CLI_CONFIG: folder }), {
    code: 'STATE_UNUSABLE',
    message: /directory/,
  });
});

test('a chain that is no certificate is told as an invalid file', () => {
  write('{"cas_db": {"c": {"url": "u", "chain": "x", "enclave": "h:5"}}}');
  assert.throws(() => pinnedKey(env, { host: 'h', port: 5 }), { code: 'FILE_INVALID' });
});
