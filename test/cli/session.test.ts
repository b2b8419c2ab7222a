import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { executables, run, type Stack, startStack } from '../support/stack.ts';

let stack: Stack;
before(async () => {
  stack = await startStack();
});
after(() => stack.stop());

const scone = (args: string[], input: string, env: NodeJS.ProcessEnv = {}) =>
  run(executables().scone, args, { ...stack.env, ...env }, input);

const valid = 'name: $NAME\nversion: "0.3.10"\n';

test('mistakes are told with file, line and column, all at once, and nothing is uploaded', () => {
  const path = join(stack.files, 'wrong.yaml');
  const cases: [string, RegExp][] = [
    ['name: [unclosed\n', /wrong\.yaml:\d+:\d+: error: /],
    [
      'name: a\nversion: "0.3"\nservces: []\n',
      /wrong\.yaml:3:10: error: servces: unknown key "servces", expected one of: /,
    ],
    ['name: $NOPE\nversion: "0.3"\n', /wrong\.yaml:1:7: error: name: Value for variable \$NOPE is missing/],
    [
      'name: a\nversion: "0.3"\nsecurity: {attestation: {mode: none}}\nservices:\n  - name: s\n    command: x $$SCONE::nope$$\n    environment: {A: $$SCONE::nada$$}\n',
      /wrong\.yaml:6:14: error: services\[0\]\.command: there is no secret "nope" in this session\nwrong\.yaml:7:\d+: error: /,
    ],
  ];
  for (const [text, expected] of cases) {
    writeFileSync(path, text);
    for (const command of ['check', 'create']) {
      const { status, stdout, stderr } = run(executables().scone, ['session', command, path], stack.env);
      assert.equal(status, 65);
      assert.equal(stdout, '');
      assert.match(stderr.replaceAll(`${stack.files}/`, ''), expected);
    }
  }
});

test('create prints the hash alone; warnings go to standard error', () => {
  const text = `${valid}security: {attestation: {mode: none}}\nservices: [{name: s}]\n`;
  const { status, stdout, stderr } = scone(['session', 'create', '-e', 'NAME=warned', '-'], text);
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^[0-9a-f]{64}\n$/);
  assert.match(stderr, /^-:4:\d+: warning: services\[0\]\.name: attestation mode is none/);
});

test('template variables come from -e, then from the environment where that is asked for', () => {
  const check = (args: string[], env = {}) => scone(['session', 'check', ...args, '-'], valid, env);
  assert.equal(check(['-e', 'NAME=one']).stdout, 'name: "one"\nversion: "0.3.10"\n');
  assert.equal(check(['--use-env'], { NAME: 'two' }).stdout, 'name: "two"\nversion: "0.3.10"\n');
  assert.equal(
    check(['--use-env', '-e', 'NAME=three'], { NAME: 'two' }).stdout,
    'name: "three"\nversion: "0.3.10"\n',
  );
  assert.equal(check([], { NAME: 'two' }).status, 65);
  assert.equal(check(['-e', 'NAME']).status, 64);
});

test('what was created is read back, and refused where it is there already', () => {
  const created = scone(['session', 'create', '-e', 'NAME=twice', '-'], valid);
  assert.equal(created.status, 0);
  assert.equal(stack.scone('session', 'read', '--hash', 'twice'), created.stdout);
  assert.equal(stack.scone('session', 'read', 'twice'), 'name: "twice"\nversion: "0.3.10"\n');
  const again = scone(['session', 'create', '-e', 'NAME=twice', '-'], valid);
  assert.equal(again.status, 73);
  assert.match(again.stderr, /Session already exists, please specify predecessor hash: twice/);
  assert.equal(stack.tryScone('session', 'read', 'missing').status, 77);
});

test('an update keeps the secrets that its definition leaves as they are', () => {
  const text = (size: number, rest = '') => `name: kept
version: "0.3.10"
${rest}security: {attestation: {mode: none}}
services: [{name: s, image_name: i, command: [envcas, $$SCONE::a:hex$$, $$SCONE::b:hex$$]}]
images: [{name: i, injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/echo"}]}]
secrets: [{name: a, kind: binary}, {name: b, kind: binary, size: ${size}}]
`;
  const hash = stack.create(text(8));
  const [a, b] = stack.launch('kept/s').stdout.trim().split(' ');
  stack.create(text(9, `predecessor: ${hash}\n`));
  const [a2, b2] = stack.launch('kept/s').stdout.trim().split(' ');
  assert.equal(a2, a);
  assert.notEqual(b2, b);
  assert.equal(b2?.length, 18);
});

test('control characters of a file never reach the terminal', () => {
  const { stderr } = scone(['session', 'check', '-'], 'name: a\nversion: "0.3"\n"\\x1b[31mred": x\n');
  assert.match(stderr, /unknown key/);
  assert.equal(stderr.includes('\x1b'), false);
});

test('a command that is none, or misused, is told with the status of a usage error', () => {
  for (const args of [['nonsense'], ['session', 'create'], ['cas', 'serve'], ['up', '--nonsense']])
    assert.equal(run(executables().scone, args, stack.env).status, 64, args.join(' '));
  assert.equal(run(executables().scone, ['--version'], stack.env).status, 0);
});
