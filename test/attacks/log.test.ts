import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { launch } from '../support/client.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { executables, startCas } from '../support/stack.ts';
import { until } from '../support/until.ts';

test('a name that moves a terminal, or has text read otherwise, is escaped in the log of a CAS', async () => {
  const folder = temporaryFolder();
  const env = { PATH: process.env.PATH ?? '', HOME: folder };
  const options = ['--log-level', 'info'];
  const { server, ...ports } = await startCas(executables().scone, join(folder, 'cas'), options, env);
  try {
    const hostile = 'a\x1b[2J\x1b]0;title\x07\u009b31m\x7f\r\n\u202egpj\u2066\u200b\ufeff\u{e0041}';
    await assert.rejects(launch(ports, { session: hostile, service: hostile }), {
      code: 'SESSION_NOT_FOUND',
    });
    const isRefusal = (line: string) => line.includes('"release refused"');
    await until(() => server.output().split('\n').some(isRefusal), 'the refusal in the log');
    const lines = server.output().split('\n');
    const { session, service } = JSON.parse(lines.find(isRefusal) ?? '');
    assert.deepEqual([session, service], [hostile, hostile]);
    assert.doesNotMatch(lines.join(''), /[\p{Cc}\p{Cf}]/u);
  } finally {
    await server.stop();
  }
});
