import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { serveCas } from '../../src/cas/serve.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { missing } from '../support/stack.ts';
import { until } from '../support/until.ts';

test('whoever begins handshake after handshake on one connection is refused, also once the certificate was made anew', {
  skip: missing('openssl'),
}, async () => {
  const folder = temporaryFolder();
  const log = { info() {}, warn() {}, error() {} };
  const settings = { names: [], trustedPlatforms: [] };
  const cas = await serveCas({
    ...{ directory: join(folder, 'cas'), host: '127.0.0.1', apiPort: 0, enclavePort: 0, log },
    ...{ lasSocket: join(folder, 'none'), ...settings },
  });
  /** What openssl says of a connection on which it asks for another handshake. */
  const renegotiate = async () => {
    const client = spawn('openssl', ['s_client', '-tls1_2', '-connect', `127.0.0.1:${cas.apiPort}`]);
    let said = '';
    for (const stream of [client.stdout, client.stderr])
      stream.on('data', (chunk) => {
        said += chunk;
      });
    client.stdin.on('error', () => {});
    try {
      await until(() => said.includes('Verify return code'), 'there is a connection');
      client.stdin.write('R\n');
      await until(() => /no renegotiation|closed|error:/i.test(said.split('RENEGOTIATING')[1] ?? ''), said);
    } finally {
      client.kill();
    }
    return said.split('RENEGOTIATING')[1];
  };
  try {
    assert.match(String(await renegotiate()), /no renegotiation/);
    await cas.reload({ ...settings, names: ['cas.example.org'] });
    assert.match(String(await renegotiate()), /no renegotiation/);
  } finally {
    await cas.close();
  }
});
