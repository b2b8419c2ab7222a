import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { searchFor, writingsOf } from '../support/leaks.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { codeFrom, fixtures, folder, newSharedSecret, type Policy, upload, wrongCode } from './support.ts';

/** Released secrets of known value; none may be seen where only launcher, CAS and LAS write. */
const values = {
  text: 'kTxq7ZrLw0-known-text-secret',
  path: 'kPzh3Qnm-known-path-secret',
  key: Buffer.from('b7d2c9f04e81aa5563c1de0f97ac42e8d1b00c9a7f', 'hex'),
  multi: 'kMvu8-first-line\nkNwb2-second-line',
};
const otp = newSharedSecret();
const secrets: Policy['secrets'] = {
  text: { kind: 'ascii', value: values.text },
  path: { kind: 'ascii', value: values.path },
  key: { kind: 'binary', value: values.key.toString('hex') },
  multi: { kind: 'ascii', value: values.multi },
  nul: { kind: 'ascii', value: 'kQrf5-before\0kSjt6-after' },
  otp: { kind: 'ascii', value: otp },
};

const assertNone = searchFor([
  values.text,
  values.path,
  values.key,
  ...values.multi.split('\n'),
  'kQrf5-before',
  'kSjt6-after',
  otp,
]);

let stack: Stack;
before(async () => {
  stack = await startStack();
});

test('the search would find what it is to find', () => {
  for (const value of [values.text, values.key])
    for (const text of writingsOf(value).values())
      assert.throws(
        () => assertNone('a text', Buffer.concat([Buffer.from('x'), Buffer.from(text as string)])),
        /a text has/,
      );
});

for (const [what, policy] of [
  ['target', (directory) => ({ files: [{ to: `${directory}/no/$$SCONE::path$$`, content: 'x' }] })],
  ['program', () => ({ program: '/nonexistent/$$SCONE::path$$' })],
] as [string, (directory: string) => Policy][])
  test(`a secret in the path of a ${what} is refused, since everybody can see paths`, async () => {
    await assert.rejects(
      upload(stack, { ...policy(folder(stack)), secrets }),
      /a path holds no secret, since everybody can see it/,
    );
  });

/** A server lets no other process of its user look at its environment. */
function readUnlessHidden(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'EACCES');
    return Buffer.alloc(0);
  }
}

// Last, as it ends the servers in order to have all of their log.
test('no secret is on standard error, in a log, on a command line or readable in the store', async () => {
  const inText = (format: string) => `$$SCONE::text$$ $$SCONE::key${format}$$ $$SCONE::multi$$`;
  const all = inText('');
  const template = join(folder(stack), 'template');
  const failing: [what: string, policy: (directory: string) => Policy, status: number, args?: string[]][] = [
    ['all is well', () => ({}), 0],
    ['the program fails', () => ({ command: ['-c', 'exit 3', '$$SCONE::text$$'] }), 3],
    ['no folder', (d) => ({ files: [{ to: `${d}/no/file`, content: all }] }), 73],
    ['a folder in its place', (d) => ({ files: [{ to: `${d}/directory`, content: all }] }), 73],
    ['no program', () => ({ program: '/nonexistent/program' }), 127],
    ['not executable', () => ({ program: join(fixtures, 'not-executable.sh') }), 126],
    ['no format', () => ({ program: join(fixtures, 'no-shebang') }), 126],
    ['no interpreter', () => ({ program: join(fixtures, 'no-interpreter.sh') }), 126],
    ['no pwd', () => ({ pwd: '/nonexistent' }), 78],
    ['too large', () => ({ environment: { LARGE: `$$SCONE::text$$${'x'.repeat(200_000)}` } }), 126],
    ['no host argument', () => ({ command: ['$$SCONE::text$$@@1'] }), 64],
    ['NUL in an argument', () => ({ command: ['$$SCONE::text$$$$SCONE::nul$$'] }), 78],
    ['NUL in a variable', () => ({ environment: { A: '$$SCONE::nul$$$$SCONE::text$$' } }), 78],
    ['no secret', () => ({ files: [{ from: template, to: '/never', content: null }] }), 78],
    ['no template', (d) => ({ files: [{ from: `${d}/x`, to: '/never', content: null }] }), 66],
    ['refused', () => ({ tolerate: [] }), 77],
    ['no code', () => ({ oneTimePassword: '$$SCONE::otp$$' }), 77],
  ];
  writeFileSync(template, '$$SCONE::text$$ $$SCONE::key$$ $$SCONE::unknown$$');

  const launches: { what: string; stderr: string }[] = [];
  for (const [what, policy, status, args = []] of failing) {
    const directory = folder(stack);
    mkdirSync(join(directory, 'directory'));
    const { files = [], ...given } = policy(directory);
    const id = await upload(stack, {
      command: ['-c', 'exit 0', inText(':hex')],
      ...given,
      environment: { ALL: inText(':base64'), ...given.environment },
      files: [{ to: `${directory}/out`, content: all }, ...files],
      secrets,
    });
    const result = stack.launch(id, { args });
    assert.equal(result.status, status, `${what}: ${result.stderr}`);
    launches.push({ what, stderr: result.stderr });
  }

  // What the program itself prints is its own affair; here it shows that the secrets were really released.
  const shows = await upload(stack, {
    program: '/usr/bin/printf',
    command: ['%s', '$$SCONE::text$$'],
    oneTimePassword: '$$SCONE::otp$$',
    secrets,
  });
  const code = codeFrom(otp);
  const wrong = wrongCode(otp);
  const codes: string[] = [wrong, code, code];
  const outcomes = codes.map((given) => stack.launch(`${shows}@${given}`));
  assert.deepEqual(
    outcomes.map(({ stdout }) => stdout),
    ['', values.text, ''],
  );
  for (const { stderr } of outcomes) launches.push({ what: 'a one-time password', stderr });
  for (const { what, stderr } of launches) {
    assertNone(`standard error (${what})`, stderr);
    for (const given of codes) assert.ok(!stderr.includes(given), `standard error (${what}) has a code`);
  }

  for (const pid of family(stack.server.process.pid ?? 0))
    for (const file of ['cmdline', 'environ', 'comm'])
      assertNone(`${file} of ${pid}`, readUnlessHidden(`/proc/${pid}/${file}`));

  for (const path of filesIn(stack.directory)) assertNone(path, readFileSync(path));

  const { process: server } = stack.server;
  const everything = Promise.all(
    [server.stdout, server.stderr].map((stream) => stream && once(stream, 'end')),
  );
  await stack.server.stop();
  await everything;
  const log = stack.server.output();
  assert.match(log, /"released"/);
  assert.match(log, /"release refused"/);
  assert.match(log, /"vouched for a process"/);
  assertNone('the log', log);
  for (const given of codes) assert.ok(!log.includes(`"${given}"`), 'the log has a code');

  for (const path of filesIn(stack.directory)) assertNone(path, readFileSync(path));
});

/** A process and all that it started. */
function family(pid: number): number[] {
  const children = readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
  );
  return [pid, ...children.flatMap(family)];
}

function filesIn(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .map((name) => join(directory, name))
    .filter((path) => statSync(path).isFile());
}
