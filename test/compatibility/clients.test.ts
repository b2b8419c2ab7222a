import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { type Host, measurementOf, startHost } from './host.ts';
import { type Build, missingRelease, present, release } from './release.ts';

const OTP = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
const text = (name: string, launcher: Build, more = '') => `name: ${name}
version: "0.3.10"
access_policy: {read: ANY}
security: {attestation: {tolerate: [debug-mode]}}
services:
  - name: main
    attestation: {mrenclave: ${measurementOf(launcher.envcas)}, one_time_password_shared_secret: ${OTP}}
secrets: [{name: token, kind: ascii, size: 20}]
${more}`;

/** What the user of a CAS does, from the first connection on, by the programs of one version. */
function uses(host: Host, user: Build): void {
  const scone = (...args: string[]) => host.scone(user, ...args);
  const file = host.file('first.yaml', text('first', user));
  const hash = scone('session', 'create', file);
  assert.match(hash, /^[0-9a-f]{64}\n$/);
  assert.equal(scone('session', 'verify', file), hash);
  assert.equal(scone('session', 'read', '--hash', 'first'), hash);
  assert.equal(scone('session', 'read', 'first'), text('first', user));
  const next = scone(
    'session',
    'update',
    host.file('second.yaml', text('first', user, 'salt: 0123456789abcdef0123456789abcdef\n')),
  );
  assert.notEqual(next, hash);
  assert.equal(scone('session', 'read', '--version-hash', hash.trim(), 'first'), text('first', user));
  assert.match(scone('session', 'history', 'first'), /^version 2 .*\n(.*\n)+version 1 /m);
  assert.match(scone('session', 'explain', 'first/main'), /one-time password/);
  assert.match(scone('otp', 'show', 'first/main'), new RegExp(OTP));
  const signed = join(host.files, 'signed.json');
  scone('session', 'sign', host.file('signed.yaml', text('signed', user)), '-o', signed);
  assert.match(scone('session', 'create', signed), /^[0-9a-f]{64}\n$/);
  const encrypted = join(host.files, 'encrypted.jwe');
  scone('session', 'encrypt', host.file('encrypted.yaml', text('encrypted', user)), '-o', encrypted);
  assert.match(scone('session', 'create', encrypted), /^[0-9a-f]{64}\n$/);
  assert.equal(scone('session', 'list'), 'encrypted\nfirst\nsigned\n');
  const stale = host.tryScone(user, 'session', 'create', file);
  assert.match(stale.stderr, /^Code: SESSION_EXISTS,/m);
}

/** What the owner of a CAS does. */
function owns(host: Host, user: Build, whom: string[]): void {
  const scone = (...args: string[]) => host.scone(user, ...args);
  const address = `127.0.0.1:${host.cas.apiPort}`;
  const trust = [...host.trust, ...whom];
  const [, token = ''] = /^CAS provisioning token: (\w+)$/m.exec(host.cas.server.output()) ?? [];
  const files = [
    ...['--config-file', host.file('owner.toml', '[api_identity]\ncommon_name = "cas"\n')],
    ...['--token-file', host.file('token', token)],
  ];
  scone('cas', 'provision', address, 'with-attestation', ...trust, '-c', host.cas.key, ...files);
  assert.match(scone('cas', 'show-config'), /"common_name": "cas"/);
  const changed = host.file('changed.toml', '[api_identity]\ncommon_name = "changed"\n');
  scone('cas', 'update-config', '--config-file', changed);
  assert.match(scone('cas', 'show-config'), /"common_name": "changed"/);
  scone('cas', 'rotate');
  const log = join(host.files, 'audit.log');
  scone('-o', log, 'cas', 'read-audit-log');
  assert.match(scone('cas', 'verify-audit-log', log), /The log is whole/);
  assert.match(scone('cas', 'attest-audit-log', log), /The log is whole/);
  const backup = join(host.files, 'backup');
  scone('cas', 'backup', backup);
  scone('session', 'create', host.file('mistake.yaml', text('mistake', user)));
  // From here on the mistake is remembered.
  scone('session', 'list');
  scone('cas', 'restore', backup);
  assert.match(host.tryScone(user, 'cas', 'show-config').stderr, /^Code: CAS_RESTORED,/m);
  scone('cas', 'attest', address, ...trust);
  assert.match(host.tryScone(user, 'session', 'read', 'mistake').stderr, /^Code: SESSION_NOT_FOUND,/m);
}

