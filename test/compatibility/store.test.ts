import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { codeFrom, newSharedSecret } from '../launcher/support.ts';
import { type Engine, onEachEngine } from '../support/engines.ts';
import { run } from '../support/stack.ts';
import { type Host, measurementOf, startHost } from './host.ts';
import { type Build, missingRelease, present, release } from './release.ts';

const FORMATS = {
  ascii: '',
  binary: ':hex',
  key: ':pem',
  rsa: ':pem',
  public: ':pem',
  ca: ':crt',
  certificate: ':chain',
  shared: '',
  pgp: ':publickey:asciiarmored',
  token: '',
} as const;

const sessions = [
  `name: exporting
version: "0.3.10"
secrets: [{name: theirs, kind: ascii, size: 30, export: {session: kept}}]
`,
  `name: kept
version: "0.3.10"
security: {attestation: {tolerate: [debug-mode]}}
services:
  - name: main
    image_name: image
    mrenclaves: [MEASUREMENTS]
    command: [envcas, '-c', 'cat "$0"; printenv WORD', "FILE"]
    environment: {WORD: $$SCONE::ascii$$}
images:
  - name: image
    injection_files:
      - path: /etc/envcas/config.yaml
        content: '{program: /bin/sh, injection_files: [{from: /all, to: "FILE"}]}'
      - path: /all
        content: |
          ${Object.entries(FORMATS)
            .map(([name, format]) => `$$SCONE::${name}${format}$$`)
            .join('\n          ')}
secrets:
  - {name: ascii, kind: ascii, size: 40}
  - {name: binary, kind: binary, size: 40}
  - {name: key, kind: private-key}
  - {name: rsa, kind: private-key, key_type: RSA-2048}
  - {name: public, kind: public-key, private_key: key}
  - {name: ca_key, kind: private-key, key_type: P-384}
  - {name: ca, kind: x509-ca, private_key: ca_key}
  - {name: certificate, kind: x509, private_key: key, issuer: ca, valid_for: 90 days, dns: [localhost]}
  - {name: pgp, kind: pgp-key}
  - {name: token, kind: jwt, signer: ca_key, alg: ES384, validity: {for: 24h}, payload: {iss: here}}
  - {name: shared, import: {session: exporting, secret: theirs}}
`,
];
const numbers = (count: number) => Array.from({ length: count }, (_, index) => index);
/** More of most things than is taken at upload by now. */
const large = (measurements: string[]) => `name: large
version: "0.3.10"
access_policy: {read: [CREATOR, ${numbers(300).map((number) => `$$SCONE::key${number}$$`)}]}
security: {attestation: {tolerate: [debug-mode]}}
services:
  - name: main
    image_name: image
    attestation: [${numbers(2001).map(() => `{mrenclave: ${'ab'.repeat(32)}}`)}, {mrenclave: [${measurements}]}]
    command: [envcas, done]
images:
  - name: image
    injection_files: [{path: /etc/envcas/config.yaml, content: 'program: /bin/echo'}]
  ${numbers(2001)
    .map((number) => `- {name: image${number}}`)
    .join('\n  ')}
secrets: [${numbers(300).map((number) => `{name: key${number}, kind: ascii, value: CREATOR}`)}]
`;
const withCode = (secret: string) => `name: code
version: "0.3.10"
security: {attestation: {mode: none, one_time_password_shared_secret: ${secret}}}
services: [{name: main, image_name: image, command: [envcas, done]}]
images:
  - name: image
    injection_files: [{path: /etc/envcas/config.yaml, content: 'program: /bin/echo'}]
`;

const launch = (host: Host, launcher: Build, id: string) =>
  run(launcher.envcas, [], { ...host.env, SCONE_CONFIG_ID: id });

/** All secrets of the session, as a program gets them. */
function released(host: Host, launcher: Build): string {
  const { status, stdout, stderr } = launch(host, launcher, 'kept/main');
  assert.equal(status, 0, stderr);
  assert.ok(stdout.length > 3000, stdout);
  return stdout;
}

const attest = (host: Host, build: Build) =>
  host.scone(
    build,
    ...['cas', 'attest', `127.0.0.1:${host.cas.apiPort}`, ...host.trust, '-c', host.cas.key],
    ...(build === present ? ['--run-as', `uid:${process.getuid?.()}`] : []),
  );

/** Makes somebody the owner, who tells what he does to a CAS of the release by its own programs. */
function own(host: Host): void {
  const [, token = ''] = /^CAS provisioning token: (\w+)$/m.exec(host.cas.server.output()) ?? [];
  host.scone(
    release,
    ...['cas', 'provision', `127.0.0.1:${host.cas.apiPort}`, 'with-attestation', ...host.trust],
    ...['-c', host.cas.key, '--token-file', host.file('token', token)],
    ...['--config-file', host.file('owner.toml', '[api_identity]\ncommon_name = "cas"\n')],
  );
}

function uploadAll(host: Host, secret: string): void {
  const file = join(host.files, 'written');
  const measurements = [present, release].map(({ envcas }) => measurementOf(envcas));
  for (const text of [...sessions, withCode(secret), large(measurements)])
    host.scone(
      release,
      ...[
        'session',
        'create',
        host.file('session.yaml', text.replaceAll('FILE', file).replace('MEASUREMENTS', measurements.join())),
      ],
    );
}

/** Verifies a copy of the audit log with what the CAS says now, by both versions. */
function verify(host: Host, copy: string, status: 0 | 14): void {
  for (const build of [present, release]) {
    const result = host.tryScone(build, 'cas', 'attest-audit-log', copy);
    assert.equal(result.status, status, result.stdout + result.stderr);
  }
}

