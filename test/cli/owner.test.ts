import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { RUN_AS_OF_CAS } from '../../src/attestation/credentials.ts';
import { runAsOf } from '../../src/cli/attest.ts';
import { freePorts } from '../support/port.ts';
import { type Apart, executables, run, startApart, startServer } from '../support/stack.ts';

/** A CAS that runs as this user, and whoever owns it. */
let host: Apart;
before(async () => {
  host = await startApart();
  host.env.TPM2TOOLS_TCTI = `device:${file('none')}`;
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

test('an owner is named by a key hash, in a configuration too', () => {
  writeFileSync(file('owners.json'), '{"owners": [1]}');
  const { status, stderr } = cas('update-config', '--config-file', file('owners.json'));
  assert.equal(status, 65);
  assert.match(stderr, /owners\.0 is no key hash, as `scone self show-key-hash` prints it/);
});

test('a CAS that seals its store by a key file says so', () => {
  assert.match(
    host.cas.output(),
    /master\.key","msg":"the store was sealed now, and opens by this key file alone"/,
  );
});

test('registers of a TPM are those of its SHA-256 bank, whether that is said or not', () => {
  const init = (registers: string) => cas('init', '--dir', file('tpm'), '--tpm', registers);
  for (const wrong of ['sha1:7', '7,', 'seven']) {
    const { status, stderr } = init(wrong);
    assert.equal(status, 64);
    assert.match(stderr, /Registers of the SHA-256 bank are wanted/);
  }
  for (const right of ['7', '0,7', 'sha256:7']) assert.match(init(right).stderr, /Code: TPM_UNUSABLE/);
});

test('a sealed CAS says where it is opened from elsewhere, and does not ask itself', async () => {
  const port = await freePorts(1);
  const dir = ['--dir', file('sealed')];
  assert.equal(cas('init', ...dir, '--shares', '2/3').status, 0);
  const key = host.env.SCONE_CAS_KEY;
  const server = await startServer(
    executables().scone,
    [
      ...['cas', 'serve', ...dir, '--host', '0.0.0.0', '--api-port', String(port)],
      ...['--unseal-from', `${hostname()}:${port}=${key}`],
    ],
    /^CAS is sealed[\s\S]*?^To open it: (.*)$/m,
    { env: host.env },
  );
  await server.stop();
  assert.equal(server.match[1], `scone cas unseal ${hostname()}:${port}`);
  assert.doesNotMatch(server.match[0], /^ /m);
});

test('a CAS whose store was keyed anew says so, and that it is to be started again', async () => {
  const rekeyed = cas('rekey', '--dir', join(host.directory, 'cas'), '--new-key-file', file('new.key'));
  assert.equal(rekeyed.status, 0, rekeyed.stderr);
  const { status, stderr } = cas('rotate');
  assert.equal(status, 75);
  assert.match(stderr, /keyed anew since[\s\S]*Start the CAS again[\s\S]*Code: STORE_REKEYED/);
});
