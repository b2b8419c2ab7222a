import assert from 'node:assert/strict';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, type TestContext, test } from 'node:test';
import {
  codeFrom,
  fixtures,
  folder,
  newSharedSecret,
  type Policy,
  start,
  upload,
  wrongCode,
} from '../launcher/support.ts';
import { type Result, run } from '../support/stack.ts';
import { type Host, measurementOf, startHost } from './host.ts';
import { type Build, missingRelease, present, release } from './release.ts';

/** Uploads a session for a launcher, or its next version, and gives the config id of its service. */
const make = (host: Host, launcher: Build, policy: Policy, before?: string) =>
  upload({ env: host.env, envcasMeasurement: measurementOf(launcher.envcas) }, policy, before);

const launch = (host: Host, launcher: Build, id: string, env: NodeJS.ProcessEnv = {}, args: string[] = []) =>
  run(launcher.envcas, args, { ...host.env, SCONE_CONFIG_ID: id, ...env });

/** A launch that ends with the test, whatever becomes of it. */
function supervised(t: TestContext, host: Host, launcher: Build, id: string) {
  const running = start(launcher.envcas, [], {
    env: { ...host.env, SCONE_CONFIG_ID: id },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.after(() => {
    if (running.child.exitCode === null) running.child.kill('SIGTERM');
  });
  return running;
}

function refused({ status, stdout, stderr }: Result, code: string): void {
  assert.deepEqual({ status, stdout }, { status: 77, stdout: '' }, stderr);
  assert.match(stderr, new RegExp(`\\nHint: .+\\nCode: ${code}, exit status 77\\n$`));
}

/** Every way in which CAS, LAS and launcher are of these two versions, but that in which all are of the present one. */
for (const cas of [present, release])
  for (const las of [present, release])
    describe(`a CAS of ${cas.version}, and a LAS of ${las.version}`, { skip: missingRelease }, () => {
      let host: Host;
      before(async () => {
        host = await startHost({ cas, las });
      });

      for (const launcher of [present, release]) {
        if ([cas, las, launcher].every((each) => each === present)) continue;
        const its = `a launcher of ${launcher.version}`;

        test(`${its} gives its program arguments, variables and files`, async () => {
          const files = folder(host);
          const [text, bytes] = [join(files, 'text'), join(files, 'bytes')];
          const id = await make(host, launcher, {
            command: ['-c', 'cat "$0" "$1"; echo "$SECRET $FROM_HOST $2"', text, bytes, '@@1'],
            environment: { SECRET: '$$SCONE::word$$', '@@FROM_HOST': null },
            files: [
              { to: text, content: 'word=$$SCONE::word$$,' },
              { to: bytes, content: '$$SCONE::key$$' },
            ],
            secrets: {
              word: { kind: 'ascii', value: 'abracadabra' },
              key: { kind: 'binary', value: Buffer.from('key\n').toString('hex') },
            },
          });
          const { status, stdout, stderr } = launch(host, launcher, id, { FROM_HOST: 'host' }, ['one']);
          assert.deepEqual(
            { status, stdout, stderr },
            { status: 0, stdout: 'word=abracadabra,key\nabracadabra host one\n', stderr: '' },
          );
        });

        test(`${its} is asked for a one-time password and an access token`, async () => {
          const oneTimePassword = newSharedSecret();
          const accessToken = 'open-sesame-open-sesame';
          const policy = { program: '/bin/echo', command: ['done'], oneTimePassword, accessToken };
          const id = await make(host, launcher, policy);
          const code = codeFrom(oneTimePassword);
          const token = { SCONE_SERVICE_ACCESS_TOKEN: accessToken };
          refused(launch(host, launcher, id, token), 'OTP_MISSING');
          refused(launch(host, launcher, `${id}@${wrongCode(oneTimePassword)}`, token), 'OTP_INVALID');
          refused(launch(host, launcher, `${id}@${code}`), 'ACCESS_TOKEN_MISSING');
          const { stdout, stderr } = launch(host, launcher, `${id}@${code}`, token);
          assert.equal(stdout, 'done\n', stderr);
          refused(launch(host, launcher, `${id}@${code}`, token), 'OTP_USED');
        });

        test(`${its} is refused a service for another measurement`, async () => {
          const id = await make(host, launcher, { measurement: 'ab'.repeat(32) });
          refused(launch(host, launcher, id), 'MEASUREMENT_UNEXPECTED');
        });

        test(`${its} hands a change on to the program that it supervises`, async (t) => {
          const files = folder(host);
          const [talker, file] = [join(files, 'talker'), join(files, 'file')];
          // Not by copyFile(), which keeps the owner.
          writeFileSync(talker, readFileSync(join(fixtures, 'talker.sh')));
          chmodSync(talker, 0o755);
          const policy = (value: string): Policy => ({
            program: talker,
            environment: { VALUE: '$$SCONE::word$$', FILE: file },
            files: [{ to: file, content: '$$SCONE::word$$' }],
            launcher: { supervise: { on_change: 'restart' } },
            secrets: { word: { kind: 'ascii', value } },
          });
          const id = await make(host, launcher, policy('one'));
          const running = supervised(t, host, launcher, id);
          await running.seen(/^up \d+ one one$/m);
          await make(host, launcher, policy('two'), id);
          await running.seen(/^up \d+ two two$/m);
          running.child.kill('SIGTERM');
          assert.equal((await running.finished).status, 0);
        });
      }
    });

describe('what a policy asks for that the release does not know', { skip: missingRelease }, () => {
  const echo = { program: '/bin/echo', command: ['done'] };
  const policy = { ...echo, runAs: `uid:${process.getuid?.()}` };

  test('as whom a launcher of the release runs, a LAS of the present version says', async () => {
    const host = await startHost({ cas: present, las: present });
    const { stdout, stderr } = launch(host, release, await make(host, release, policy));
    assert.equal(stdout, 'done\n', stderr);
    await host.stop();
  });

  test('as whom any launcher runs, a LAS of the release does not say, which is told', async () => {
    const host = await startHost({ cas: present, las: release });
    const told =
      /LAS, of an older version, does not say: start the present one .*\nNote: .*\nHint: .+\nCode: (.+)\n$/;
    // The release knows no such code, and shows what it was told all the same.
    for (const [launcher, code] of [
      [present, 'RUN_AS_UNEXPECTED, exit status 77'],
      [release, 'INTERNAL, exit status 70'],
    ] as const) {
      const { stdout, stderr } = launch(host, launcher, await make(host, launcher, policy));
      assert.equal(stdout, '');
      assert.equal(told.exec(stderr)?.[1], code, stderr);
    }
    await host.stop();
  });

  test('a CAS of the release takes no such policy', async () => {
    const host = await startHost({ cas: release, las: release });
    await assert.rejects(make(host, present, policy), /run_as: unknown key/);
    await host.stop();
  });

  test('a launcher of the release leaves nothing out that it does not know', async () => {
    const host = await startHost({ cas: present, las: present });
    const command = { command: ['/bin/true'], sha256: 'ab'.repeat(32) };
    const id = await make(host, release, { ...echo, launcher: { supervise: { on_change: command } } });
    const { status, stdout, stderr } = launch(host, release, id);
    assert.deepEqual({ status, stdout }, { status: 76, stdout: '' });
    assert.match(
      stderr,
      /on_change\.sha256\n.*\nHint: .* of a version that fits this program\.\nCode: CAS_PROTOCOL,/,
    );
    await host.stop();
  });
});
