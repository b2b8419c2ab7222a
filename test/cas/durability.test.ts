import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { Secret } from 'otpauth';
import { codeFrom } from '../support/client.ts';
import { executables, type Stack, startStack } from '../support/stack.ts';
import { until } from '../support/until.ts';

let stack: Stack;
before(async () => {
  stack = await startStack();
});

const service = (name: string, extra = '') => `
name: ${name}
version: "0.3.10"
security: {attestation: {mode: none}}
services: [{name: s, image_name: i, command: [envcas, $$SCONE::token:hex$$]${extra}}]
images: [{name: i, injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/echo"}]}]
secrets: [{name: token, kind: binary, size: 16}]
`;

test('killed at any instant, the CAS keeps every session that it confirmed, and its secrets', async () => {
  const { scone } = executables();
  for (let round = 0; round < 3; round++) {
    const confirmed: { name: string; hash: string }[] = [];
    let stopped = false;
    const writer = async (lane: number) => {
      for (let count = 0; !stopped; count++) {
        const name = `kill-${round}-${lane}-${count}`;
        const path = join(stack.files, `${name}.yaml`);
        writeFileSync(path, service(name));
        const child = spawn(scone, ['session', 'create', path], {
          env: stack.env,
          stdio: ['ignore', 'pipe', 'ignore'],
        });
        let hash = '';
        child.stdout.on('data', (chunk) => {
          hash += chunk;
        });
        const [status] = await once(child, 'close');
        if (status === 0) confirmed.push({ name, hash: hash.trim() });
      }
    };
    const writers = [writer(0), writer(1)];
    await until(() => confirmed.length >= 2 + round, `${2 + round} sessions are confirmed`);
    const first = confirmed[0]?.name;
    const token = stack.launch(`${first}/s`).stdout;
    assert.match(token, /^[0-9a-f]{32}\n$/);
    stack.server.process.kill('SIGKILL');
    stopped = true;
    await Promise.all(writers);
    await stack.restart('SIGKILL');
    for (const { name } of confirmed) assert.equal(stack.scone('session', 'read', name), service(name));
    assert.equal(stack.launch(`${first}/s`).stdout, token);
  }
});

test('a code that was used stays used across a kill', async () => {
  const secret = new Secret({ size: 20 });
  stack.create(service('otp', `, one_time_password_shared_secret: ${secret.base32}`));
  const code = codeFrom(secret);
  assert.equal(stack.launch(`otp/s@${code}`).status, 0);
  await stack.restart('SIGKILL');
  const again = stack.launch(`otp/s@${code}`);
  assert.equal(again.status, 77);
  assert.match(again.stderr, /OTP_(USED|INVALID)/);
});

test('on SIGTERM and SIGINT both servers end cleanly, and the file to source is gone', async () => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    assert.equal(await stack.server.stop(signal), 0);
    await stack.restart('SIGTERM');
  }
});
