import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { executables, run, type Stack, startStack } from '../support/stack.ts';

let stack: Stack;
before(async () => {
  stack = await startStack();
});

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

test('-n names the session, and changes nothing else of its text', () => {
  const text = '# c\nname: $NAME # c\nversion: "0.3" # c\naccess_policy: {read: ANY}\n';
  const check = (...args: string[]) => scone(['session', 'check', ...args, '-'], text);
  const renamed = '# c\nname: "other" # c\nversion: "0.3" # c\naccess_policy: {read: ANY}\n';
  assert.equal(check('-e', 'NAME=one', '-n', 'other').stdout, renamed);
  // Variables are filled in before.
  assert.match(check('-n', 'other').stderr, /Value for variable \$NAME is missing/);
  assert.equal(check('-e', 'NAME=no name', '--name', 'other').stdout, renamed);
  for (const wrong of ['no name', '', 'a//b', '$NAME'])
    assert.equal(check('-e', 'NAME=a', '-n', wrong).status, 64);
  const created = scone(['session', 'create', '-e', 'NAME=one', '-n', 'other', '-'], text);
  assert.equal(created.status, 0, created.stderr);
  assert.equal(stack.scone('session', 'read', 'other'), renamed);
});

test('with --fail-on-warning nothing is uploaded that is warned of', () => {
  const text = `name: doubtful\nversion: "0.3"\nsecurity: {attestation: {mode: none}}\nservices: [{name: s}]\n`;
  for (const command of ['check', 'create', 'sign', 'calculate-hash']) {
    const { status, stdout, stderr } = scone(['session', command, '--fail-on-warning', '-'], text);
    assert.deepEqual([command, status, stdout], [command, 65, '']);
    assert.match(
      stderr,
      /^-:4:\d+: warning: [^\n]*\nError: -: warnings: 1, [\s\S]*Code: WARNINGS, exit status 65/,
    );
  }
  assert.match(stack.tryScone('session', 'read', 'doubtful').stderr, /Code: SESSION_NOT_FOUND/);
  assert.equal(scone(['session', 'check', '--fail-on-warning', '-e', 'NAME=n', '-'], valid).status, 0);
});

test('update fills in the version before, and needs one', () => {
  const text = 'name: steps\nversion: "0.3" # c\npredecessor: ~\n';
  const update = (input: string) => scone(['session', 'update', '-'], input);
  assert.match(update(text).stderr, /Code: SESSION_NOT_FOUND, exit status 77/);
  const first = stack.create(text);
  const second = update(text.replace('"0.3"', '"0.3.1"'));
  assert.equal(second.status, 0, second.stderr);
  assert.equal(
    stack.scone('session', 'read', 'steps'),
    `name: steps\nversion: "0.3.1" # c\npredecessor: "${first}"\n`,
  );
  const third = update(`predecessor: ${second.stdout}name: steps\nversion: "0.3.2"\n`);
  assert.equal(third.status, 0, third.stderr);
  const stale = update(`predecessor: ${second.stdout}name: steps\nversion: "0.3.3"\n`);
  assert.match(stale.stderr, /Code: PREDECESSOR_STALE, exit status 73/);
  const early = update(`predecessor: ${first}\nname: nothing\nversion: "0.3.3"\n`);
  assert.match(early.stderr, /Code: PREDECESSOR_UNKNOWN, exit status 65/);
  const signed = scone(['session', 'sign', '-'], text).stdout;
  assert.match(update(signed).stderr, /it is signed, so its `predecessor` has to be written into it before/);
});

test('verify tells a session that the CAS has from one that it has not, and where they differ', () => {
  const text = 'name: same\nversion: "0.3"\nservices: [{name: s, mrenclaves: [DIGITS]}]\n'.replace(
    'DIGITS',
    'a'.repeat(64),
  );
  const verify = (input: string, ...args: string[]) => scone(['session', 'verify', ...args, '-'], input);
  assert.match(verify(text).stderr, /Code: SESSION_NOT_FOUND/);
  const first = stack.create(text);
  assert.equal(verify(text).stdout, `${first}\n`);
  const next = `${text}secrets: [{name: k, kind: binary}]\n`;
  const second = scone(['session', 'update', '-'], next).stdout;
  // The file, what is read back, and both with who made it, are the same session.
  const readBack = stack.scone('session', 'read', 'same');
  const creator = `creator: ${JSON.stringify(stack.scone('self', 'show-certificate'))}\n`;
  for (const same of [next, readBack, creator + next, creator + readBack, `# c\n${next}`])
    assert.equal(verify(same).stdout, second);
  for (const [other, sections] of [
    [text, 'secrets (-k)'],
    [next.replace('{name: s', '{name: t'), 'services (-s, +t)'],
    [next.replace('binary', 'ascii'), 'secrets (k)'],
    [readBack.replace(first, 'b'.repeat(64)), 'predecessor'],
    [`access_policy: {read: ANY}\n${next.replace('"0.3"', '"0.3.1"')}`, 'version, access_policy (read)'],
  ] as const) {
    const { status, stdout, stderr } = verify(other);
    assert.deepEqual([status, stdout], [65, ''], sections);
    assert.match(stderr, new RegExp(`^Error: the session same on the CAS, ${second.trim()}, is not the one`));
    assert.ok(stderr.includes(`they differ in: ${sections}\n`), stderr);
    assert.match(stderr, /Code: SESSION_DIFFERS, exit status 65/);
  }
  assert.match(verify(next.replace('same', 'elsewhere')).stderr, /Code: SESSION_NOT_FOUND/);
  assert.equal(JSON.parse(verify(next, '--json').stdout).hash, second.trim());
});

test('what is no session in UTF-8 is told', () => {
  const path = join(stack.files, 'latin1.yaml');
  writeFileSync(path, Buffer.from('name: \xe9\n', 'latin1'));
  assert.match(stack.tryScone('session', 'check', path).stderr, /it is no text in UTF-8/);
  assert.match(stack.tryScone('session', 'check', '/dev/zero').stderr, /it has more than \d+ bytes/);
  assert.match(stack.tryScone('session', 'check', stack.files).stderr, /it is a directory/);
});

test('the JSON Schema of sessions is printed', () => {
  const schema = JSON.parse(stack.scone('session', 'schema'));
  assert.ok(schema.properties.services && schema.properties.access_policy);
  assert.deepEqual(JSON.parse(stack.scone('session', 'schema', '--json')), schema);
});

test('control characters of a file never reach the terminal', () => {
  const { stderr } = scone(['session', 'check', '-'], 'name: a\nversion: "0.3"\n"\\x1b[31mred": x\n');
  assert.match(stderr, /unknown key/);
  assert.equal(stderr.includes('\x1b'), false);
});

test('a command that is none, or misused, is told with the status of a usage error', () => {
  const fetching = ['cas', 'serve', '--dir', 'x', '--pccs', 'http://example.org'];
  for (const args of [['nonsense'], ['session', 'create'], ['cas', 'serve'], ['up', '--nonsense'], fetching])
    assert.equal(run(executables().scone, args, stack.env).status, 64, args.join(' '));
  assert.equal(existsSync('x'), false, 'nothing is made before that');
  assert.equal(run(executables().scone, ['--version'], stack.env).status, 0);
});
