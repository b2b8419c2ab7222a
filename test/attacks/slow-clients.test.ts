import assert from 'node:assert/strict';
import { once } from 'node:events';
import { before, test } from 'node:test';
import { connect, type TLSSocket } from 'node:tls';
import { LAUNCH_PROTOCOL } from '../../src/protocol/launch.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { until } from '../support/until.ts';

let stack: Stack;
before(async () => {
  stack = await startStack();
});

/** Asks for a service, and reads nothing of the answer. */
async function askAndStall(session: string): Promise<TLSSocket> {
  const port = Number(stack.env.SCONE_CAS_ENCLAVE_PORT);
  const socket = connect({
    host: '127.0.0.1',
    port,
    rejectUnauthorized: false,
    ALPNProtocols: [LAUNCH_PROTOCOL],
  });
  socket.on('error', () => {});
  await once(socket, 'secureConnect');
  socket.pause();
  const body = Buffer.from(JSON.stringify({ session, service: 's' }));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length);
  socket.write(Buffer.concat([length, body]));
  return socket;
}

test('clients that take no answers make the CAS say that it is busy, and it recovers when they are gone', async () => {
  stack.create(`name: large
version: "0.3.10"
security: {attestation: {mode: none}}
services: [{name: s, image_name: i, command: envcas}]
images:
  - name: i
    injection_files:
      - {path: /etc/envcas/config.yaml, content: "program: /bin/true\\ninjection_files: [{from: /f, to: ${stack.files}/f}]"}
      - {path: /f, content: "${'$$SCONE::big$$'.repeat(7)}"}
secrets: [{name: big, kind: binary, size: 1048576}]
`);
  assert.equal(stack.launch('large/s').status, 0);
  const stalled: TLSSocket[] = [];
  // The CAS gives them up in time, so that more may have to come where it is slow.
  await until(async () => {
    for (const asked of await Promise.allSettled(Array.from({ length: 40 }, () => askAndStall('large'))))
      if (asked.status === 'fulfilled') stalled.push(asked.value);
    const { status, stderr } = stack.launch('large/s');
    return status === 69 && /Code: CAS_BUSY/.test(stderr);
  }, 'a launch is told that the CAS is busy');
  for (const socket of stalled) socket.destroy();
  // The CAS hears of each closed connection in its own time.
  await until(() => stack.launch('large/s').status === 0, 'a launch succeeds');
});
