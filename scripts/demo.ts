import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Secret, TOTP } from 'otpauth';
import { temporaryFolder } from '../test/support/leave-nothing.ts';
import { environmentIn } from '../test/support/stack.ts';

/**
 * Shows what this is for, on any machine: builds the executables, starts a CAS and a LAS in a temporary
 * folder, uploads examples/bash/session.yaml, and launches its services. Leaves nothing behind, interrupted or not.
 */
const root = resolve(import.meta.dirname, '..');
const work = made(temporaryFolder);
const dist = join(root, 'dist');
const otpSecret = new Secret({ size: 20 });
const env: NodeJS.ProcessEnv = {
  PATH: `${dist}:${process.env.PATH}`,
  HOME: work,
  OTP_SECRET: otpSecret.base32,
  DIR: work,
};

function made(make: () => string): string {
  try {
    return make();
  } catch (error) {
    console.error(
      `envcas: no temporary folder can be made: ${error instanceof Error ? error.message : error}`,
    );
    process.exit(1);
  }
}

const say = (text: string) => console.log(`\n# ${text}`);

/** Runs a line in bash, shows it and what it prints, and gives its standard output. */
function show(line: string, expected = 0): string {
  console.log(`$ ${line}`);
  const { status, stdout, stderr } = spawnSync('/bin/bash', ['-c', line], {
    cwd: root,
    env,
    encoding: 'utf8',
    // A bash that finds a socket there takes it for a remote shell, and reads its start-up files.
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  process.stdout.write(stdout + stderr);
  if (status !== expected) throw new Error(`that should have ended with ${expected}, not with ${status}`);
  return stdout.trim();
}

const started = Date.now();
try {
  say('Build dist/envcas and dist/scone');
  const build = spawnSync(process.execPath, [join(root, 'scripts/build.ts')], { stdio: 'inherit' });
  if (build.status !== 0) throw new Error('the build failed');

  say('Start a CAS and a LAS for this machine, everything they keep in a temporary folder');
  const state = join(work, 'state');
  console.log('$ scone up --dir "$DIR/state" --free-ports &');
  const servers = spawn(join(dist, 'scone'), ['up', '--dir', state, '--free-ports'], {
    env,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  while (!existsSync(join(state, 'env'))) {
    if (servers.exitCode !== null || servers.signalCode !== null)
      throw new Error('the servers did not start');
    await sleep(20);
  }
  Object.assign(env, environmentIn(join(state, 'env')));

  say('Attest the CAS and pin its key. This machine has no root of trust but software, and the flags say so');
  const attested = show(
    'scone cas attest $SCONE_CAS_ADDR --only_for_testing-trust-any --only_for_testing-debug --only_for_testing-ignore-signer -C -G -S',
  );

  say('Upload the policy. The CAS makes the secrets; nobody has seen them yet');
  env.SESSION = `envcas-example-${process.pid}`;
  env.MRENCLAVE = show('SCONE_HASH=1 envcas');
  env.USER_ID = show('id -u');
  show(
    'scone session create -e SESSION=$SESSION -e MRENCLAVE=$MRENCLAVE --use-env examples/bash/session.yaml',
  );

  say('Launch: envcas is attested, gets the secrets, writes the files and becomes /bin/bash');
  const line = show('SCONE_CONFIG_ID=$SESSION/envcas envcas');
  if (!/^Secret=".{32}"$/.test(line)) throw new Error('the program did not print its secret');
  show('stat -c "%A %s bytes %n" "$DIR"/out?');

  say('The same service, protected by a one-time password: without a code it is refused');
  show('SCONE_CONFIG_ID=$SESSION/with_otp envcas', 77);

  say('With the present code from the authenticator it starts');
  if (30 - (Math.floor(Date.now() / 1000) % 30) < 5) await sleep(6000); // both uses fall into one step
  env.OTP = new TOTP({ secret: otpSecret }).generate();
  show('SCONE_CONFIG_ID=$SESSION/with_otp@$OTP envcas');

  say('The same code again is refused: somebody may have seen it');
  show('SCONE_CONFIG_ID=$SESSION/with_otp@$OTP envcas', 77);

  const [, rootOfTrust = ''] = /^Root of trust: (.*)$/m.exec(attested) ?? [];
  say(
    `Root of trust: ${rootOfTrust}. Done in ${Math.round((Date.now() - started) / 1000)} seconds; cleaning up`,
  );
  servers.kill('SIGTERM');
  await once(servers, 'exit');
  rmSync(work, { recursive: true });
} catch (error) {
  console.error(`\nThe demo ends here: ${error instanceof Error ? error.message : error}`);
  process.exit(1);
}
