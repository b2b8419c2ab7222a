import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { freePorts } from '../support/port.ts';
import { run, type Server, startServer } from '../support/stack.ts';
import { until } from '../support/until.ts';
import { measurementOf, startLas } from './host.ts';
import { type Build, missingRelease, present, release } from './release.ts';

const runAs = ['--run-as', `uid:${process.getuid?.()}`];

/** Hosts of CASes that nobody but people opens, and somebody who does. */
async function start(las: Build) {
  const home = temporaryFolder();
  const env: Record<string, string> = { PATH: process.env.PATH ?? '', HOME: home };
  const { socket, match } = await startLas(las, home);
  const tryScone = (build: Build, args: string[], input?: string) => run(build.scone, args, env, input);
  const scone = (build: Build, args: string[], input?: string) => {
    const { status, stdout, stderr } = tryScone(build, args, input);
    if (status !== 0) throw new Error(`scone ${args.join(' ')} of ${build.version}: ${stderr}`);
    return stdout;
  };
  const stored = (name: string) => ['--dir', join(home, name)];
  return {
    env,
    tryScone,
    scone,
    stored,
    /** What is known of a CAS of a version. */
    trust: (build: Build) => [
      ...['--mrenclave', measurementOf(build.scone), '--trusted-platform', match[1] ?? ''],
      ...['--only_for_testing-debug', '--only_for_testing-ignore-signer'],
    ],
    file(name: string, text: string) {
      const path = join(home, name);
      writeFileSync(path, text, { mode: 0o600 });
      return path;
    },
    async serve(build: Build, name: string, ...options: string[]) {
      const first = await freePorts(2);
      mkdirSync(join(home, name), { recursive: true, mode: 0o700 });
      const server: Server = await startServer(
        build.scone,
        [
          ...['cas', 'serve', ...stored(name), '--las', socket, '--trusted-platform', match[1] ?? ''],
          ...['--host', '127.0.0.1', '--api-port', `${first}`, '--enclave-port', `${first + 1}`],
          ...['--workers', '1', ...options],
        ],
        /To open it: .*\n|^CAS key hash: \w+$/m,
        { env },
      );
      const key = async () => {
        await until(() => /^CAS key hash: (\w+)$/m.test(server.output()), 'an open CAS');
        return /^CAS key hash: (\w+)$/m.exec(server.output())?.[1] ?? '';
      };
      return { server, address: `127.0.0.1:${first}`, key };
    },
  };
}

describe('a store of the release that people open', { skip: missingRelease }, () => {
  for (const las of [release, present])
    test(`opens by its shares and its passphrase under the present version, with a LAS of ${las.version}`, async () => {
      const { scone, tryScone, stored, serve, trust, file } = await start(las);
      const passphrase = 'correct horse battery staple';
      const shares =
        scone(
          release,
          ['cas', 'init', ...stored('cas'), '--shares', '2/3', '--new-passphrase'],
          `${passphrase}\n`,
        ).match(/^\S{40,}$/gm) ?? [];
      assert.equal(shares.length, 3);
      const give = (user: Build, cas: Build, address: string, how: string[], secret: string) =>
        scone(user, [
          ...['cas', 'unseal', address, ...trust(cas), ...(user === present ? runAs : [])],
          ...[...how, '--secret-file', file('secret', secret)],
        ]);
      // A LAS of the release says to nobody as whom a CAS runs, which the present scone asks.
      const users = las === present ? [present, release] : [release];
      let key: string | undefined;
      for (const cas of [release, present])
        for (const user of users) {
          const running = await serve(cas, 'cas');
          assert.match(running.server.output(), /CAS is sealed/);
          give(user, cas, running.address, ['--share'], shares[2] ?? '');
          give(user, cas, running.address, ['--share'], shares[0] ?? '');
          key ??= await running.key();
          assert.equal(await running.key(), key);
          await running.server.stop();
          const again = await serve(cas, 'cas');
          give(user, cas, again.address, [], passphrase);
          assert.equal(await again.key(), key);
          await again.server.stop();
        }
      if (las === present) return;
      const { server, address } = await serve(present, 'cas');
      const { status, stderr } = tryScone(present, [
        ...['cas', 'unseal', address, ...trust(present), ...runAs],
        ...['--share', '--secret-file', file('secret', shares[1] ?? '')],
      ]);
      assert.equal(status, 77);
      assert.match(stderr, /its LAS, of an older version, does not say: start the present one there/);
      await server.stop();
    });
});
