import assert from 'node:assert/strict';
import { join } from 'node:path';
import { before, test } from 'node:test';
import * as v from 'valibot';
import { openCas } from '../../src/cli/connect.ts';
import { executables, type Result, run, type Stack, startStack } from '../support/stack.ts';

/** What a CAS tells of the sessions that it has: list, read, history, explain. */

let stack: Stack;
before(async () => {
  stack = await startStack();
});

const session = (...args: string[]) => stack.tryScone('session', ...args);
const update = (text: string, ...args: string[]): Result =>
  run(executables().scone, ['session', 'update', ...args, '-'], stack.env, text);

/** Uploads many sessions, or versions of one, over connections from here. */
async function upload(texts: readonly string[], atOnce: number): Promise<string> {
  process.env.SCONE_CLI_CONFIG = join(stack.env.HOME ?? '', '.cas', 'config.json');
  const cas = await openCas({ retries: 0 });
  const put = (body: string) =>
    cas.call({ method: 'POST', path: '/session', body }, v.object({ hash: v.string() }));
  let last = '';
  for (let at = 0; at < texts.length; at += atOnce)
    for (const { hash } of await Promise.all(
      texts.slice(at, at + atOnce).map((text) => put(text.replace('$LAST', last))),
    ))
      last = hash;
  return last;
}

test('list names all that is just below a namespace, in order, over as many pages as it takes', async () => {
  const numbers = [...Array(1001).keys()];
  stack.create('name: many\nversion: "0.3"\n');
  await upload(
    numbers.map((number) => `{name: many/${number}, version: "0.3"}`),
    8,
  );
  stack.create('name: many/7/below\nversion: "0.3"\n');
  stack.create('name: many-others\nversion: "0.3"\n');
  const expected = numbers.map((number) => `many/${number}`).sort();
  assert.equal(stack.scone('session', 'list', 'many'), expected.map((name) => `${name}\n`).join(''));
  assert.deepEqual(JSON.parse(stack.scone('session', 'list', 'many/7', '--json')), ['many/7/below']);
  assert.equal(stack.scone('session', 'list', 'many/8'), '');
  assert.match(session('list', 'nowhere').stderr, /Code: SESSION_NOT_FOUND/);
  assert.equal(session('list', 'no name!').status, 64);
});

test('every version is read by its hash', () => {
  const first = stack.create('name: versions\nversion: "0.3"\n');
  const second = update('name: versions\nversion: "0.3.1"\n').stdout.trim();
  const read = (...args: string[]) => session('read', 'versions', ...args);
  assert.equal(read('--version-hash', first).stdout, 'name: versions\nversion: "0.3"\n');
  assert.equal(read('--version-hash', first.toUpperCase(), '--hash').stdout, `${first}\n`);
  assert.equal(read('--hash').stdout, `${second}\n`);
  const { session: text, hash, creator } = JSON.parse(read('--json').stdout);
  assert.deepEqual([text, hash], [`predecessor: "${first}"\nname: versions\nversion: "0.3.1"\n`, second]);
  assert.deepEqual(creator, { certificate: stack.scone('self', 'show-key-hash').trim() });
  assert.match(read('--version-hash', 'a'.repeat(64)).stderr, /Code: SESSION_NOT_FOUND/);
  assert.equal(read('--version-hash', 'abc').status, 64);
});

test('history says who changed what', () => {
  const text = (services: string, rest = '') => `name: changing
version: "0.3"
security: {attestation: {mode: none}}
services: [${services}]
${rest}`;
  const hashes = [
    stack.create(text('{name: a}, {name: b}')),
    update(text('{name: b, command: x}, {name: c}')).stdout.trim(),
    update(
      text(
        '{name: b, command: x}, {name: c}',
        'secrets: [{name: s, kind: binary}]\nsalt: abababababababababababababababab',
      ),
    ).stdout.trim(),
    update(text('{name: c}, {name: b, command: x}', 'access_policy: {read: ANY}')).stdout.trim(),
  ].reverse();
  const told = stack.scone('session', 'history', 'changing');
  const by = `  by       certificate ${stack.scone('self', 'show-key-hash')}`;
  assert.equal(
    told.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/g, 'TIME'),
    `version 4  TIME  ${hashes[0]}
${by}  changed  access_policy (read), services, secrets (-s), salt
version 3  TIME  ${hashes[1]}
${by}  changed  salt, secrets (+s)
version 2  TIME  ${hashes[2]}
${by}  changed  services (-a, b, +c)
version 1  TIME  ${hashes[3]}
${by}`,
  );
  const limited = JSON.parse(stack.scone('session', 'history', 'changing', '--limit', '2', '--json'));
  assert.deepEqual(
    limited.map(({ number, changed }: Record<string, unknown>) => [number, changed]),
    [
      [4, ['access_policy (read)', 'services', 'secrets (-s)', 'salt']],
      [3, ['salt', 'secrets (+s)']],
    ],
  );
  assert.equal(session('history', 'changing', '--limit', '0').status, 64);
});

