import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { parseSession } from '../src/policy/session.ts';
import { files, predecessors, publicSession, skip, variables } from './support/public-sessions.ts';
import { missing, type Stack, startStack } from './support/stack.ts';

describe('public session files', { skip }, () => {
  for (const file of files)
    test(`${file} is understood`, () => {
      const { session } = parseSession(publicSession(file), variables);
      assert.ok(session.name);
    });
});

/**
 * What the files say is done by a real CAS. They are for programs that are launchers themselves; here a service is
 * given a configuration for envcas, which says what program is started.
 */
describe('public session files in use', { skip: skip || missing('openssl', 'oathtool') }, () => {
  let stack: Stack;
  before(async () => {
    stack = await startStack();
  });

  function create(file: string, changes: Record<string, string> = {}, edit = (text: string) => text): string {
    const values = Object.entries({ MRENCLAVE: stack.envcasMeasurement, ...changes });
    const given = values.flatMap(([name, value]) => ['-e', `${name}=${value}`]);
    return stack.create(edit(publicSession(file)), ...given);
  }
  const program = (path: string) =>
    `\nimages:\n  - name: envcas\n    injection_files:\n      - {path: /etc/envcas/config.yaml, content: "program: ${path}"}\n`;
  /** Lets every service of a file that has no images start a program. */
  const starting = (path: string) => (text: string) =>
    text.replace(/^( +)command:/gm, '$1image_name: envcas\n$1command:') + program(path);
  /** Has the files of an image written to a folder, and then listed. */
  const writing = (folder: string) => (text: string) => {
    const paths = [...text.matchAll(/- path: +(\S+)/g)].map(([, path = '']) => path);
    const lines = [
      'program: /bin/echo',
      'injection_files:',
      ...paths.flatMap((from) => [`- from: ${from}`, `  to: ${folder}/${from.split('/').at(-1)}`]),
    ].map((line) => `\n           ${line}`);
    return text
      .replace(
        /injection_files:\n/,
        `$&       - path: /etc/envcas/config.yaml\n         content: |${lines.join('')}\n`,
      )
      .replace(/^ +fspf_.*\n/gm, '')
      .replace(/^( +)- path: +/gm, '       - path: ')
      .replace(/^ +content: \$/gm, '         content: $');
  };

  test('redis and flask share certificates: each has its own, from the one authority', () => {
    const names = { REDIS_SESSION: 'redis', FLASK_SESSION: 'flask', SCONE_FSPF_TAG: '', SCONE_FSPF_KEY: '' };
    const folder = (name: string) => {
      const path = join(stack.files, name);
      mkdirSync(path);
      return path;
    };
    const [redis, flask] = [folder('redis'), folder('flask')];
    create('flask_example/redis-template.yml', names, writing(redis));
    create('flask_example/flask-template.yml', names, writing(flask));
    for (const id of ['redis/redis', 'flask/flask_restapi']) {
      const { status, stderr } = stack.launch(id);
      assert.equal(status, 0, stderr);
    }
    const openssl = (...args: string[]) => execFileSync('openssl', args, { encoding: 'utf8' });
    openssl(
      'verify',
      '-CAfile',
      join(redis, 'ca.crt'),
      '-verify_hostname',
      'redis',
      join(redis, 'redis.crt'),
    );
    openssl('verify', '-CAfile', join(flask, 'redis-ca.crt'), join(flask, 'client.crt'));
    for (const file of ['client.crt', 'client.key'])
      assert.deepEqual(readFileSync(join(flask, file)), readFileSync(join(redis, file)));
    assert.equal(
      openssl('pkey', '-in', join(flask, 'flask.key'), '-pubout'),
      openssl('x509', '-in', join(flask, 'flask.crt'), '-pubkey', '-noout'),
    );
  });

  test('node has its certificate, ethernity one that runs out, whose key stays over an update', () => {
    const node = join(stack.files, 'node');
    mkdirSync(node);
    create('node_example/nodejs-template.yml', { NODE_SESSION: 'node' }, writing(node));
    assert.equal(stack.launch('node/app').status, 0);
    assert.match(readFileSync(join(node, 'cert.pem'), 'utf8'), /^-----BEGIN CERTIFICATE-----/);

    const folder = join(stack.files, 'ethernity');
    mkdirSync(folder);
    const measured = (text: string) => text.replace('ab'.repeat(32), stack.envcasMeasurement);
    const file = 'ethernity/etny-securelock-test.yaml.tpl';
    const read = () => {
      const { status, stderr } = stack.launch('enclave/application');
      assert.equal(status, 0, stderr);
      const ends = (name: string) =>
        execFileSync('openssl', ['x509', '-in', join(folder, name), '-noout', '-enddate', '-pubkey'], {
          encoding: 'utf8',
        });
      return {
        ca: ends('ca.pem'),
        cert: ends('cert.pem'),
        key: readFileSync(join(folder, 'key.pem'), 'utf8'),
      };
    };
    const hash = create(file, {}, (text) => measured(writing(folder)(text)));
    const first = read();
    assert.doesNotMatch(first.ca, /9999/);
    create(file, {}, (text) =>
      measured(writing(folder)(text)).replace('version:', `predecessor: ${hash}\nversion:`),
    );
    const second = read();
    const publicKey = (text: string) => text.slice(text.indexOf('-----'));
    assert.equal(publicKey(second.ca), publicKey(first.ca), 'migrate: true');
    assert.notEqual(second.key, first.key, 'migrate: false');
  });

  test('the tutorial: namespace, central policies, one-time password, access token, host arguments, attestation', () => {
    const changes = { ...predecessors, NAMESPACE: 'tutorial' };
    const tutorial = (name: string, edit?: (text: string) => string) =>
      create(`args-env-tutorial/${name}.yaml`, changes, edit);
    tutorial('namespace');
    tutorial('access_policy');
    tutorial('otp_policy');
    tutorial('access_token_policy', (text) => starting('/usr/bin/env')(text).replace('pwd: /srv', 'pwd: /'));
    tutorial('host_arguments_policy', starting('/bin/echo'));
    tutorial('attestation_policy_4', starting('/bin/echo'));

    const id = 'tutorial/host_arguments_policy/scone-print-arg-env';
    const { secret } = JSON.parse(stack.scone('otp', 'show', id, '--json'));
    // One code each for three launches: those of the step before, of this one, and of the next.
    const code = (seconds: number) =>
      execFileSync(
        'oathtool',
        ['--totp', '-b', '-N', new Date(Date.now() + seconds * 1000).toISOString(), secret],
        {
          encoding: 'utf8',
        },
      ).trim();
    const [before, now, next] = [code(-30), code(0), code(30)];

    const printed = stack.launch(`tutorial/access_token_policy/print_access_token@${before}`);
    assert.equal(printed.status, 0, printed.stderr);
    const [, token = ''] = /^ACCESS_TOKEN=(.{32})$/m.exec(printed.stdout) ?? [];
    const env = { SCONE_SERVICE_ACCESS_TOKEN: token, HOSTNAME: 'here' };
    const withoutToken = stack.launch(`${id}@${now}`, { args: ['a', 'b', 'c'] });
    assert.match(withoutToken.stderr, /ACCESS_TOKEN_MISSING/);
    const echoed = stack.launch(`${id}@${now}`, { args: ['a', 'b', 'c'], env });
    assert.equal(echoed.stdout, 'start a b c end\n', echoed.stderr);

    const attested = stack.launch(`tutorial/attestation_policy/scone-print-arg-env@${next}`, {
      args: ['a', 'b', 'c'],
      env,
    });
    assert.equal(attested.stdout, 'start a b c end\n', attested.stderr);
    const explained = JSON.parse(
      stack.scone('session', 'explain', 'tutorial/attestation_policy/scone-print-arg-env', '--json'),
    );
    assert.deepEqual(
      [explained.oneTimePassword, explained.accessToken, explained.singleton, explained.mode],
      [true, true, true, 'hardware'],
    );
  });

  test('an access token that is written in the session', () => {
    const changes = { SESSION: 'token', PREDECESSOR: '~' };
    create('args-env-tutorial/service_access_token.yaml', changes, starting('/bin/echo'));
    const token = { SCONE_SERVICE_ACCESS_TOKEN: 'j765WyMWTKksiqWbBuuc' };
    assert.equal(stack.launch('token/scone-print-arg-env', { env: token }).stdout, 'arg1 arg2 arg3\n');
    const wrong = { SCONE_SERVICE_ACCESS_TOKEN: 'J765WyMWTKksiqWbBuuc' };
    assert.equal(stack.launch('token/scone-print-arg-env', { env: wrong }).status, 77);
  });

  test('volumes and protected file systems are stored, and refused where a service is launched', () => {
    const tags = Object.fromEntries(
      ['INPUT_', 'OUTPUT_'].flatMap((name) => [
        [`${name}FSPF_TAG`, 'cd'.repeat(16)],
        [`${name}FSPF_KEY`, 'ab'.repeat(32)],
      ]),
    );
    create('copy_dapp/session_template.yml', { SESSION: 'copy', URL: 'x', ...tags });
    create('volume-demo/session_template.yml');
    create('iexec-sms/tee-session-hardware.yml');
    for (const id of ['copy/application', 'volume_policy/volume_service']) {
      const { status, stderr } = stack.launch(id);
      assert.equal(status, 69, id);
      assert.match(stderr, /mounting volumes and protected file systems is not supported/);
    }
    assert.match(stack.scone('session', 'read', 'copy'), /encrypted-input-files/);
  });

  test("an owner's rules reach the sessions of the namespace, and an OpenPGP key its verifier", () => {
    create('manifests/cas-owner.yaml');
    stack.create(
      'name: cas-owner/below\nversion: "0.3.10"\naccess_policy: $$SCONE::rules$$\nsecrets:\n' +
        '  - {name: rules, import: {session: .., secret: access_policy}}\n',
    );
    assert.match(stack.scone('session', 'read', 'cas-owner/below'), /access_policy/);

    stack.create(
      'name: vault-init-parent-1\nversion: "0.3.10"\nsecrets:\n' +
        '  - {name: gpg_private_key1, kind: pgp-key, export: [{session: owner-verify-1}]}\n',
    );
    const edit = (text: string) =>
      text
        .replaceAll(/28c58f3e[0-9a-f]+/g, stack.envcasMeasurement)
        .replace('- software-hardening-needed', '- debug-mode')
        .replace(
          'injection_files:\n',
          '$&       - path: /etc/envcas/config.yaml\n         content: "program: /bin/echo"\n',
        );
    create('manifests/vault-verify-policy.yaml', { OWNER_ID: '1' }, edit);
    const { stdout, stderr } = stack.launch('owner-verify-1/insecure', { args: ['dropped', 'statement'] });
    assert.equal(stdout, '-s statement -k /etc/privkey.asc -p \n', stderr);
  });

  test('python gets its arguments, and bash asks for a one-time password', () => {
    create('envcas-example/python.yaml', { SESSION: 'python' }, (text) =>
      text.replace('/usr/bin/python3.9', '/bin/echo'),
    );
    assert.equal(stack.launch('python/envcas').stdout, '/etc/envcas/app.py abc def deadbeef\n');
    create('envcas-example/bash.yaml', { SESSION: 'bash' }, (text) =>
      text
        .replace('cat /srv/demo/out1', 'cat "/srv/demo/out1"')
        .replaceAll('/srv/demo/out', `${stack.files}/out`),
    );
    assert.match(stack.launch('bash/with_otp').stderr, /OTP_MISSING/);
    assert.match(stack.launch('bash/envcas').stdout, /^Secret=".{32}"/);
  });
});
