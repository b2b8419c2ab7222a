import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { promisify } from 'node:util';
import { missing, type Stack, startStack } from '../support/stack.ts';

interface Answer {
  status: number;
  body: { hash?: string; msg?: string[]; code?: string; session?: string; [key: string]: unknown };
}

/** The REST interface as curl sees it, with keys and certificates made by openssl. */
describe('the REST interface', { skip: missing('curl', 'openssl') }, () => {
  let stack: Stack;
  let url: string;

  before(async () => {
    stack = await startStack();
    url = `https://localhost:${stack.env.SCONE_CAS_API_PORT}`;
    writeFileSync(file('cas.pem'), stack.scone('cas', 'show-identification', '--chain'));
    for (const name of ['alice', 'bob'])
      execFileSync(
        'openssl',
        [
          'req',
          '-x509',
          '-newkey',
          'ec',
          '-pkeyopt',
          'ec_paramgen_curve:P-256',
          '-nodes',
          '-days',
          '1',
        ].concat(['-subj', `/CN=${name}`, '-keyout', file(`${name}.key`), '-out', file(`${name}.pem`)]),
        { stdio: 'ignore' },
      );
  });

  const file = (name: string) => join(stack.files, name);
  const keyHash = (name: string) => stack.scone('cert', 'show-key-hash', file(`${name}.pem`)).trim();
  const identity = (name: string) => ['--cert', file(`${name}.pem`), '--key', file(`${name}.key`)];

  async function curl(path: string, ...args: string[]): Promise<Answer> {
    const { stdout } = await promisify(execFile)(
      'curl',
      ['-sS', '--cacert', file('cas.pem'), '-w', '\n%{http_code}', ...args, url + path],
      { maxBuffer: 1 << 24 },
    );
    const split = stdout.lastIndexOf('\n');
    return { status: Number(stdout.slice(split + 1)), body: JSON.parse(stdout.slice(0, split)) };
  }

  function upload(text: string, who = 'alice'): Promise<Answer> {
    const path = file(`upload-${Math.random()}.yaml`);
    writeFileSync(path, text);
    return curl('/session', ...identity(who), '--data-binary', `@${path}`, '-X', 'POST');
  }

  const session = (name: string, extra = '') => `name: ${name}\nversion: "0.3.10"\n${extra}`;

  test('plain curl with a client certificate uploads a session and reads it back', async () => {
    const text = session('plain', '# a comment\nsecrets: [{name: s, kind: ascii, value: written}]\n');
    const { status, body } = await upload(text);
    assert.equal(status, 201);
    assert.match(body.hash ?? '', /^[0-9a-f]{64}$/);
    assert.deepEqual(await curl('/session/plain', ...identity('alice')), {
      status: 200,
      body: { session: text, hash: body.hash, creator: { certificate: keyHash('alice') } },
    });
  });

  test('who has no certificate is told so, and who is another is refused', async () => {
    await upload(session('mine'));
    const nobody = await curl('/session/mine');
    assert.equal(nobody.status, 401);
    assert.deepEqual(nobody.body.msg, ['a client certificate is required']);
    const bob = await curl('/session/mine', ...identity('bob'));
    assert.equal(bob.status, 403);
    assert.deepEqual(bob.body.msg, [
      "Failed to read session 'mine'",
      'You have insufficient rights to read session mine',
    ]);
    assert.equal((await upload(session('mine'), 'bob')).status, 403);
  });

  test('what is not there is 404', async () => {
    const missing = await curl('/session/not/there', ...identity('alice'));
    assert.equal(missing.status, 404);
    assert.equal(missing.body.code, 'SESSION_NOT_FOUND');
    assert.equal((await curl('/nothing')).status, 404);
  });

  test('an access policy opens a session to any, or to none', async () => {
    await upload(session('open', 'access_policy: {read: ANY, update: NONE}\n'));
    assert.equal((await curl('/session/open', ...identity('bob'))).status, 200);
    assert.equal((await upload(session('open'))).status, 403);
  });

  test('an update names its predecessor: none, a stale or an unknown one is refused', async () => {
    const first = await upload(session('chain'));
    assert.equal((await upload(session('chain'))).status, 409);
    const update = session('chain', `predecessor: ${first.body.hash}\n`);
    const second = await upload(update);
    assert.equal(second.status, 201);
    assert.notEqual(second.body.hash, first.body.hash);
    assert.deepEqual((await upload(update)).body.code, 'PREDECESSOR_STALE');
    assert.equal((await upload(session('fresh', `predecessor: ${first.body.hash}\n`))).status, 404);
  });

  test('of a hundred who create one session at once, one wins and the others are told', async () => {
    const text = session('race');
    const answers: Answer[] = [];
    for (let round = 0; round < 5; round++)
      answers.push(...(await Promise.all(Array.from({ length: 20 }, () => upload(text)))));
    assert.equal(answers.filter(({ status }) => status === 201).length, 1);
    assert.equal(answers.filter(({ status }) => status === 409).length, 99);
  });

  test('under a namespace only those create sessions whom it allows', async () => {
    assert.equal((await upload(session('ns/inner'))).body.code, 'NAMESPACE_NOT_FOUND');
    await upload(session('ns'));
    assert.equal((await upload(session('ns/inner'), 'bob')).status, 403);
    assert.equal((await upload(session('ns/inner'))).status, 201);
  });

  test('a session that is wrong comes back with every place', async () => {
    const { status, body } = await upload(session('wrong', 'services:\n  - name: s\n    comand: x\n'));
    assert.equal(status, 400);
    assert.equal(body.code, 'POLICY_INVALID');
    const [problem] = body.problems as { line: number; column: number; message: string }[];
    assert.deepEqual([problem?.line, problem?.column], [5, 13]);
    assert.match(problem?.message ?? '', /unknown key "comand", expected one of/);
  });

  test('a body of 100 MB is refused without being read, one that is no text as such', async () => {
    writeFileSync(file('huge'), Buffer.alloc(100 * 1024 * 1024, 0x20));
    const post = [...identity('alice'), '-X', 'POST'];
    const huge = await curl('/session', ...post, '--data-binary', `@${file('huge')}`).catch(() => undefined);
    // The server closes while curl still sends; curl may or may not have read the answer by then.
    if (huge) assert.equal(huge.status, 413);
    writeFileSync(file('binary'), Buffer.of(0xff, 0xfe, 0x00));
    assert.equal((await curl('/session', ...post, '--data-binary', `@${file('binary')}`)).status, 400);
    assert.equal((await curl('/v1/version')).status, 200);
  });

  test('a client that connects and says nothing keeps nobody else from being served', async () => {
    const ports = [stack.env.SCONE_CAS_API_PORT, stack.env.SCONE_CAS_ENCLAVE_PORT].map(Number);
    const silent = await Promise.all(
      ports.flatMap((port) =>
        Array.from({ length: 50 }, async () => {
          const socket = connect(port, '127.0.0.1').on('error', () => {});
          await once(socket, 'connect');
          return socket;
        }),
      ),
    );
    assert.equal((await curl('/v1/version')).status, 200);
    stack.create(
      session(
        'beside',
        'services: [{name: s, image_name: i}]\nimages: [{name: i, injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/true"}]}]\nsecurity: {attestation: {mode: none}}\n',
      ),
    );
    assert.equal(stack.launch('beside/s').status, 0);
    // Those on the launchers' port are let go when the handshake has taken too long.
    await Promise.all(silent.slice(50).map((socket) => socket.destroyed || once(socket.resume(), 'close')));
    for (const socket of silent) socket.destroy();
  });

  test('who leaves before he is answered counts no longer among those who ask', async () => {
    const port = Number(stack.env.SCONE_CAS_API_PORT);
    const unfinished = 'POST /session HTTP/1.1\r\nHost: cas\r\nContent-Length: 100\r\n\r\nname: ';
    const left = await Promise.all(
      Array.from({ length: 130 }, async () => {
        const socket = connectTls({ port, rejectUnauthorized: false }).on('error', () => {});
        await once(socket, 'secureConnect');
        await new Promise((resolve) => socket.write(unfinished, resolve));
        return socket;
      }),
    );
    // Beyond 128 requests at a time there is an answer before the body has come.
    const [refused] = await Promise.race(left.map((socket) => once(socket, 'data')));
    assert.match(String(refused), /TOO_MANY_REQUESTS/);
    for (const socket of left) socket.destroy();
    // The CAS hears of each closed connection in its own time.
    let status = 0;
    for (let tries = 0; status !== 200 && tries < 50; tries++) status = (await curl('/v1/version')).status;
    assert.equal(status, 200);
  });

  test('no secret stands in the store in the clear', async () => {
    const value = 'f00dfeedf00dfeedf00dfeedf00dfeed';
    await upload(session('sealed', `secrets: [{name: s, kind: ascii, value: ${value}}]\n`));
    const folder = join(stack.directory, 'cas');
    const kept = Buffer.concat(readdirSync(folder).map((name) => readFileSync(join(folder, name))));
    assert.ok(kept.includes('sealed'), 'names are kept in the clear, so the search can find something');
    assert.equal(kept.includes(value), false);
    assert.equal(kept.includes('BEGIN PRIVATE KEY'), false);
  });
});
