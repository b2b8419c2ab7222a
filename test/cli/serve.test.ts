import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { environmentIn, executables, run, startCas, startServer, startStack } from '../support/stack.ts';

let folder: string;
before(() => {
  folder = temporaryFolder();
});

const env = () => ({ HOME: folder, PATH: process.env.PATH });
const { scone, envcas } = executables();

test('CAS and LAS on their own serve a launch: the LAS tells the key of the CAS it was set up with', async () => {
  const socket = join(folder, 'las.sock');
  const las1 = await startServer(
    scone,
    ['las', 'serve', '--dir', folder, '--socket', socket],
    /platform\): (\w+)/,
    {
      env: env(),
    },
  );
  const platform = las1.match[1] ?? '';
  const options = ['--las', socket, '--trusted-platform', platform];
  const cas = await startCas(scone, join(folder, 'cas'), options, env());
  const { apiPort, enclavePort, key } = cas;
  await las1.stop();
  const las2 = await startServer(
    scone,
    ['las', 'serve', '--dir', folder, '--socket', socket, '--cas', `localhost:${enclavePort}=${key}`],
    /LAS ready/,
    { env: env() },
  );
  try {
    assert.ok(las2.output().includes(platform), 'the key of a LAS stays');
    const user = { ...env(), SCONE_CAS_API_PORT: apiPort, SCONE_CAS_ENCLAVE_PORT: enclavePort };
    const attested = run(
      scone,
      ['cas', 'attest', 'localhost', '--only_for_testing-debug', '--only_for_testing-ignore-signer'].concat([
        '--only_for_testing-trust-any',
      ]),
      user,
    );
    assert.equal(attested.status, 0, attested.stderr);
    const measurement = run(envcas, [], { SCONE_HASH: '1' }).stdout.trim();
    const policy = `name: s
version: "0.3.10"
security: {attestation: {tolerate: [debug-mode]}}
services: [{name: s, image_name: i, command: envcas works, attestation: {mrenclave: "${measurement}"}}]
images: [{name: i, injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/echo"}]}]
`;
    assert.equal(run(scone, ['session', 'create', '-'], user, policy).status, 0);
    // A launcher that knows the CAS by nothing but its LAS.
    const launcher = {
      SCONE_CONFIG_ID: 's/s',
      SCONE_CAS_ADDR: `localhost:${enclavePort}`,
      SCONE_LAS_ADDR: socket,
    };
    const launched = run(envcas, [], { ...launcher, HOME: '/nonexistent' });
    assert.equal(launched.stdout, 'works\n', launched.stderr);
  } finally {
    await cas.server.stop();
    await las2.stop();
  }
});

test('what the servers keep is private; a second one on the same folder is refused and harms nothing', async () => {
  const stack = await startStack();
  try {
    for (const name of ['cas/master.key', 'las/las.key', 'env', 'cas/cas.db'])
      assert.equal(statSync(join(stack.directory, name)).mode & 0o077, 0, name);
    assert.equal(readFileSync(join(stack.directory, 'cas/master.key')).length, 32);
    const second = run(scone, ['up', '--dir', stack.directory, '--free-ports'], env());
    assert.equal(second.status, 69);
    assert.match(second.stderr, /another LAS answers there/);
    assert.equal(statSync(join(stack.directory, 'env')).size > 0, true);
    stack.scone('session', 'check', '/dev/null');
  } catch (error) {
    if (!(error instanceof Error && error.message.includes('the session is empty'))) throw error;
  } finally {
    await stack.stop();
  }
});

test('what is printed for a shell leads to the servers, whatever their folder is called', async () => {
  const directory = join(folder, `ü 'a' "b" $HOME \`id\` \\n = &`);
  const up = ['up', '--dir', directory, '--free-ports'];
  const server = await startServer(scone, up, /To use them: (.*)\n/, { env: env() });
  try {
    const script = `${server.match[1]} && printf %s "$SCONE_LAS_ADDR"`;
    assert.equal(run('/bin/sh', ['-c', script], env()).stdout, join(directory, 'las.sock'));
    assert.equal(environmentIn(join(directory, 'env')).SCONE_LAS_ADDR, join(directory, 'las.sock'));
  } finally {
    await server.stop();
  }
});

test('a path that is too long for a socket is told', () => {
  const socket = join(folder, 'x'.repeat(108));
  const { status, stderr } = run(scone, ['las', 'serve', '--dir', folder, '--socket', socket], env());
  assert.equal(status, 74);
  assert.match(stderr, /x: a socket path has at most 107 bytes\n/);
});

test('a port that is taken is told, with what to do', () => {
  const first = run(
    scone,
    [
      'cas',
      'serve',
      '--dir',
      join(folder, 'taken'),
      '--host',
      '192.0.2.1',
      '--api-port',
      '0',
      '--enclave-port',
      '0',
    ],
    env(),
  );
  assert.equal(first.status, 69);
  assert.match(first.stderr, /cannot listen on 192\.0\.2\.1:0: the address is not one of this host/);
});

test('no signal opens a debugger', async () => {
  const stack = await startStack();
  try {
    stack.server.process.kill('SIGUSR1');
    stack.scone('self', 'show'); // a round trip later it would listen
    const refused = await new Promise((resolve) => {
      const socket = connect(9229, '127.0.0.1', () => resolve(socket.destroy() && false));
      socket.on('error', () => resolve(true));
    });
    assert.equal(refused, true);
    assert.doesNotMatch(stack.server.output(), /inspector|Debugger/);
    assert.equal(stack.server.process.exitCode, null);
  } finally {
    await stack.stop();
  }
});
