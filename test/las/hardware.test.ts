import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import * as v from 'valibot';
import { fileList } from '../../src/attestation/collateral.ts';
import { attestCas } from '../../src/cli/attest.ts';
import { openLasKey } from '../../src/las/key.ts';
import { type Machine, openMachine } from '../../src/las/machine.ts';
import { serveLas } from '../../src/las/serve.ts';
import { callApi, connectApi } from '../../src/protocol/api-client.ts';
import * as intel from '../attestation/intel/synthetic.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import {
  executables,
  type Result,
  type RunningCas,
  run,
  type Server,
  startCas,
  startServer,
} from '../support/stack.ts';
import { skip, startTpm, type TestTpm } from '../support/tpm.ts';
import { type TsmTree, tsmTree } from '../support/tsm.ts';
import { undemanding } from './host.ts';

/** Launches on machines that hardware vouches for, with the built programs. */

const echo = `  - name: i
    injection_files:
      - path: /etc/envcas/config.yaml
        content: "program: /bin/echo"`;
const session = (name: string, machine: string, more = '') => `
name: ${name}
version: "0.3.12"
${more}
services:
  - name: s
    image_name: i
    command: [envcas, the secret is, $$SCONE::secret$$]
    attestation: {mrenclave: ${measurement}, ${machine}}
images:
${echo}
secrets: [{name: secret, kind: ascii, value: sesame}]
`;
const { envcas, scone } = executables();
const measurement = run(envcas, [], { SCONE_HASH: '1' }).stdout.trim();
const granted = 'the secret is sesame\n';
const zeros = '0'.repeat(64);

