import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { Secret } from 'otpauth';
import type { Identity } from '../../src/protocol/certificate.ts';
import { start as startProgram } from '../launcher/support.ts';
import {
  codeFrom,
  launch,
  makeIdentity,
  makeLas,
  read,
  sessionWithCodes,
  upload,
} from '../support/client.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { missingPostgres, startPostgres } from '../support/postgres.ts';
import { type RunningCas, run, startCas } from '../support/stack.ts';
import { measurementOf, startLas } from './host.ts';
import { type Build, missingRelease, present, release } from './release.ts';

/** A session whose program prints a secret and a certificate; each version of it has a word of its own. */
const text = (name: string, word: string, predecessor = '~', runAs = '') => `name: ${name}
version: "0.3.10"
predecessor: ${predecessor}
security: {attestation: {tolerate: [debug-mode]}}
services:
  - name: main
    image_name: image
    attestation: [{mrenclave: [${[present, release].map(({ envcas }) => measurementOf(envcas))}], ${runAs}}]
    command: [envcas, -c, 'printf "%s\\n" "$WORD $TOKEN $CERTIFICATE"; while sleep 0.1; do :; done']
    environment: {WORD: ${word}, TOKEN: $$SCONE::token$$, CERTIFICATE: $$SCONE::certificate$$}
images:
  - name: image
    injection_files: [{path: /etc/envcas/config.yaml, content: '{program: /bin/sh, supervise: {on_change: restart}}'}]
secrets:
  - {name: token, kind: ascii, size: 20}
  - {name: key, kind: private-key}
  - {name: certificate, kind: x509, private_key: key}
`;

/** The secret that each version of a session keeps. */
const tokensIn = (printed: string) =>
  Array.from(printed.matchAll(/^\w+ (\S{20}) -----BEGIN/gm), ([, token]) => token);

