import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { RUN_AS_OF_CAS } from '../../src/attestation/credentials.ts';
import { runAsOf } from '../../src/cli/attest.ts';
import { type Apart, executables, run, startApart } from '../support/stack.ts';

/** A CAS that runs as this user, and whoever owns it. */
let host: Apart;
before(async () => {
  host = await startApart();
  writeFileSync(file('owner.toml'), '[api_identity]\ncommon_name = "cas"\n');
  const [, token = ''] = /^CAS provisioning token: (\w+)$/m.exec(host.cas.output()) ?? [];
  writeFileSync(file('token'), token, { mode: 0o600 });
});

const file = (name: string) => join(host.files, name);
const cas = (...args: string[]) => run(executables().scone, ['cas', ...args], host.env);
const trustAny = ['trust-any', 'debug', 'ignore-signer'].map((each) => `--only_for_testing-${each}`);
const ownUser = `uid:${process.getuid?.()}`;
const otherUser = ['--run-as', 'uid:4321'];

test('a CAS that is attested needs no key hash to be provisioned; one that is not, does', () => {
  const files = ['--config-file', file('owner.toml'), '--token-file', file('token')];
  const unknown = cas('provision', 'localhost', 'only_for_testing-without-attestation', ...files);
  assert.equal(unknown.status, 64);
  assert.match(unknown.stderr, /is known by its key alone: name it with -c/);
  const owned = cas('provision', 'localhost', 'with-attestation', ...trustAny, ...files);
  assert.equal(owned.status, 0, owned.stderr);
  assert.match(owned.stdout, /^You own the CAS localhost; its configuration has version 1$/m);
});

test('whoever trusts any CAS takes it as whom it runs, unless he says as whom', () => {
  assert.equal(cas('attest', 'localhost', ...trustAny).status, 0);
  assert.equal(cas('attest', 'localhost', ...trustAny, '--run-as', ownUser).status, 0);
  for (const command of ['attest', 'unseal', 'register-backup', 'register-upgrade']) {
    const { status, stderr } = cas(command, 'localhost', ...trustAny, ...otherUser);
    assert.equal(status, 77, command);
    assert.match(stderr, /where uid:4321 is expected/);
  }
});

test('a CAS is registered as whom it is expected to run, or as whom it runs where any is trusted', () => {
  const whom = process.getuid?.() === 0 ? 'uid:0 or unit:envcas-cas.service' : ownUser;
  for (const kind of ['backup', 'upgrade'])
    assert.match(
      cas(`register-${kind}`, 'localhost', ...trustAny).stdout,
      new RegExp(`may be given the root key of localhost, while it runs as ${whom}\n`),
    );
  const named = cas('register-backup', 'localhost', ...trustAny, ...otherUser, '--run-as', ownUser);
  assert.match(named.stdout, new RegExp(`while it runs as uid:4321 or ${ownUser}\n`));
  const ids = { real: 7, effective: 7, saved: 7 };
  const another = { credentials: { uid: ids, gid: ids } };
  assert.deepEqual(runAsOf({ only_for_testingTrustAny: true }, another), ['uid:7']);
  assert.deepEqual(runAsOf({}, another), RUN_AS_OF_CAS);
});

test('a CAS that is open already is given nothing', () => {
  const { status, stdout, stderr } = cas('unseal', 'localhost', ...trustAny, '--secret-file', file('none'));
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^The CAS at localhost:\d+ is open already$/m);
});

test('a CAS whose store was keyed anew says so, and that it is to be started again', async () => {
  const rekeyed = cas('rekey', '--dir', join(host.directory, 'cas'), '--new-key-file', file('new.key'));
  assert.equal(rekeyed.status, 0, rekeyed.stderr);
  const { status, stderr } = cas('rotate');
  assert.equal(status, 75);
  assert.match(stderr, /keyed anew since[\s\S]*Start the CAS again[\s\S]*Code: STORE_REKEYED/);
});
