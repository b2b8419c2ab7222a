import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { freePorts } from '../support/port.ts';
import { missingPostgres, startPostgres } from '../support/postgres.ts';
import { run, type Server, startServer } from '../support/stack.ts';
import { until } from '../support/until.ts';
import { measurementOf, startLas } from './host.ts';
import { type Build, missingRelease, present, release } from './release.ts';

const runAs = ['--run-as', `uid:${process.getuid?.()}`];

/** Hosts of CASes that nobody but people opens, and somebody who does. */
async function start(las: Build, store?: string) {
  const home = temporaryFolder();
  const env: Record<string, string> = { PATH: process.env.PATH ?? '', HOME: home };
  const { socket, match } = await startLas(las, home);
  const tryScone = (build: Build, args: string[], input?: string) => run(build.scone, args, env, input);
  const scone = (build: Build, args: string[], input?: string) => {
    const { status, stdout, stderr } = tryScone(build, args, input);
    if (status !== 0) throw new Error(`scone ${args.join(' ')} of ${build.version}: ${stderr}`);
    return stdout;
  };
  const stored = (name: string) => ['--dir', join(home, name), ...(store ? ['--store', store] : [])];
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
          if (user === present)
            assert.match(
              give(user, cas, running.address, ['--share'], shares[1] ?? ''),
              / is open already$/m,
            );
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

describe('an upgrade from the release', { skip: missingRelease || missingPostgres }, () => {
  test('the release opens the first CAS of the present version, and that one the others, once they are registered at it', async () => {
    const store = await (await startPostgres()).database();
    const { scone, tryScone, stored, serve, trust, file } = await start(present, store);
    const shares =
      scone(release, ['cas', 'init', ...stored('one'), '--shares', '2/3']).match(/^\S{40,}$/gm) ?? [];
    const one = await serve(release, 'one');
    for (const share of shares.slice(1))
      scone(release, [
        ...['cas', 'unseal', one.address, ...trust(release), '--share'],
        ...['--secret-file', file('share', share)],
      ]);
    const key = await one.key();
    const [, token = ''] = /^CAS provisioning token: (\w+)$/m.exec(one.server.output()) ?? [];
    scone(release, [
      ...['cas', 'provision', one.address, 'with-attestation', ...trust(release), '-c', key],
      ...['--token-file', file('token', token)],
      ...['--config-file', file('owner.toml', '[api_identity]\ncommon_name = "cas"\n')],
    ]);
    scone(release, ['cas', 'attest', one.address, ...trust(release), '-c', key]);
    const session = 'name: shop\nversion: "0.3"\n';
    scone(release, ['session', 'create', file('session.yaml', session)]);

    const two = await serve(present, 'two', '--unseal-from', `${one.address}=${key}`);
    const notRegistered = /no CAS with measurement \w+ on platform \w+ is registered/;
    assert.match(two.server.output(), notRegistered);
    scone(release, ['cas', 'register-upgrade', two.address, ...trust(present)]);
    assert.equal(await two.key(), key);
    scone(present, ['cas', 'attest', two.address, ...trust(present), ...runAs, '-c', key]);

    const three = await serve(present, 'three', '--unseal-from', `${two.address}=${key}`);
    const outdated = /the registration \w+ does not say as whom the CAS must run, so it gives no root key/;
    assert.match(three.server.output(), outdated);
    const started = tryScone(present, ['cas', 'start-upgrade', '--yes', '--cas', two.address]);
    assert.match(started.stderr, /^Hint: .*register-upgrade.*\nCode: UPGRADE_NOT_REGISTERED,/m);
    const register = ['cas', 'register-upgrade', three.address, ...trust(present), ...runAs];
    scone(present, [...register, '--cas', two.address]);
    assert.equal(await three.key(), key);
    scone(present, ['cas', 'start-upgrade', '--yes', '--cas', two.address]);

    await one.server.stop();
    const again = await serve(present, 'one', '--unseal-from', `${two.address}=${key}`);
    assert.equal(await again.key(), key);
    const back = await serve(release, 'four', '--unseal-from', `${two.address}=${key}`);
    assert.match(back.server.output(), notRegistered);
    const [old, fresh] = scone(present, ['cas', 'list-registrations', '--cas', two.address]).split('\n');
    assert.match(old ?? '', / gives nothing: register it anew, with --run-as$/);
    assert.match(fresh ?? '', new RegExp(` uid:${process.getuid?.()}$`));
    for (const { address } of [two, three, again]) {
      scone(present, ['cas', 'attest', address, ...trust(present), ...runAs, '-c', key]);
      assert.equal(scone(present, ['session', 'read', 'shop', '--cas', address]), session);
    }
  });
});