test('a long history is read over as many pages as it takes', async () => {
  const first = stack.create('name: long\nversion: "0.3"\n');
  const texts = [...Array(100).keys()].map(
    (number) => `{name: long, version: "0.3.${number % 10}", predecessor: $LAST}`,
  );
  await upload(texts.with(0, texts[0]?.replace('$LAST', first) ?? ''), 1);
  const all = JSON.parse(stack.scone('session', 'history', 'long', '--limit', '1000', '--json'));
  assert.deepEqual(
    all.map(({ number }: { number: number }) => number),
    [...Array(101).keys()].map((index) => 101 - index),
  );
  assert.equal(all.at(-1).hash, first);
  assert.equal(JSON.parse(stack.scone('session', 'history', 'long', '--json')).length, 20);
});

test('explain says what a launcher has to show, and how to start it', () => {
  const digits = (digit: string) => digit.repeat(64);
  stack.create(`name: told
version: "0.3"
services:
  - name: web
    attestation:
      - {mrenclave: [${stack.envcasMeasurement}, ${digits('b')}]}
      - {mrenclave: ${digits('c')}, signer: {mrsigner: ${digits('d')}, isvprodid: 7, isvsvn_min: 2}}
    platforms: [${digits('e')}]
    one_time_password_shared_secret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ
    image_name: i
  - {name: plain, mrenclaves: [$$SCONE::who$$], image_name: i, command: [envcas, admitted]}
images: [{name: i, injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/echo"}]}]
secrets: [{name: who, kind: config-fragment, value: ["${stack.envcasMeasurement}"]}]
security: {attestation: {tolerate: [debug-mode], ignore_advisories: [INTEL-SA-00657]}}
`);
  const { stdout, status, stderr } = session('explain', 'told/web');
  assert.equal(status, 0, stderr);
  for (const expected of [
    /^The CAS gives told\/web to a launcher if all of this holds:\n\n1\. /,
    new RegExp(`measurement ${stack.envcasMeasurement} or ${digits('b')} \\(SCONE_HASH=1 envcas`),
    new RegExp(
      `measurement ${digits('c')} .*, and signer \\(MRSIGNER\\) ${digits('d')}, product 7, security version at least 2\n`,
    ),
    new RegExp(`platforms:\n +${digits('e')}\n`),
    /none but these:\n +debug-mode: software Evidence/,
    /advisory applies to its platform but these:\n +INTEL-SA-00657\n/,
    /one-time password[^\n]*\n.*scone otp show told\/web/,
    /\nTo start it:\n {2}SCONE_CAS_ADDR=localhost:\d+ SCONE_CAS_KEY=\w+ SCONE_CONFIG_ID=told\/web@CODE envcas\n$/,
  ])
    assert.match(stdout, expected);
  const { trustedPlatforms, oneTimePassword } = JSON.parse(
    stack.scone('session', 'explain', 'told/web', '--json'),
  );
  assert.ok(oneTimePassword === true && stdout.includes(`\n     ${trustedPlatforms[0]}\n`));

  // What is printed can be run, also by a user who has attested nothing.
  const plain = stack.scone('session', 'explain', 'told/plain');
  assert.match(plain, new RegExp(`measurement ${stack.envcasMeasurement} `));
  const [, line = ''] = /\nTo start it:\n {2}(.*)\n$/.exec(plain) ?? [];
  const env = { HOME: stack.files, SCONE_LAS_ADDR: stack.env.SCONE_LAS_ADDR, PATH: join(stack.envcas, '..') };
  const launched = run('/bin/sh', ['-c', line], env);
  assert.equal(launched.stdout, 'admitted\n', launched.stderr);
});

test('explain warns of a service that anybody can start, and names every further factor', () => {
  stack.create('name: open\nversion: "0.3"\nservices: [{name: s}]\nsecurity: {attestation: {mode: none}}\n');
  assert.match(stack.scone('session', 'explain', 'open/s'), /whoever reaches the CAS can start it/);
  stack.create(
    `name: token\nversion: "0.3"\nservices: [{name: s, mrenclaves: [${'a'.repeat(64)}]}]\nsecurity: {service_access_token: TOPSECRET-TOPSECRET-TOPSECRET, singleton_enclaves: true}\n`,
  );
  const told = stack.scone('session', 'explain', 'token/s');
  assert.match(
    told,
    /It is not in debug mode[\s\S]*It knows the service access token[\s\S]*Its process was given no configuration/,
  );
  assert.match(told, / SCONE_SERVICE_ACCESS_TOKEN=TOKEN SCONE_CONFIG_ID=token\/s envcas\n$/);
  assert.equal(/anybody|whoever reaches|TOPSECRET/.test(told), false);
  assert.match(session('explain', 'token/nothing').stderr, /Code: SERVICE_NOT_FOUND/);
  assert.equal(session('explain', 'token').status, 64);
});