describe('a replica of the release, and one of the present version, on one PostgreSQL', {
  skip: missingRelease || missingPostgres,
}, () => {
  let folder: string;
  let store: string;
  let alice: Identity;
  let las: { socket: string; platform: string };
  const people = makeLas();
  const env = () => ({ PATH: process.env.PATH ?? '', HOME: folder });
  const keyFile = () => join(folder, 'key', 'master.key');
  const replicas = new Map<Build, RunningCas>();
  const at = (build: Build) => replicas.get(build) as RunningCas;

  /** @param place the replica whose folder and ports it has */
  async function start(build: Build, place = build): Promise<void> {
    const before = replicas.get(place);
    const directory = join(folder, place === present ? 'present' : 'release');
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const trusted = [las.platform, people.platform].flatMap((key) => ['--trusted-platform', key]);
    const options = ['--store', store, '--key-file', keyFile(), '--las', las.socket, ...trusted];
    const ports = before && { api: before.apiPort, enclave: before.enclavePort };
    replicas.set(place, await startCas(build.scone, directory, options, env(), ports));
  }

  before(async () => {
    folder = temporaryFolder();
    alice = await makeIdentity('alice');
    store = await (await startPostgres()).database();
    const { socket, match } = await startLas(present, folder);
    las = { socket, platform: match[1] ?? '' };
    const first = await startCas(release.scone, join(folder, 'key'), ['--store', store], env());
    await first.server.stop();
    for (const build of [release, present]) await start(build);
  });

  /** Starts the program under a supervisor that is with one replica. */
  function supervise(cas: Build, launcher: Build, id: string) {
    const running = startProgram(launcher.envcas, [], {
      env: { ...env(), ...at(cas).settings, SCONE_LAS_ADDR: las.socket, SCONE_CONFIG_ID: id },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const end = async () => {
      running.child.kill('SIGTERM');
      return (await running.finished).stdout;
    };
    return { ...running, end };
  }

  const directions = [
    [present, release],
    [release, present],
  ] as const;

  for (const [one, other] of directions) {
    const its = `by ${one.version} and ${other.version}`;

    test(`what the first of them takes the other has, and replaces: ${its}`, async () => {
      assert.equal(at(one).key, at(other).key);
      const name = randomUUID();
      const hash = await upload(at(one), alice, text(name, 'first'));
      assert.equal(await read(at(other), alice, name), text(name, 'first'));
      await assert.rejects(upload(at(other), alice, text(name, 'first')), { code: 'SESSION_EXISTS' });
      const next = await upload(at(other), alice, text(name, 'second', hash));
      assert.equal(await read(at(one), alice, name), text(name, 'second', hash));
      await assert.rejects(upload(at(one), alice, text(name, 'third', hash)), { code: 'PREDECESSOR_STALE' });
      await upload(at(one), alice, text(name, 'third', next));
    });

    test(`launchers are given the same secrets and certificates, and told of changes: ${its}`, async () => {
      const name = randomUUID();
      const hash = await upload(at(one), alice, text(name, 'first'));
      const launches = [present, release].flatMap((launcher) =>
        [one, other].map((cas) => supervise(cas, launcher, `${name}/main`)),
      );
      await Promise.all(launches.map(({ seen }) => seen(/^first .*-----END CERTIFICATE-----/ms)));
      await upload(at(other), alice, text(name, 'second', hash));
      await Promise.all(launches.map(({ seen }) => seen(/^second .*-----END CERTIFICATE-----/ms)));
      const printed = await Promise.all(launches.map(({ end }) => end()));
      for (const each of printed) assert.equal(each, printed[0]);
      const [first, second] = tokensIn(printed[0] ?? '');
      assert.equal(first, second);
    });

    test(`a code that was shown to the first of them is used at the other: ${its}`, async () => {
      const secret = new Secret({ size: 20 });
      const session = randomUUID();
      await upload(at(one), alice, sessionWithCodes(session, secret.base32));
      const asked = { session, service: 's', las: people, oneTimePassword: codeFrom(secret) };
      const { command } = await launch(at(one), asked);
      assert.match(command[1]?.join('') ?? '', /^[0-9a-f]{32}$/);
      await assert.rejects(launch(at(other), asked), { code: 'OTP_USED' });
    });
  }

  test('what a policy asks for that the release does not know is asked for, or nothing is released', async () => {
    const name = randomUUID();
    await upload(at(present), alice, text(name, 'word', '~', `run_as: uid:${process.getuid?.()}`));
    const allowed = supervise(present, release, `${name}/main`);
    await allowed.seen(/^word /m);
    await allowed.end();
    const { stdout, stderr, status } = await supervise(release, release, `${name}/main`).finished;
    assert.equal(stdout, '');
    assert.equal(status, 77, stderr);
    assert.match(stderr, /^Hint: `scone session explain .*\nCode: ADMISSION_UNKNOWN,/m);
    assert.match(at(release).server.output(), /run_as: unknown key .*"policy not usable"/);
  });

  test('the replica of the release is one of the present version for a while, and is one again', async () => {
    const name = randomUUID();
    let hash = await upload(at(release), alice, text(name, 'v0'));
    const running = supervise(present, release, `${name}/main`);
    await running.seen(/^v0 /m);
    for (const [round, build] of [present, release].entries()) {
      await at(release).server.stop();
      await start(build, release);
      hash = await upload(at(release), alice, text(name, `v${round + 1}`, hash));
      await running.seen(new RegExp(`^v${round + 1} `, 'm'));
      assert.equal(await read(at(present), alice, name), await read(at(release), alice, name));
    }
    const tokens = tokensIn(await running.end());
    assert.equal(tokens.length, 3);
    assert.equal(new Set(tokens).size, 1);
  });

  test('all that both have written is as it was written, to either', async () => {
    for (const cas of replicas.values()) await cas.server.stop();
    for (const { scone } of [present, release]) {
      const args = ['cas', 'check-store', '--dir', join(folder, 'key'), '--store', store];
      const { stdout, stderr } = run(scone, args, env());
      assert.match(stdout, /^All \d+ rows of .+ are as they were written$/m, stderr);
    }
  });
});
