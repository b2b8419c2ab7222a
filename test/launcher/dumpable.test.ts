import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { chownSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { formatKeyHash, publicKeyDigest } from '../../src/policy/key-hash.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { executables, run, type Stack, startServer, startStack } from '../support/stack.ts';
import { fixtures, launch, NOBODY, noOthers, openToOthers, start, startImpostor, upload } from './support.ts';

let stack: Stack;
before(async () => {
  stack = await startStack();
  openToOthers(stack);
});

const program = join(fixtures, 'dumpable.ts');
const node = ['--disable-warning=ExperimentalWarning', program];

test('makeNonDumpable() does what it says', () => {
  const { stdout, stderr } = run(process.execPath, [...node, 'protect'], stack.env);
  assert.deepEqual({ stdout, stderr }, { stdout: '1 0\n', stderr: '' });
});

test('the program that was started is as dumpable as any', async () => {
  const id = await upload(stack, { program: process.execPath, command: node });
  const { stdout, stderr } = stack.launch(id);
  assert.deepEqual({ stdout, stderr }, { stdout: '1\n', stderr: '' });
});

for (const [what, las] of [
  ['with Evidence', undefined],
  ['without Evidence', '/nonexistent/las.sock'],
] as const)
  test(`when the launcher asks the CAS ${what}, no process of its user can read it any more`, {
    skip: noOthers,
  }, async () => {
    const impostor = await startImpostor();
    const { publicKey } = new X509Certificate(impostor.certificate);
    const { child, finished } = launch(stack, 'session/main', {
      uid: NOBODY,
      env: {
        HOME: '/nonexistent',
        SCONE_CAS_KEY: formatKeyHash(publicKeyDigest(publicKey)),
        SCONE_CAS_ENCLAVE_PORT: impostor.port,
        ...(las && { SCONE_LAS_ADDR: las }),
      },
    });
    try {
      await Promise.race([
        impostor.asked,
        finished.then(({ stderr }) => Promise.reject(new Error(`it did not ask: ${stderr}`))),
      ]);
      assert.equal(impostor.received().includes('"evidence"'), las === undefined);
      assert.match(readFileSync(`/proc/${child.pid}/status`, 'utf8'), new RegExp(`^Uid:\t${NOBODY}\t`, 'm'));
      // proc(5): the files of a process that is not dumpable belong to root.
      assert.equal(statSync(`/proc/${child.pid}/environ`).uid, 0);
      const cat = start('/bin/cat', [`/proc/${child.pid}/environ`], {
        env: stack.env,
        uid: NOBODY,
        gid: NOBODY,
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      const { status, stdout } = await cat.finished;
      assert.deepEqual({ status, stdout }, { status: 1, stdout: '' });
    } finally {
      child.kill('SIGKILL');
      await finished;
      impostor.close();
    }
  });

test('a LAS of an ordinary user vouches for his launcher again, and he cannot read it after that', {
  skip: noOthers,
}, async () => {
  const home = temporaryFolder();
  chownSync(home, NOBODY, NOBODY);
  const { scone, envcas } = executables();
  const plain = { PATH: process.env.PATH ?? '', HOME: home };
  const args = ['up', '--dir', join(home, 'state'), '--free-ports'];
  const server = await startServer(scone, args, /To use them/, { env: plain, uid: NOBODY, gid: NOBODY });
  try {
    const settings = readFileSync(join(home, 'state/env'), 'utf8').matchAll(/^export (\w+)=(.*)$/gm);
    const own = {
      ...stack,
      envcas,
      env: { ...plain, ...Object.fromEntries([...settings].map(([, ...it]) => it)) },
    };
    const policy = (word: string) => ({
      command: ['-c', `echo ${word}; exec sleep 100000`],
      launcher: { supervise: {} },
    });
    const id = await upload(own, policy('before'));
    const { child, seen, finished } = launch(own, id, { uid: NOBODY });
    try {
      await seen(/^before$/m);
      await upload(own, policy('after'), id);
      await seen(/^after$/m);
      assert.equal(statSync(`/proc/${child.pid}/environ`).uid, 0);
    } finally {
      child.kill('SIGTERM');
      await finished;
    }
  } finally {
    await server.stop();
  }
});
