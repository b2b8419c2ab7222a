import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { freePort } from './support/port.ts';
import { missing, startStack } from './support/stack.ts';
import { until } from './support/until.ts';

const example = resolve(import.meta.dirname, '../examples/mutual-tls');

test('two sessions share certificates, and the programs that envcas starts talk mutual TLS with them', {
  skip: missing('/usr/bin/openssl'),
}, async () => {
  const stack = await startStack();
  const port = await freePort();
  const folder = (name: string) => {
    const path = join(stack.files, name);
    mkdirSync(path);
    return path;
  };
  const create = (name: string, directory: string) =>
    stack.scone(
      'session',
      'create',
      ...['-e', `PORT=${port}`, '-e', `DIR=${directory}`, '-e', `MRENCLAVE=${stack.envcasMeasurement}`],
      ...['-e', `USER_ID=${process.getuid?.()}`],
      ...['-e', 'SERVER_SESSION=tls-server', '-e', 'CLIENT_SESSION=tls-client'],
      join(example, name),
    );
  create('server.yaml', folder('server'));
  create('client.yaml', folder('client'));

  const start = (configId: string) => {
    const child = spawn(stack.envcas, [], {
      env: { ...stack.env, SCONE_CONFIG_ID: configId },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const output = { text: '' };
    child.stdout.on('data', (chunk) => {
      output.text += chunk;
    });
    child.stderr.on('data', (chunk) => {
      output.text += chunk;
    });
    return { child, output, exit: once(child, 'exit') };
  };
  const server = start('tls-server/server');
  const isListening = () =>
    new Promise<boolean>((resolve) => {
      // Looks without connecting: the server takes one connection.
      const probe = createServer().once('error', () => resolve(true));
      probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(false)));
    });
  await until(() => {
    assert.equal(server.child.exitCode, null, server.output.text);
    return isListening();
  }, 'the server listens');
  const client = start('tls-client/client');
  client.child.stdin.end('hello from the client\n');
  const [status] = await client.exit;
  assert.equal(status, 0, client.output.text);
  server.child.stdin.end();
  await server.exit;
  assert.match(server.output.text, /hello from the client/);
  assert.match(client.output.text, /CN = Example authority|CN=Example authority/);
});
