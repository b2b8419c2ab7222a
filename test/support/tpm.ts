import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { temporaryFolder } from './leave-nothing.ts';
import { freePorts } from './port.ts';
import { missing } from './stack.ts';
import { until } from './until.ts';

/** Why tests with a TPM are skipped, or false. */
export const skip = missing('swtpm', 'swtpm_setup', 'swtpm_localca', 'tpm2_quote');

/** A TPM 2.0 in software, which its own maker has given an endorsement key and its certificate. */
export interface TestTpm {
  /** TPM2TOOLS_TCTI */
  tcti: string;
  /** Certificates of the maker, root and issuer, as PEM. */
  makers: string;
  /** Runs a program of tpm2-tools. */
  run(program: string, ...args: string[]): string;
  /** As when its host is switched off and on. */
  reboot(): Promise<void>;
  stop(): Promise<void>;
}

export async function startTpm(): Promise<TestTpm> {
  const directory = temporaryFolder();
  const [state, ca] = ['state', 'ca'].map((name) => join(directory, name)) as [string, string];
  for (const folder of [state, ca]) mkdirSync(folder);
  const write = (name: string, lines: readonly string[]) => {
    writeFileSync(join(directory, name), `${lines.join('\n')}\n`);
    return join(directory, name);
  };
  const localca = write('localca.conf', [
    `statedir = ${ca}`,
    `signingkey = ${ca}/signkey.pem`,
    `issuercert = ${ca}/issuercert.pem`,
    `certserial = ${ca}/certserial`,
  ]);
  const options = write('options', [
    '--platform-manufacturer Test',
    '--platform-version 1.0',
    '--platform-model swtpm',
  ]);
  const setup = write('setup.conf', [
    'create_certs_tool = /usr/bin/swtpm_localca',
    `create_certs_tool_config = ${localca}`,
    `create_certs_tool_options = ${options}`,
  ]);
  const banks = ['--pcr-banks', 'sha256'];
  execFileSync(
    'swtpm_setup',
    ['--tpm2', '--tpmstate', state, '--create-ek-cert', '--config', setup, ...banks],
    {
      stdio: 'pipe',
    },
  );

  // The TCTI takes the next one for its control.
  const port = await freePorts(2);
  const address = (at: number) => `type=tcp,port=${at},bindaddr=127.0.0.1`;
  const start = async () => {
    const child = spawn(
      'swtpm',
      [
        'socket',
        '--tpm2',
        '--tpmstate',
        `dir=${state}`,
        '--server',
        address(port),
        '--ctrl',
        address(port + 1),
      ].concat(['--flags', 'not-need-init,startup-clear']),
      { stdio: 'ignore' },
    );
    await listening(child, port + 1);
    return child;
  };
  let child = await start();
  const end = async () => {
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  };
  const tcti = `swtpm:host=127.0.0.1,port=${port}`;
  const env = { ...process.env, TPM2TOOLS_TCTI: tcti };
  return {
    tcti,
    makers: ['swtpm-localca-rootca-cert.pem', 'issuercert.pem']
      .map((name) => readFileSync(join(ca, name), 'utf8'))
      .join(''),
    run(program, ...args) {
      const output = execFileSync(program, args, { env, encoding: 'utf8', stdio: 'pipe' });
      execFileSync('tpm2_flushcontext', ['-t'], { env, stdio: 'pipe' });
      return output;
    },
    async reboot() {
      execFileSync('tpm2_shutdown', ['--clear'], { env, stdio: 'pipe' });
      await end();
      child = await start();
    },
    async stop() {
      await end();
    },
  };
}

async function answers(port: number): Promise<boolean> {
  const socket = connect({ host: '127.0.0.1', port });
  const isOpen = await new Promise<boolean>((resolve) => {
    socket.on('connect', () => resolve(true));
    socket.on('error', () => resolve(false));
  });
  socket.destroy();
  return isOpen;
}

/** Until something listens there. */
const listening = (child: ChildProcess, port: number) =>
  until(() => {
    if (child.exitCode !== null) throw new Error(`swtpm ended with ${child.exitCode}`);
    return answers(port);
  }, 'swtpm listens');
