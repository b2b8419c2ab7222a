import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeIdentity, upload } from '../support/client.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { type RunningCas, run, startCas, startServer } from '../support/stack.ts';
import { skip, startTpm } from '../support/tpm.ts';
import { measurementOf } from './host.ts';
import { type Build, missingRelease, present, release } from './release.ts';

const session = () => `name: tpm
version: "0.3.10"
services:
  - name: main
    image_name: image
    attestation:
      mrenclave: [${[present, release].map(({ envcas }) => measurementOf(envcas))}]
      tpm: {pcrs: {7: "${'0'.repeat(64)}"}}
    command: [envcas, done]
images:
  - name: image
    injection_files: [{path: /etc/envcas/config.yaml, content: 'program: /bin/echo'}]
`;

test('a TPM that was enrolled by the release stays so for LASes and CASes of both versions', {
  skip: missingRelease || skip,
}, async () => {
  const tpm = await startTpm();
  const home = temporaryFolder();
  const makers = join(home, 'makers.pem');
  writeFileSync(makers, tpm.makers);
  const socket = join(home, 'las.sock');
  const plain = { PATH: process.env.PATH ?? '', HOME: home, TPM2TOOLS_TCTI: tpm.tcti };
  const options = ['--offline', '--tpm-roots', makers, '--las', socket];
  const serve = (build: Build, cas?: RunningCas) =>
    startCas(
      build.scone,
      join(home, 'cas'),
      options,
      plain,
      cas && { api: cas.apiPort, enclave: cas.enclavePort },
    );
  const serveLas = (build: Build, mode: 'hw' | 'sim') =>
    startServer(
      build.scone,
      ['las', 'serve', '--dir', join(home, mode), '--socket', socket, '--mode', mode],
      /LAS ready at .*\n.*\n/,
      { env: plain },
    );
  let cas = await serve(release);
  const env = { ...plain, ...cas.settings, SCONE_LAS_ADDR: socket };
  const scone = (build: Build, ...args: string[]) => {
    const { status, stdout, stderr } = run(build.scone, args, env);
    assert.equal(status, 0, stderr);
    return stdout;
  };
  const first = await serveLas(release, 'sim');
  const anyone = ['trust-any', 'debug', 'ignore-signer'].map((what) => `--only_for_testing-${what}`);
  scone(release, 'cas', 'attest', 'localhost', ...anyone);
  await first.stop();

  const enrol = ['las', 'enrol', '--dir', join(home, 'hw')];
  const enrolled = scone(release, ...enrol);
  await upload(cas, await makeIdentity('alice'), session());
  for (const [casOf, lasOf] of [
    [release, release],
    [release, present],
    [present, release],
    [present, present],
  ] as const) {
    await cas.server.stop();
    cas = await serve(casOf, cas);
    const las = await serveLas(lasOf, 'hw');
    for (const launcher of [release, present]) {
      const { stdout, stderr } = run(launcher.envcas, [], { ...env, SCONE_CONFIG_ID: 'tpm/main' });
      assert.equal(stdout, 'done\n', stderr);
    }
    await las.stop();
  }
  // The key is as the release has made it, and enrolling it once more changes nothing.
  assert.equal(existsSync(join(home, 'hw/tpm/ak.auth')), false);
  assert.ok(scone(present, ...enrol).startsWith(enrolled));
});