onEachEngine('a store of the release', (engine: Engine) => {
  const skip = { skip: missingRelease };

  test(
    'is gone on with by the present version, and by the release again, with all that is in it',
    skip,
    async () => {
      const store = await engine.address();
      const host = await startHost({ cas: release, las: present }, '--store', store);
      const { key } = host.cas;
      attest(host, release);
      own(host);
      const secret = newSharedSecret();
      uploadAll(host, secret);
      const secrets = released(host, release);
      const used = codeFrom(secret);
      assert.equal(launch(host, release, `code/main@${used}`).stdout, 'done\n');
      host.scone(release, 'cas', 'register-backup', `127.0.0.1:${host.cas.apiPort}`, ...host.trust);
      const before = join(host.files, 'before.log');
      host.scone(release, '-o', before, 'cas', 'read-audit-log');
      const history = host.scone(release, 'session', 'history', 'kept');

      let names = 'code\nexporting\nkept\nlarge\n';
      for (const [round, cas] of [present, release, present].entries()) {
        await host.restart(cas, '--store', store);
        assert.equal(host.cas.key, key);
        for (const launcher of [present, release]) {
          assert.equal(released(host, launcher), secrets);
          assert.equal(launch(host, launcher, 'large/main').stdout, 'done\n');
        }
        assert.match(launch(host, present, `code/main@${used}`).stderr, /^Code: OTP_USED,/m);
        assert.equal(host.scone(cas, 'session', 'history', 'kept'), history);
        assert.match(host.scone(cas, 'session', 'read', 'large'), /^name: large$/m);
        host.scone(
          cas,
          'session',
          'create',
          host.file('more.yaml', `name: round-${round}\nversion: "0.3"\n`),
        );
        names += `round-${round}\n`;
        assert.equal(host.scone(cas, 'session', 'list'), names);
        const log = join(host.files, `${round}.log`);
        host.scone(cas, '-o', log, 'cas', 'read-audit-log');
        verify(host, log, 0);
        verify(host, before, 14);
      }
      assert.match(
        host.scone(present, 'cas', 'list-registrations'),
        / gives nothing: register it anew, with --run-as\n$/,
      );
      await host.cas.server.stop();
      for (const build of [present, release])
        assert.match(
          host.scone(build, 'cas', 'check-store', '--dir', join(host.folder, 'cas'), '--store', store),
          /^All \d+ rows of .+ are as they were written$/m,
        );
    },
  );

  test('its backups are put back by the present version, while it runs and before', skip, async () => {
    const store = await engine.address();
    const host = await startHost({ cas: release, las: present }, '--store', store);
    attest(host, release);
    own(host);
    uploadAll(host, newSharedSecret());
    const secrets = released(host, release);
    const backup = join(host.files, 'backup');
    host.scone(release, 'cas', 'backup', backup);

    await host.restart(present, '--store', store);
    host.scone(present, 'session', 'create', host.file('mistake.yaml', 'name: mistake\nversion: "0.3"\n'));
    host.scone(present, 'session', 'list');
    assert.match(host.tryScone(present, 'cas', 'restore', backup).stderr, /^Code: BACKUP_WITHOUT_CODE,/m);
    const listed = host.tryScone(present, 'cas', 'restore', backup, '--without-code');
    assert.match(listed.stderr, /changes neither seal, identity, owner nor registrations[\s\S]* say --yes/);
    host.scone(present, 'cas', 'restore', backup, '--without-code', '--yes');
    assert.match(host.tryScone(present, 'cas', 'show-config').stderr, /^Code: CAS_RESTORED,/m);
    attest(host, present);
    assert.equal(host.scone(present, 'session', 'list'), 'code\nexporting\nkept\nlarge\n');
    assert.equal(released(host, release), secrets);

    const other = await engine.address();
    const cas = join(host.folder, 'cas');
    const into = ['--dir', cas, '--store', other, '--without-code'];
    const brought = host.tryScone(present, 'cas', 'restore', backup, ...into);
    assert.match(
      brought.stderr,
      /\+ seal: opens by file\n[\s\S]*\+ identity: [\s\S]*\+ owner: [\s\S]* say --yes/,
    );
    host.scone(present, 'cas', 'restore', backup, ...into, '--yes');
    await host.restart(present, '--store', other);
    attest(host, present);
    assert.equal(released(host, present), secrets);
    const log = join(host.files, 'restored.log');
    host.scone(present, '-o', log, 'cas', 'read-audit-log');
    verify(host, log, 0);

    // Who goes back restores by the release what the present version has made, which that goes on with.
    const newer = join(host.files, 'newer');
    host.scone(present, 'cas', 'backup', newer);
    const third = await engine.address();
    host.scone(release, 'cas', 'restore', newer, '--dir', cas, '--store', third);
    const early = host.tryScone(present, 'cas', 'serve', '--dir', cas, '--store', third, '--api-port', '0');
    assert.match(early.stderr, /^Code: RESTORE_UNFINISHED,/m);
    for (const build of [release, present]) {
      await host.restart(build, '--store', third);
      attest(host, build);
      assert.equal(released(host, build), secrets);
    }
    host.scone(present, 'cas', 'backup', join(host.files, 'newest'));
    await host.cas.server.stop();
    host.scone(present, 'cas', 'check-store', '--dir', cas, '--store', third);
    const fourth = ['--dir', cas, '--store', await engine.address()];
    host.scone(present, 'cas', 'restore', join(host.files, 'newest'), ...fourth);
    host.scone(present, 'cas', 'check-store', ...fourth);
  });
});
