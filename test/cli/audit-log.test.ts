import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { verdicts } from '../../src/audit/verify-log.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { executables, type RunningCas, run, type Server, startCas, startServer } from '../support/stack.ts';

const { scone } = executables();
let folder: string;
let las: Server;
let cas: RunningCas;
let platform: string;
const file = (name: string) => join(folder, name);
const plain = () => ({ PATH: process.env.PATH ?? '', HOME: folder });
const start = async (ports?: { api: string; enclave: string }) => {
  const options = ['--las', file('las.sock'), '--workers', '1', '--log-level', 'error'];
  cas = await startCas(scone, file('cas'), options, plain(), ports);
};
/** Starts it again where it was, after something was done to what it keeps. */
const restart = async (meanwhile: () => void) => {
  const ports = { api: cas.apiPort, enclave: cas.enclavePort };
  await cas.server.stop();
  meanwhile();
  await start(ports);
};
const command = (...args: string[]) => run(scone, args, { ...plain(), ...cas.settings });
const must = (...args: string[]) => {
  const result = command(...args);
  assert.equal(result.status, 0, result.stderr);
  return result.stdout;
};
const attest = () =>
  must(
    ...['cas', 'attest', `127.0.0.1:${cas.apiPort}`, '-c', cas.key, '--trusted-platform', platform],
    ...['--only_for_testing-trust-any', '--only_for_testing-debug', '--only_for_testing-ignore-signer'],
  );
let sessions = 0;
const upload = () => {
  writeFileSync(file('session.yaml'), `name: s${++sessions}\nversion: "0.3"\n`);
  must('session', 'create', file('session.yaml'));
};

before(async () => {
  folder = temporaryFolder();
  las = await startServer(
    scone,
    ['las', 'serve', '--dir', file('las'), '--socket', file('las.sock')],
    /LAS key \(platform\): (\w+)\n/,
    { env: plain() },
  );
  platform = las.match[1] ?? '';
  await start();
  const [, token = ''] = /CAS provisioning token: (\w+)\n/.exec(cas.server.output()) ?? [];
  writeFileSync(file('token'), token, { mode: 0o600 });
  writeFileSync(file('owner.json'), '{"api_identity":{"common_name":"cas"}}');
  attest();
  must(
    ...[
      'cas',
      'provision',
      `127.0.0.1:${cas.apiPort}`,
      'only_for_testing-without-attestation',
      '-c',
      cas.key,
    ],
    ...['--config-file', file('owner.json'), '--token-file', file('token')],
  );
});

/** The log as it is now, in a file. */
const readLog = (name: string): string[] => {
  rmSync(file(name), { force: true });
  must('-o', file(name), 'cas', 'read-audit-log');
  return readFileSync(file(name), 'utf8').split('\n').slice(0, -1);
};
const write = (name: string, lines: readonly string[]) =>
  writeFileSync(file(name), lines.map((line) => `${line}\n`).join(''));
const verify = (how: 'verify' | 'attest', name: string, ...args: string[]) =>
  command('cas', `${how}-audit-log`, file(name), ...args).status;
const signatureOf = (line: string | undefined) => JSON.parse(line ?? '').signature as string;

test('each finding about a log has its exit status', () => {
  for (let count = 0; count < 3; count++) upload();
  const lines = readLog('log');
  assert.equal(verify('attest', 'log'), verdicts.whole.exit);
  assert.equal(verify('verify', 'log'), verdicts.whole.exit);

  write('short', lines.slice(0, -2));
  assert.equal(verify('attest', 'short'), verdicts['recent missing'].exit);
  write('late', lines.slice(3));
  const introduced = lines.find((line) => line.includes('"cas_started"')) ?? '';
  assert.ok(introduced);
  assert.equal(verify('verify', 'late'), verdicts.forged.exit, 'nothing in it says whose it is');
  write('late', lines.slice(lines.lastIndexOf(introduced)));
  if (lines.lastIndexOf(introduced) > 0)
    assert.equal(verify('verify', 'late'), verdicts['older missing'].exit);

  const changed = lines.map((line, at) => (at === 2 ? line.replace('"time":"2', '"time":"1') : line));
  write('changed', changed);
  assert.equal(verify('verify', 'changed'), verdicts.forged.exit);
  write('without', lines.toSpliced(2, 1));
  assert.equal(verify('verify', 'without'), verdicts.forged.exit);

  const last = signatureOf(lines.at(-1));
  write('less', lines.slice(0, -1));
  assert.equal(verify('verify', 'less', '--last', last), verdicts.deleted.exit);
  assert.equal(verify('verify', 'log', '--last', last), verdicts.whole.exit);

  const known = ['-c', cas.key];
  const stranger = run(scone, ['cas', 'verify-audit-log', file('log'), ...known], {
    ...plain(),
    HOME: file('nobody'),
  });
  assert.equal(stranger.status, verdicts.unknown.exit, stranger.stderr);
  const other = ['-c', '4XSZ9jAb2EwXXyGLb2yMEK3Tnj8DfMjgNNQ18LkfJg7UJCpxad'];
  const another = run(scone, ['cas', 'verify-audit-log', file('log'), ...other], {
    ...plain(),
    HOME: file('nobody'),
  });
  assert.equal(another.status, verdicts['other CAS'].exit, another.stderr);
});

test('who has seen more than a CAS has is told so by every command, and by the log', async () => {
  const ports = { api: cas.apiPort, enclave: cas.enclavePort };
  await cas.server.stop();
  copyFileSync(file('cas/cas.db'), file('older.db'));
  await start(ports);
  upload();
  upload();
  readLog('newer');
  must('cas', 'show-config');
  await restart(() => {
    for (const rest of ['-wal', '-shm']) rmSync(file(`cas/cas.db${rest}`), { force: true });
    copyFileSync(file('older.db'), file('cas/cas.db'));
  });
  const told = command('session', 'list');
  assert.equal(told.status, 77, told.stdout);
  assert.match(told.stderr, /Code: CAS_ROLLED_BACK/);
  assert.equal(verify('attest', 'newer'), verdicts['rolled back'].exit);
  // Whoever knows why accepts it by attesting it again.
  attest();
  must('session', 'list');
});

test('a restart is none of that', async () => {
  readLog('before');
  await restart(() => {});
  must('session', 'list');
  assert.equal(verify('attest', 'before'), verdicts['recent missing'].exit);
  readLog('after');
  assert.equal(verify('attest', 'after'), verdicts.whole.exit);
});
