import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { start } from './launcher/support.ts';
import { temporaryFolder } from './support/leave-nothing.ts';
import { executables, missing } from './support/stack.ts';

const root = resolve(import.meta.dirname, '..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');

test('the commands of the README that are typed by hand do what it says', {
  skip: missing('oathtool', '/usr/bin/python3'),
}, async () => {
  executables();
  const [byHand = '', python = ''] = [...readme.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block]) => block);
  assert.ok(byHand && python);
  const home = temporaryFolder();
  // Ports of its own, so that the test runs beside others; a code of the next step, which is good for a minute.
  const script = byHand
    .replace('scone up', 'scone up --free-ports')
    .replace('oathtool --totp', 'oathtool --totp --now="+30 seconds"');
  const { stdout, stderr } = await start('bash', ['-c', `${script}\n${python}\nkill $SERVERS; wait`], {
    cwd: root,
    env: { HOME: home, TMPDIR: home, PATH: process.env.PATH },
    stdio: ['ignore', 'pipe', 'pipe'],
  }).finished;
  assert.match(stdout, /^CAS localhost at https:\/\/localhost:\d+\/ is trustworthy$/m);
  assert.match(stdout, /^[0-9a-f]{64}$/m);
  const secrets = stdout.match(/^Secret=".{32}"$/gm) ?? [];
  assert.equal(secrets.length, 2, stdout + stderr);
  assert.equal(secrets[0], secrets[1]);
  const printed =
    "arguments: ['abc', 'from-the-host', 'deadbeef']\nTRUSTED_ENV: trusted_env\nUNTRUSTED_ENV: hello\n";
  assert.ok(stdout.endsWith(printed) && readme.includes(printed), stdout);
  assert.match(stderr, /already used within this time-step[\s\S]*Code: OTP_USED, exit status 77/);
});

test('every exit status of envcas that the README names is one that an error has', async () => {
  const { errors } = await import('../src/errors.ts');
  const declared = new Set(Object.values(errors).map(({ exit }) => exit as number));
  const [, section = ''] = /## Exit status of envcas([\s\S]*?)\n## /.exec(readme) ?? [];
  const named = [...section.matchAll(/^\| (\d+) \|/gm)].map(([, status]) => Number(status));
  assert.ok(named.length > 8);
  for (const status of named) assert.ok(declared.has(status), `${status}`);
});
