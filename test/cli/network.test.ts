import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { executables, missing, run, type Stack, startStack } from '../support/stack.ts';

/** How commands find the CAS, and who they are there. */

let stack: Stack;
before(async () => {
  stack = await startStack();
  stack.create('name: mine\nversion: "0.3"\n');
});

const file = (name: string) => join(stack.files, name);
const write = (name: string, text: string) => {
  writeFileSync(file(name), text, { mode: 0o600 });
  return file(name);
};
const read = (...args: string[]) => stack.tryScone('session', 'read', 'mine', ...args);
const unverified = '--only_for_testing-disable-attestation-verification';
const state = () => readFileSync(join(stack.env.HOME ?? '', '.cas', 'config.json'), 'utf8');
const openssl = (...args: string[]): string => {
  const { status, stdout, stderr } = run('openssl', args, { PATH: process.env.PATH });
  assert.equal(status, 0, stderr);
  return stdout;
};

test('--identity takes a key and its certificate of any kind, in any order', {
  skip: missing('openssl'),
}, () => {
  const algorithms = [
    ['ed25519'],
    ['ec', '-pkeyopt', 'ec_paramgen_curve:P-384'],
    ['rsa', '-pkeyopt', 'rsa_keygen_bits:2048'],
  ];
  const readers = algorithms.map((algorithm, index) => {
    const [key, certificate] = [file(`${index}.key`), file(`${index}.crt`)];
    const request = ['req', '-x509', '-noenc', '-subj', '/CN=x', '-keyout', key, '-out', certificate];
    openssl(...request, '-newkey', ...algorithm);
    const identity = [readFileSync(key, 'utf8'), readFileSync(certificate, 'utf8')];
    if (index === 1) identity.reverse();
    return {
      file: write(`${index}.pem`, `some text\n${identity.join('more text\n')}`),
      keyHash: stack.scone('cert', 'show-key-hash', certificate).trim(),
    };
  });
  for (const { file, keyHash } of readers) {
    assert.match(read('--identity', file).stderr, /Code: ACCESS_DENIED/);
    const name = `of-${keyHash}`;
    stack.create(`name: ${name}\nversion: "0.3"\n`, '--identity', file);
    assert.equal(stack.scone('session', 'read', name, '--identity', file), `name: ${name}\nversion: "0.3"\n`);
    assert.equal(stack.tryScone('session', 'read', name).status, 77);
  }
  const [one, two] = readers;
  const [key = ''] = readFileSync(one?.file ?? '', 'utf8').split('more text');
  const [, other = ''] = readFileSync(readers[2]?.file ?? '', 'utf8').split('more text');
  for (const wrong of [
    write('mixed.pem', key + other),
    write('half.pem', key),
    write('sec1.pem', openssl('ec', '-in', two?.file ?? '') + other),
    write('none.pem', ''),
    '/dev/zero',
    file('nowhere'),
  ]) {
    const { status, stdout, stderr } = read('--identity', wrong);
    assert.deepEqual([status, stdout], [65, ''], wrong);
    assert.equal(stderr.includes('PRIVATE KEY-----'), false);
  }
});

test('a CAS that was not attested is asked only where that is wanted, and warned of', async () => {
  const address = `localhost:${stack.env.SCONE_CAS_API_PORT}`;
  assert.match(read('-c', address).stderr, /Code: CAS_UNKNOWN, exit status 78/);
  const asked = read('-c', address, unverified);
  assert.match(asked.stderr, /^Warning: the key of the CAS at localhost:\d+ is not checked: /);
  assert.equal(asked.stdout, 'name: mine\nversion: "0.3"\n');
  // The port comes from SCONE_CAS_API_PORT then, as in `scone cas attest`; no name means the default CAS.
  for (const args of [['-c', 'localhost'], ['-c', '127.0.0.1'], []])
    assert.equal(read(...args, unverified).status, 0, args.join(' '));
  assert.equal(read('-c', 'no address!', unverified).status, 78);

  const other = await startStack();
  try {
    const [here = '', there = ''] = [stack.env.SCONE_CAS_API_PORT, other.env.SCONE_CAS_API_PORT];
    const config = write('moved.json', state().replaceAll(here, there));
    const moved = (...args: string[]) => stack.tryScone('-c', config, 'session', 'read', 'mine', ...args);
    assert.match(moved().stderr, /Code: CAS_KEY_MISMATCH, exit status 76/);
    assert.match(moved(unverified).stderr, /^Warning: .*[\s\S]*Code: SESSION_NOT_FOUND/);
  } finally {
    await other.stop();
  }
});

test('a CAS that cannot be reached yet is tried again', async () => {
  const port = stack.env.SCONE_CAS_API_PORT ?? '';
  const free = createServer().listen(0, '127.0.0.1');
  await once(free, 'listening');
  const { port: closed } = free.address() as { port: number };
  free.close();
  await once(free, 'close');
  const config = write('later.json', state().replaceAll(port, String(closed)));
  const args = ['-c', config, 'session', 'read', 'mine'];
  assert.match(stack.tryScone(...args, '--retries', '0').stderr, /Code: CAS_UNREACHABLE, exit status 69/);

  const child = spawn(executables().scone, [...args, '--retries', '99'], { env: stack.env });
  let text = '';
  child.stdout.on('data', (chunk) => {
    text += chunk;
  });
  // What listens there now passes all on to the CAS, once one attempt has failed.
  const ended = once(child, 'close');
  const refused = createServer((socket) => {
    socket.destroy();
    refused.close();
  }).listen(closed, '127.0.0.1');
  await once(refused, 'close');
  const relay = createServer((socket) => {
    const onward = createConnection({ host: '127.0.0.1', port: Number(port) });
    socket.pipe(onward).pipe(socket);
    for (const end of [socket, onward]) end.on('error', () => {});
  }).listen(closed, '127.0.0.1');
  try {
    assert.deepEqual((await ended)[0], 0);
    assert.equal(text, 'name: mine\nversion: "0.3"\n');
  } finally {
    relay.close();
  }
});