describe('a host with a TPM', { skip }, () => {
  let tpm: TestTpm;
  let home: string;
  let las: Server;
  let cas: RunningCas;
  let enrolled = '';
  let env: Record<string, string>;
  before(async () => {
    tpm = await startTpm();
    home = temporaryFolder();
    writeFileSync(join(home, 'makers.pem'), tpm.makers);
    const plain = { PATH: process.env.PATH ?? '', HOME: home, TPM2TOOLS_TCTI: tpm.tcti };
    const socket = join(home, 'las.sock');
    const makers = ['--offline', '--tpm-roots', join(home, 'makers.pem')];
    const options = [...makers, '--las', socket, '--log-level', 'warn'];
    cas = await startCas(scone, join(home, 'cas'), options, plain);
    env = { ...plain, ...cas.settings, SCONE_LAS_ADDR: socket };
    const first = await serveLasIn('software', 'sim');
    attest('--only_for_testing-trust-any', '--only_for_testing-debug', '--only_for_testing-ignore-signer');
    await first.stop();
  });

  const serveLasIn = (directory: string, mode: string) =>
    startServer(
      scone,
      ['las', 'serve', '--dir', join(home, directory), '--socket', env.SCONE_LAS_ADDR ?? '', '--mode', mode],
      /LAS ready at .*\n(.*)\n/,
      { env },
    );
  const attest = (...args: string[]) => run(scone, ['cas', 'attest', 'localhost', ...args], env);
  const launch = (name: string, more: NodeJS.ProcessEnv = {}): Result =>
    run(envcas, [], { ...env, SCONE_CONFIG_ID: `${name}/s`, ...more });
  const create = (text: string) => {
    const { status, stderr, stdout } = run(scone, ['session', 'create', '-'], env, text);
    assert.equal(status, 0, stderr);
    return stdout.trim();
  };
  const fresh = 'security: {attestation: {max_quote_age: 1s}}';
  const pcrs = (values: Record<number, string>) =>
    `tpm: {pcrs: {${Object.entries(values)
      .map(([register, value]) => `${register}: "${value}"`)
      .join(', ')}}}`;
  const refused = ({ status, stderr }: Result, code: string) => {
    assert.match(stderr, new RegExp(`Code: ${code}, exit status 77`), stderr);
    assert.equal(status, 77);
  };
  const extended = (value: string) =>
    createHash('sha256')
      .update(Buffer.concat([Buffer.alloc(32), Buffer.from(value, 'hex')]))
      .digest('hex');

  test('is enrolled, and then vouched for by it', async () => {
    const unknown = run(scone, ['las', 'serve', '--dir', join(home, 'las'), '--mode', 'hw'], env);
    assert.equal(unknown.status, 69);
    assert.match(unknown.stderr, /Code: HARDWARE_MISSING/);
    const { status, stdout, stderr } = run(scone, ['las', 'enrol', '--dir', join(home, 'las')], env);
    assert.equal(status, 0, stderr);
    assert.match(stdout, /^Platform: TPM_EK:[0-9a-f]{64}$/m);
    enrolled = stdout;
    las = await serveLasIn('las', 'hw');
    assert.match(las.match[1] ?? '', /^Root of trust: tpm\./);

    create(session('all', pcrs({ 0: zeros, 4: zeros, 7: zeros }), fresh));
    create(session('other', pcrs({ 4: 'ab'.repeat(32) })));
    create(session('unnamed', ''));
    for (const mode of ['hw', 'auto', 'HW'])
      assert.equal(launch('all', { SCONE_MODE: mode }).stdout, granted);
    refused(launch('other'), 'MACHINE_UNEXPECTED');
    refused(launch('unnamed'), 'MACHINE_UNNAMED');
    assert.match(launch('unnamed').stderr, /tpm: \{pcrs: \{/);
    const explained = run(scone, ['session', 'explain', 'all/s'], env).stdout;
    assert.match(explained, /tpm pcr7: 0{64}/);
  });

  test('has its CAS attested by the key of its TPM and its registers', () => {
    const machine = join(home, 'machine.yaml');
    writeFileSync(machine, pcrs({ 0: zeros, 7: zeros }));
    const own = createHash('sha256').update(readFileSync(scone)).digest('hex');
    const key = /^Attestation key: (\w+)$/m.exec(enrolled)?.[1] ?? '';
    assert.match(enrolled, /^A LAS that runs takes it once it is started again$/m);
    const known = ['--tpm-key', key, '--machine', machine, '--run-as', `uid:${process.getuid?.()}`];
    const { status, stdout, stderr } = attest(own, ...known);
    assert.equal(status, 0, stderr);
    assert.match(stdout, /^Root of trust: tpm$/m);
    assert.match(attest(own, '--machine', machine).stderr, /Code: TPM_UNKNOWN/);
    assert.match(attest(own, '--tpm-key', key).stderr, /names none of the kind tpm/);
    assert.match(attest('ab'.repeat(32), ...known).stderr, /Unexpected enclave measurement/);
    writeFileSync(machine, pcrs({ 0: 'ab'.repeat(32) }));
    assert.match(attest(own, ...known).stderr, /tpm pcr0: 0{64} - Expected (ab){32}/);
  });

  test('is asked for software Evidence in vain', () => {
    assert.match(launch('all', { SCONE_MODE: 'sim' }).stderr, /Code: HARDWARE_UNWANTED/);
    const odd = launch('all', { SCONE_MODE: 'maybe' });
    assert.equal(odd.status, 78);
    assert.match(odd.stderr, /SCONE_MODE is malformed/);
  });

  test('is refused once something else was measured, and again after it was switched off and on', async () => {
    const value = 'cd'.repeat(32);
    tpm.run('tpm2_pcrextend', `7:sha256=${value}`);
    await new Promise((resolve) => setTimeout(resolve, 6000));
    refused(launch('all'), 'MACHINE_UNEXPECTED');
    create(session('measured', pcrs({ 7: extended(value) }), fresh));
    assert.equal(launch('measured').stdout, granted);

    // What the LAS has is from before, and it notices: nobody gets by with it.
    await tpm.reboot();
    refused(launch('measured'), 'MACHINE_UNEXPECTED');
    assert.equal(launch('all').stdout, granted);
    tpm.run('tpm2_pcrextend', `7:sha256=${value}`);
    await new Promise((resolve) => setTimeout(resolve, 6000));
    assert.equal(launch('measured').stdout, granted);
  });

  test('has its place taken by nobody else who reaches the TPM, unless an owner lets the TPM be enrolled anew', () => {
    const enrol = (folder: string) => run(scone, ['las', 'enrol', '--dir', join(home, folder)], env);
    refused(enrol('intruder'), 'TPM_ENROLLED');
    assert.equal(enrol('las').status, 0);
    assert.equal(launch('measured').stdout, granted);

    // Who has the parts of the key, and not what it is used with, does nothing with it.
    cpSync(join(home, 'las/tpm'), join(home, 'thief/tpm'), { recursive: true });
    rmSync(join(home, 'thief/tpm/ak.auth'));
    assert.match(enrol('thief').stderr, /Code: TPM_UNUSABLE/);

    const [platform = ''] = /TPM_EK:\w+/.exec(enrolled) ?? [];
    const remove = () => run(scone, ['cas', 'remove-tpm', platform], env);
    assert.match(remove().stderr, /Code: NOT_PROVISIONED/);
    const [, token = ''] = /^CAS provisioning token: (\w+)$/m.exec(cas.server.output()) ?? [];
    writeFileSync(join(home, 'owner.yaml'), '{}');
    writeFileSync(join(home, 'token'), token, { mode: 0o600 });
    const files = ['--config-file', join(home, 'owner.yaml'), '--token-file', join(home, 'token')];
    const how = ['localhost', 'only_for_testing-without-attestation', '-c', cas.key];
    assert.equal(run(scone, ['cas', 'provision', ...files, ...how], env).status, 0);
    assert.equal(remove().status, 0);
    assert.match(remove().stderr, /Code: TPM_NOT_ENROLLED/);
    assert.equal(enrol('las').status, 0);
    assert.equal(launch('measured').stdout, granted);
  });

  test('that another CAS does not know is refused by it', async () => {
    await las.stop();
    las = await serveLasIn('las-not-enrolled', 'auto');
    assert.match(las.match[1] ?? '', /^LAS key \(platform\)/);
    const missing = launch('all', { SCONE_MODE: 'hw' });
    assert.equal(missing.status, 69);
    assert.match(missing.stderr, /the LAS vouches by software alone/);
    refused(launch('all'), 'PLATFORM_UNTRUSTED');
    const alone = launch('all', { SCONE_MODE: 'hw', SCONE_LAS_ADDR: join(home, 'nobody.sock') });
    assert.match(alone.stderr, /Code: LAS_UNREACHABLE/);
    const up = run(scone, ['up', '--dir', join(home, 'up'), '--free-ports'], { ...env, SCONE_MODE: 'hw' });
    assert.match(up.stderr, /Code: HARDWARE_MISSING, exit status 69/);
  });

  test('whose TPM no maker vouches for is not enrolled', async () => {
    const stranger = await startTpm();
    try {
      const { status, stderr } = run(scone, ['las', 'enrol', '--dir', join(home, 'stranger')], {
        ...env,
        TPM2TOOLS_TCTI: stranger.tcti,
      });
      assert.equal(status, 77);
      assert.match(stderr, /EVIDENCE_INVALID|TPM_UNTRUSTED/);
    } finally {
      await stranger.stop();
    }
  });
});

describe('a virtual machine of TDX', () => {
  const processors = intel.maker();
  const now = Date.now();
  const dates = { issueDate: iso(now - 86_400_000), nextUpdate: iso(now + 20 * 86_400_000) };
  const month = { thisUpdate: now - 86_400_000, nextUpdate: now + 20 * 86_400_000 };
  const key = intel.pck(processors);
  const quote = (reportData: Buffer) =>
    intel.quote({
      tee: 'tdx',
      body: intel.domainReport({ reportData }),
      pck: key,
      chain: [processors.platformCa, processors.root],
    });
  const collateralWith = (tcb: object) =>
    intel.collateral({
      by: processors,
      tee: 'TDX',
      tcb,
      identity: intel.identity('TDX', [{ isvsvn: 8 }], dates),
      rootList: month,
      pckList: month,
    });
  const collateral = collateralWith(intel.tcbInfo('TDX', [{}], dates));
  const past = { issueDate: '2025-01-01T00:00:00Z', nextUpdate: '2025-02-01T00:00:00Z' };
  const outdated = intel.signedDocument(
    'enclaveIdentity',
    intel.identity('TDX', [{ isvsvn: 8 }], past),
    processors.tcbSigning,
  );
  let home: string;
  let tree: TsmTree;
  let machine: Machine | undefined;
  let env: Record<string, string>;
  let cas: Server;
  let las: { close(): Promise<void> };
  const log = { info() {}, warn() {}, error() {} };
  before(async () => {
    home = temporaryFolder();
    copyFileSync(envcas, join(home, 'envcas'));
    const reports = join(home, 'tsm');
    mkdirSync(reports);
    tree = tsmTree('tdx_guest', quote);
    machine = await openMachine({ mode: 'hw', directory: home, env: {}, log, reports, files: tree });
    assert.equal(machine?.root, 'tdx');
    const socket = join(home, 'las.sock');
    const options = {
      socket,
      key: openLasKey(join(home, 'las.key')),
      machine,
      casKeys: new Map(),
      demands: undemanding,
      log,
    };
    las = await serveLas(options);
    const [root = ''] = processors.roots;
    const fixture = join(import.meta.dirname, '../fixtures/cas/serve.ts');
    // In a process of its own, which is not under the test runner: a LAS vouches for no such.
    cas = await startServer(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', fixture, join(home, 'cas'), socket, root],
      /ready (\d+) (\d+) (\w+)\n/,
      { env: { PATH: process.env.PATH ?? '', HOME: home } },
    );
    const [, api = '', enclave = '', casKey = ''] = cas.match;
    env = {
      HOME: home,
      PATH: process.env.PATH ?? '',
      SCONE_CAS_ADDR: 'localhost',
      SCONE_CAS_API_PORT: api,
      SCONE_CAS_ENCLAVE_PORT: enclave,
      SCONE_CAS_KEY: casKey,
      SCONE_LAS_ADDR: socket,
    };
  });
  after(() => las?.close());

  /** As `run`, while the servers in this process go on. */
  const start = async (command: string, args: string[], more: NodeJS.ProcessEnv = {}): Promise<Result> => {
    const child = spawn(command, args, { env: { ...env, ...more }, stdio: ['ignore', 'pipe', 'pipe'] });
    const [stdout, stderr, [status, signal]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'close'),
    ]);
    return { status, signal, stdout, stderr };
  };
  const succeed = async (...args: string[]) => {
    const { status, stdout, stderr } = await start(scone, args);
    assert.equal(status, 0, stderr);
    return stdout;
  };
  const write = (name: string, content: string | Buffer) => {
    writeFileSync(join(home, name), content);
    return join(home, name);
  };
  const unchecked = ['-c', 'localhost', '--only_for_testing-disable-attestation-verification'];
  const { mrtd, rtmr1 } = intel.domainValues;
  const launch = (name: string) => start(join(home, 'envcas'), [], { SCONE_CONFIG_ID: `${name}/s` });

  test('has its quote taken at the start, and its LAS vouch by it once the CAS has collateral', async () => {
    assert.equal(tree.requests.length, 1);
    const right = write('right.yaml', session('right', `tdx: {mrtd: ${mrtd}, rtmr1: ${rtmr1}}`));
    const wrong = write('wrong.yaml', session('wrong', `tdx: {mrtd: ${rtmr1}, rtmr1: ${rtmr1}}`));
    for (const file of [right, wrong]) await succeed('session', 'create', ...unchecked, file);
    assert.match((await launch('right')).stderr, /cannot be checked without intel\/tcb-info\/tdx/);

    const folder = join(home, 'collateral');
    mkdirSync(folder);
    for (const [index, { content }] of fileList(collateral).entries())
      write(join('collateral', `${index}`), Buffer.from(content, 'base64'));
    for (let index = 0; index < 70; index++) {
      const other = intel.tcbInfo('TDX', [{}], { ...dates, fmspc: `0000000000${10 + index}` });
      const signed = intel.signedDocument('tcbInfo', other, processors.tcbSigning);
      write(join('collateral', `a${index}`), signed);
      write(join('collateral', `b${index}`), signed);
    }
    const imported = await succeed('cas', 'collateral', 'import', ...unchecked, folder);
    assert.match(imported, /^kept: intel\/tcb-info\/tdx\/00906ed50000\/0000, until 20/m);
    assert.equal(imported.trim().split('\n').length, 77, 'more than one request takes, each once');
    const { stderr } = await start(scone, [
      'cas',
      'collateral',
      'import',
      ...unchecked,
      write('old', outdated),
    ]);
    assert.match(stderr, /^Error: .*intel\/identity\/TD_QE.*it was good until/m);
    const again = await succeed('cas', 'collateral', 'import', ...unchecked, folder);
    assert.match(again, /^kept: crl\/Intel SGX Root CA/m);
    assert.equal((await succeed('cas', 'collateral', 'list', ...unchecked)).trim().split('\n').length, 77);

    assert.equal((await launch('right')).stdout, granted);
    assert.equal((await launch('right')).stdout, granted);
    assert.equal(tree.requests.length, 2, 'asked for once more, for the nonce of the CAS');
    assert.match((await launch('wrong')).stderr, /Code: MACHINE_UNEXPECTED, exit status 77/);
    assert.deepEqual(tree.folders(), []);
  });

  test('has its CAS attested too, by what is expected of both', async () => {
    const report = await callApi(
      await connectApi({ host: 'localhost', port: Number(env.SCONE_CAS_API_PORT) }),
      { method: 'GET', path: `/v1/attest?nonce=${'00'.repeat(32)}` },
      v.any(),
    );
    const offline = write('report.json', JSON.stringify(report));
    const expected = write('machine.yaml', `tdx: {mrtd: "${mrtd}"}\n`);
    const another = write('another.yaml', `tdx: {mrtd: "${rtmr1}"}\n`);
    const options = {
      offlineReport: offline,
      nonce: '00'.repeat(32),
      hardwareRoots: processors.roots,
      runAs: [`uid:${process.getuid?.()}`],
      retries: 0,
    };
    const attest = (more: object) => attestCas('localhost', undefined, { ...options, ...more });
    const own = createHash('sha256').update(readFileSync('/proc/self/exe')).digest('hex');
    const { json } = (await attest({ machine: expected, mrenclave: [own] })) as { json: { root: string } };
    assert.equal(json.root, 'tdx');
    for (const wrong of [
      { machine: another, mrenclave: [own] },
      { mrenclave: [own] },
      { machine: expected, mrenclave: ['ab'.repeat(32)] },
    ])
      await assert.rejects(attest(wrong), { code: 'CAS_NOT_TRUSTWORTHY' });
    await assert.rejects(attest({ machine: expected, mrenclave: [own], nonce: '01'.repeat(32) }), {
      code: 'EVIDENCE_INVALID',
    });
    await assert.rejects(
      attest({ machine: expected, mrenclave: [own], verificationTime: now + 365 * 86_400_000 }),
      { code: 'COLLATERAL_INVALID' },
    );
    // Each status is accepted by the option that is for it, and by no other.
    const flags = {
      SWHardeningNeeded: 'acceptSwHardeningNeeded',
      ConfigurationNeeded: 'acceptConfigurationNeeded',
      OutOfDate: 'acceptGroupOutOfDate',
    } as const;
    for (const [status, flag] of Object.entries(flags)) {
      const levels = [{ status: status as keyof typeof flags, advisories: ['INTEL-SA-00615'] }];
      const weak = collateralWith(intel.tcbInfo('TDX', levels, dates));
      const offlineReport = write(
        `${status}.json`,
        JSON.stringify({ ...report, collateral: fileList(weak) }),
      );
      const others = Object.fromEntries(
        Object.values(flags)
          .filter((each) => each !== flag)
          .map((each) => [each, true]),
      );
      const all = { machine: expected, mrenclave: [own], offlineReport };
      await assert.rejects(attest({ ...all, ...others }), { code: 'CAS_NOT_TRUSTWORTHY' });
      const { text: said } = (await attest({ ...all, [flag]: true })) as { text: string };
      assert.match(said, /Root of trust: tdx, tolerated: [a-z-]+, INTEL-SA-00615/);
    }
    // What the machine has said for somebody else says nothing of now.
    const old = write(
      'old.json',
      JSON.stringify({ ...report, hardware: await machine?.evidence(Buffer.alloc(32, 7)) }),
    );
    await assert.rejects(attest({ machine: expected, mrenclave: [own], offlineReport: old }), {
      code: 'EVIDENCE_INVALID',
    });
    // To the command itself only the makers' own roots count.
    const { stderr } = await start(scone, [
      ...['cas', 'attest', 'localhost', own, '--offline-report', offline, '--nonce', '00'.repeat(32)],
      ...['--machine', expected],
    ]);
    assert.match(stderr, /no chain to a trusted root/);
  });
});

function iso(time: number): string {
  return new Date(time).toISOString().replace(/\.\d+Z/, 'Z');
}
