import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { executables, missing, run, type Stack, startStack } from '../support/stack.ts';

const WRITTEN = 'GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ';

let stack: Stack;
before(async () => {
  stack = await startStack();
  stack.create('name: team\nversion: "0.3"\n');
  stack.create(`name: team/codes
version: "0.3"
security: {attestation: {mode: none}}
services:
  - {name: made, image_name: i, command: [envcas, started], one_time_password_shared_secret: $$SCONE::made:base32nopad$$}
  - {name: written, one_time_password_shared_secret: ${WRITTEN}}
  - {name: open}
images: [{name: i, injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/echo"}]}]
secrets: [{name: made, kind: binary}]
`);
});

const file = (name: string) => join(stack.files, name);
const show = (...args: string[]) => stack.scone('otp', 'show', ...args);
const shown = (service: string): { uri: string; secret: string } => JSON.parse(show(service, '--json'));

/** What an independent program reads in a picture. */
function decode(picture: string): string {
  const { status, stdout, stderr } = run('zbarimg', ['--quiet', '--raw', picture], {
    PATH: process.env.PATH,
  });
  assert.equal(status, 0, stderr);
  return stdout.trim();
}

/** Half blocks as a picture: a pixel for each half of a character, light where there is ink. */
function draw(lines: string[]): string {
  const halves: Record<string, [string, string]> = {
    '█': ['0', '0'],
    '▀': ['0', '1'],
    '▄': ['1', '0'],
    ' ': ['1', '1'],
  };
  const rows = lines.flatMap((line) =>
    [0, 1].map((half) => [...line].map((character) => halves[character]?.[half] ?? assert.fail(character))),
  );
  const size = 4;
  const enlarge = <Item>(items: Item[]) => items.flatMap((item) => Array<Item>(size).fill(item));
  const pixels = enlarge(rows.map((row) => enlarge(row).join('')));
  const path = file('code.pbm');
  writeFileSync(path, `P1 ${pixels[0]?.length} ${pixels.length}\n${pixels.join('\n')}\n`);
  return path;
}

test('the URI is what authenticator apps expect', () => {
  const { uri, secret } = shown('team/codes/written');
  assert.equal(secret, WRITTEN);
  const { protocol, host, pathname, searchParams } = new URL(uri);
  assert.deepEqual([protocol, host], ['otpauth:', 'totp']);
  assert.equal(decodeURIComponent(pathname), '/localhost:team/codes/written');
  assert.deepEqual(Object.fromEntries(searchParams), {
    ...{ issuer: 'localhost', secret: WRITTEN, algorithm: 'SHA1', digits: '6', period: '30' },
  });
});

test('another program reads the URI in the code drawn with letters', { skip: missing('zbarimg') }, () => {
  const { uri, secret } = shown('team/codes/made');
  const [code = '', text = ''] = show('team/codes/made').split('\n\n');
  assert.equal(text, `Account: team/codes/made at localhost\nSecret:  ${secret}\n`);
  assert.equal(decode(draw(code.split('\n'))), uri);
});

test('another program reads the URI in the SVG', { skip: missing('zbarimg', 'rsvg-convert') }, () => {
  const svg = file('code.svg');
  assert.equal(show('team/codes/made', '--svg', '-o', svg), '');
  assert.equal(readFileSync(svg, 'utf8'), show('team/codes/made', '--svg'));
  const { status, stderr } = run('rsvg-convert', ['-o', file('code.png'), svg], { PATH: process.env.PATH });
  assert.equal(status, 0, stderr);
  assert.equal(decode(file('code.png')), shown('team/codes/made').uri);
});

test('on a terminal, the light parts of the code are light whatever its colours are', {
  skip: missing('script'),
}, () => {
  const env = {
    ...stack.env,
    ...{ SCONE: executables().scone, FILE: file('code.txt'), TERM: 'xterm-256color' },
  };
  const command = '"$SCONE" otp show team/codes/made';
  const terminal = run('script', ['-qec', command, '/dev/null'], env, '').stdout;
  const [code = ''] = terminal.split(/\r?\n\r?\n/);
  for (const line of code.split(/\r?\n/)) {
    assert.ok(
      line.startsWith('\x1b[97m\x1b[40m') || line.startsWith('\x1b[40m\x1b[97m'),
      JSON.stringify(line),
    );
    assert.ok(/\x1b\[(39|49)m$/.test(line), JSON.stringify(line));
  }
  const toFile = `${command} -o "$FILE"`;
  run('script', ['-qec', toFile, '/dev/null'], env, '');
  assert.equal(readFileSync(file('code.txt'), 'utf8'), show('team/codes/made'));
});

test('the CAS takes the codes that another program makes of the secret', {
  skip: missing('oathtool'),
}, () => {
  const { secret } = shown('team/codes/made');
  const code = run('oathtool', ['--totp', '-b', secret], { PATH: process.env.PATH }).stdout.trim();
  const launched = stack.launch(`team/codes/made@${code}`);
  assert.equal(launched.stdout, 'started\n', launched.stderr);
  assert.equal(stack.launch(`team/codes/made@${code}`).status, 77);
});

test('a secret is shown to nobody else, and where there is none that is said', () => {
  const codeOf = (...args: string[]) =>
    /Code: (\w+)/.exec(stack.tryScone('otp', 'show', ...args).stderr)?.[1];
  assert.equal(codeOf('team/codes/open'), 'ONE_TIME_PASSWORD_UNUSED');
  assert.equal(codeOf('team/codes/nothing'), 'SERVICE_NOT_FOUND');
  assert.equal(codeOf('nobody/codes'), 'SESSION_NOT_FOUND');
  for (const wrong of ['codes', '/', 'a//b', 'a/b@123456']) assert.equal(codeOf(wrong), 'USAGE', wrong);
  const state = JSON.parse(readFileSync(join(stack.env.HOME ?? '', '.cas', 'config.json'), 'utf8'));
  writeFileSync(file('stranger.json'), JSON.stringify({ ...state, identity: undefined }), { mode: 0o600 });
  const stranger = stack.tryScone('-c', file('stranger.json'), 'otp', 'show', 'team/codes/made');
  assert.deepEqual([stranger.status, stranger.stdout], [77, '']);
  assert.match(stranger.stderr, /Code: ACCESS_DENIED/);
});
