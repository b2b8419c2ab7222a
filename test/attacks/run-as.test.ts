import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { chmodSync, chownSync, copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setOwnProcessName } from '../../src/platform/libc.ts';
import { credentialsOf, tracer } from '../../src/platform/process.ts';
import { formatAddress, parseAddress } from '../../src/policy/address.ts';
import { sha256 } from '../las/host.ts';
import { type RunningCas, run } from '../support/stack.ts';
import { until } from '../support/until.ts';
import { ATTACKER, AttackedHost, as, CAS_USER, noHost, processesOf, readMemory } from './host.ts';

/** Of the launcher alone. */
const GROUP = 61003;

/** An ordinary user starts the genuine program, and would read what it is given. */
describe('an ordinary user of the host', { skip: noHost }, () => {
  const host = noHost ? undefined : new AttackedHost();
  const on = (): AttackedHost => host as AttackedHost;
  let cas: RunningCas;
  const runAs = ['--run-as', `uid:${CAS_USER}`];
  before(async () => {
    await on().start();
    cas = await on().cas(CAS_USER, on().folderOf(CAS_USER, 'cas'));
    on().own(cas, ...runAs);
  });
  after(() => host?.stop());
  const source = () => `127.0.0.1:${cas.apiPort}=${cas.key}`;

  test('is given no root key by a CAS of his own on a host where one is registered', async () => {
    const standby = await on().closedCas(CAS_USER, on().folderOf(CAS_USER, 'standby'));
    on().ask('cas', 'register-backup', standby.address, ...on().trust, ...runAs);
    assert.match(on().ask('cas', 'list-registrations'), new RegExp(` uid:${CAS_USER}$`, 'm'));

    const own = on().folderOf(ATTACKER, 'own');
    const { server } = await on().closedCas(ATTACKER, own, '--unseal-from', source());
    assert.match(
      server.output(),
      new RegExp(`it runs as uid:${ATTACKER}, where uid:${CAS_USER} is expected`),
    );
    const refused = on()
      .entries()
      .filter(({ code }) => code === 'RUN_AS_UNEXPECTED');
    const { credentials } = refused[0] as { credentials: { uid: object } };
    assert.deepEqual(credentials.uid, { real: ATTACKER, effective: ATTACKER, saved: ATTACKER });

    // Whoever was registered is given it, and shows nothing of it.
    await standby.server.stop();
    const again = await on().closedCas(CAS_USER, on().folderOf(CAS_USER, 'again'), '--unseal-from', source());
    await until(
      () =>
        on()
          .entries()
          .some(({ operation }) => operation === 'root_key_released'),
      'a root key',
    );
    for (const pid of processesOf(again.server)) {
      assert.equal(readMemory(ATTACKER, pid), 'EACCES');
      assert.equal(readMemory(CAS_USER, pid), 'EACCES');
    }
  });

  test('is given no share', async () => {
    const { server, address, shares } = await on().closedCas(ATTACKER, on().folderOf(ATTACKER, 'sealed'));
    const file = join(on().folder, 'owner/share');
    writeFileSync(file, shares[0] ?? '', { mode: 0o600 });
    for (const whom of [[], runAs]) {
      const { status, stderr } = on().run(
        ...['cas', 'unseal', address, ...on().trust, ...whom],
        ...['--share', '--secret-file', file],
      );
      assert.equal(status, 77, stderr);
      assert.match(stderr, new RegExp(`it runs as uid:${ATTACKER}, where uid:.* is expected`));
    }
    assert.match(server.output(), /CAS is sealed/);
    const named = on().run(
      'cas',
      'unseal',
      address,
      ...on().trust,
      '--run-as',
      `uid:${ATTACKER}`,
      '--secret-file',
      file,
    );
    assert.match(named.stdout, /^1 of 2 shares are there/, named.stderr);
  });

  test('has no CAS that is called trustworthy', async () => {
    const { apiPort } = await on().cas(ATTACKER, on().folderOf(ATTACKER, 'impostor'));
    const address = formatAddress(parseAddress(`127.0.0.1:${apiPort}`, 0, 'it'));
    for (const whom of [[], runAs, ['--run-as', 'user:root'], ['--run-as', 'unit:envcas-cas.service']]) {
      const { status, stderr } = on().run('cas', 'attest', address, ...on().trust, ...whom);
      assert.equal(status, 77, stderr);
      assert.match(stderr, /it runs as uid:61002, where .* is expected\n(.*\n)*Code: CAS_NOT_TRUSTWORTHY,/);
    }
  });

  test('starts no service that is for another user, though the launcher is installed and the program checked', async () => {
    const installed = join(on().folder, 'bin/installed');
    copyFileSync(on().envcas, installed);
    chownSync(installed, 0, GROUP);
    chmodSync(installed, 0o2755);
    const program = readFileSync('/usr/bin/env');
    const session = (name: string, whom: string) => `
name: ${name}
version: "0.3.10"
security: {attestation: {tolerate: [debug-mode], require: [secure-execution, root-owned-code]}}
services:
  - name: main
    image_name: image
    command: [envcas]
    pwd: /
    environment: {PASSWORD: $$SCONE::password$$}
    attestation: [{mrenclave: ${sha256(installed)}, run_as: ${whom}}]
images:
  - name: image
    injection_files:
      - path: /etc/envcas/config.yaml
        content: '{program: /usr/bin/env, sha256: ${createHash('sha256').update(program).digest('hex')}}'
secrets: [{name: password, kind: ascii, size: 12}]
`;
    const launch = (user: number, configId: string) =>
      run('setpriv', [...as(user), installed], {
        ...{ PATH: process.env.PATH, ...cas.settings, SCONE_LAS_ADDR: on().las, SCONE_CONFIG_ID: configId },
      });
    const create = (text: string) => {
      const file = join(on().folder, 'owner/session.yaml');
      writeFileSync(file, text);
      on().ask('session', 'create', file);
    };
    create(session('open', `[uid:${CAS_USER}, uid:${ATTACKER}]`));
    assert.match(launch(ATTACKER, 'open/main').stdout, /^PASSWORD=.{12}$/m);

    create(session('closed', `[uid:${CAS_USER}, "unit:shop.service"]`));
    const { status, stdout, stderr } = launch(ATTACKER, 'closed/main');
    assert.deepEqual({ status, stdout }, { status: 77, stdout: '' });
    const expected = `uid:${CAS_USER} or unit:shop.service`;
    assert.match(stderr, new RegExp(`it runs as uid:${ATTACKER}, where ${expected} is expected`));
    assert.match(launch(CAS_USER, 'closed/main').stdout, /^PASSWORD=.{12}$/m);
    const [refused] = on()
      .entries()
      .filter(({ session, code }) => session === 'closed' && code === 'RUN_AS_UNEXPECTED');
    assert.match(JSON.stringify(refused), new RegExp(`"uid":\\{"real":${ATTACKER},`));

    create(session('by-name', 'user:root'));
    assert.equal(launch(CAS_USER, 'by-name/main').status, 77);
    assert.match(launch(0, 'by-name/main').stdout, /^PASSWORD=.{12}$/m);
  });

  test('cannot read what a CAS or a LAS has in memory, nor can their own users', async () => {
    for (const pid of processesOf(cas.server))
      for (const user of [ATTACKER, CAS_USER]) assert.equal(readMemory(user, pid), 'EACCES');
  });
});

test('nobody is another user, or traced by nobody, by a name that looks like what the kernel says of him', () => {
  const [own] = readFileSync('/proc/self/comm', 'utf8').split('\n');
  const { uid, gid } = credentialsOf(process.pid);
  assert.equal(uid.real, process.getuid?.());
  try {
    for (const line of ['Uid:\t7\t7\t7\t', 'Gid:\t7\t7\t7\t', 'TracerPid:\t7'])
      for (const before of ['\r', '\n', '\t', '\v', '\f', '\u2028', '']) {
        setOwnProcessName(`${before}${line}`);
        assert.deepEqual([credentialsOf(process.pid), tracer(process.pid)], [{ uid, gid }, 0], line);
      }
  } finally {
    setOwnProcessName(own ?? '');
  }
});