const runAs = ['--run-as', `uid:${process.getuid?.()}`];

describe('scone of one version, and a CAS of another', { skip: missingRelease }, () => {
  test('scone of the release is all that a user and an owner of a present CAS need', async () => {
    const host = await startHost({ cas: present, las: release });
    const address = `127.0.0.1:${host.cas.apiPort}`;
    assert.match(host.scone(release, 'cas', 'attest', address, ...host.trust), /is trustworthy/);
    uses(host, release);
    // Whoever has known the CAS by the release goes on with the present version, and may go back.
    assert.match(host.scone(present, 'session', 'read', 'first'), /^name: first$/m);
    owns(host, release, []);
    host.scone(release, 'cas', 'register-backup', address, ...host.trust);
    host.scone(release, 'cas', 'register-upgrade', address, ...host.trust);
    assert.match(host.scone(release, 'cas', 'list-registrations'), /^\w+ {2}backup .*\n\w+ {2}upgrade /);
    // A command that does not say as whom the CAS runs means the usual ones.
    assert.match(host.scone(present, 'cas', 'list-registrations'), / uid:0 or unit:envcas-cas\.service\n/);
    await host.stop();
  });

  test('scone of the release does not mind what a present LAS says beside', async () => {
    const host = await startHost({ cas: present, las: present });
    const address = `127.0.0.1:${host.cas.apiPort}`;
    assert.match(host.scone(release, 'cas', 'attest', address, ...host.trust), /is trustworthy/);
    await host.stop();
  });

  test('the present scone is all that a user and an owner of a CAS of the release need, but for registrations', async () => {
    const host = await startHost({ cas: release, las: present });
    const address = `127.0.0.1:${host.cas.apiPort}`;
    const attested = host.scone(present, 'cas', 'attest', address, ...host.trust, ...runAs);
    assert.match(attested, new RegExp(`^Runs as: uid:${process.getuid?.()}`, 'm'));
    uses(host, present);
    assert.match(host.scone(release, 'session', 'read', 'first'), /^name: first$/m);
    owns(host, present, runAs);
    // What the release does not have is said, and nothing else done in its place.
    for (const command of [
      ['register-backup', address, ...host.trust, ...runAs],
      ['register-upgrade', address, ...host.trust, ...runAs],
      ['remove-tpm', `TPM_EK:${'ab'.repeat(32)}`],
    ]) {
      const { status, stderr } = host.tryScone(present, 'cas', ...command);
      assert.match(
        stderr,
        /\nHint: .*an older CAS may not have this one\.\nCode: PATH_UNKNOWN, exit status 76\n$/,
      );
      assert.equal(status, 76);
    }
    assert.match(host.scone(present, 'cas', 'list-registrations'), /^No other CAS/);
    host.scone(release, 'cas', 'register-backup', address, ...host.trust);
    assert.match(
      host.scone(present, 'cas', 'list-registrations'),
      / gives nothing: register it anew, with --run-as\n$/,
    );
    await host.stop();
  });

  for (const cas of [present, release])
    test(`the present scone, a CAS of ${cas.version}, and a LAS that does not say as whom it runs`, async () => {
      const host = await startHost({ cas, las: release });
      const address = `127.0.0.1:${host.cas.apiPort}`;
      for (const whom of [[], runAs]) {
        const { status, stderr } = host.tryScone(present, 'cas', 'attest', address, ...host.trust, ...whom);
        assert.equal(status, 77, stderr);
        assert.match(stderr, /its LAS, of an older version, does not say: start the present one there/);
        assert.match(stderr, /\nHint: .+\nCode: CAS_NOT_TRUSTWORTHY,/);
      }
      await host.stop();
    });
});
