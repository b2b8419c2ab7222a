import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { type Collateral, mergeCollateral } from '../../src/attestation/collateral.ts';
import type { HardwareEvidence } from '../../src/attestation/hardware-evidence.ts';
import { machineReportData, reportData, tpmReportData } from '../../src/attestation/report-data.ts';
import { type MeasuredProcess, platformOf, signSoftwareEvidence } from '../../src/attestation/software.ts';
import { parsePublicArea } from '../../src/attestation/tpm/structures.ts';
import { Challenge } from '../../src/cas/evidence.ts';
import { release } from '../../src/cas/release.ts';
import { readHash } from '../../src/cas/sessions.ts';
import { enrolTpm } from '../../src/cas/tpm.ts';
import { causes, Failure } from '../../src/errors.ts';
import * as amd from '../attestation/amd/synthetic.ts';
import * as intel from '../attestation/intel/synthetic.ts';
import * as tpm from '../attestation/tpm/synthetic.ts';
import { type BareCas, bareCas, keyOf, noCollateral } from '../support/cas.ts';
import { revocationList } from '../support/pki.ts';

/** Releases to launchers on machines whose makers exist in this test alone. */

const processors = intel.maker();
const platformKey = intel.pck(processors);
const chain = [processors.platformCa, processors.root];
const milan = amd.maker('Milan');
const chipKey = amd.vcek(milan);
const roots = new Set([...processors.roots, ...milan.roots]);
const month = { thisUpdate: intel.at - 86_400_000, nextUpdate: intel.at + 20 * 86_400_000 };
const arkList = revocationList({ issuer: milan.ark, ...month });
const everything = mergeCollateral(
  intel.collateral({ by: processors, tee: 'SGX' }),
  intel.collateral({ by: processors, tee: 'TDX' }),
  amd.bag([milan.ark, milan.ask, chipKey], [arkList]),
);

const measurement = 'ab'.repeat(32);

interface Hardware {
  bare: BareCas;
  /** Whatever a LAS of the machine says, until another nonce is wanted. */
  launch(service: string, evidence: (request: Asked) => Promise<Shown> | Shown): Promise<string>;
}

/** What Evidence is asked for. */
interface Asked {
  data: Buffer;
  /** Of a challenge. */
  nonce: Buffer | undefined;
}
interface Shown {
  evidence?: string;
  hardware?: HardwareEvidence;
}

function hardware(collateral: Collateral = everything): Hardware {
  const bare = bareCas();
  bare.now = intel.at;
  bare.cas.collateral = { ...noCollateral, forQuote: async () => collateral };
  bare.cas.hardwareRoots = roots;
  return {
    bare,
    async launch(service, show) {
      const channel = randomBytes(32);
      const configId = `s/${service}`;
      const data = reportData({ role: 'launcher', channel, casKey: bare.cas.key, configId });
      const connection = { channel, source: 'here', shown: new Set<string>(), confirms: true, spent: [] };
      let asked = '';
      for (let nonce: Buffer | undefined; ; ) {
        const shown = await show({ data, nonce });
        try {
          await release(bare.cas, { request: { session: 's', service, ...shown }, connection });
          return `${asked}granted`;
        } catch (error) {
          if (error instanceof Challenge) {
            assert.equal(nonce, undefined, 'asked twice');
            nonce = error.nonce;
            asked = 'asked anew, ';
            continue;
          }
          assert.ok(error instanceof Failure, String(error));
          return `${asked}${error.code}`;
        }
      }
    },
  };
}

/** A LAS with a key of its own, that says what it is told of processes. */
function las(machine: (data: Buffer, nonce: string) => HardwareEvidence) {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const key: { private: KeyObject; platform: string } = {
    private: privateKey,
    platform: platformOf(publicKey),
  };
  let last: Buffer = Buffer.alloc(0);
  let quoted = machine(machineReportData(key.platform, last), '');
  const process: MeasuredProcess = {
    measurement,
    pid: 1,
    uid: 1,
    gid: 1,
    id: 'cd'.repeat(32),
    properties: [],
  };
  return {
    key,
    count: 0,
    async show({ data, nonce }: Asked): Promise<Shown> {
      if (nonce && !nonce.equals(last)) {
        last = nonce;
        this.count++;
        quoted = machine(machineReportData(key.platform, nonce), nonce.toString('base64'));
      }
      return { evidence: await signSoftwareEvidence(process, data, key, intel.at), hardware: quoted };
    },
  };
}

const base64 = (bytes: Buffer) => bytes.toString('base64');
const enclave = (data: Buffer, options: object = {}): HardwareEvidence => ({
  type: 'sgx',
  quote: base64(
    intel.quote({
      tee: 'sgx',
      body: intel.enclaveReport({ mrenclave: measurement, reportData: data, ...options }),
      pck: platformKey,
      chain,
    }),
  ),
});
const domain =
  (options: intel.DomainOptions = {}) =>
  (data: Buffer, nonce: string): HardwareEvidence => ({
    type: 'tdx',
    nonce,
    quote: base64(
      intel.quote({
        tee: 'tdx',
        body: intel.domainReport({ ...options, reportData: data }),
        pck: platformKey,
        chain,
      }),
    ),
  });
const guest =
  (options: amd.ReportOptions = {}) =>
  (data: Buffer, nonce: string): HardwareEvidence => ({
    type: 'sev-snp',
    nonce,
    certificates: '',
    report: base64(amd.report('Milan', chipKey.key, { vmpl: 0, ...options, reportData: data })),
  });

const services = (variants: Record<string, string>, security = '') => `
name: s
version: "0.3.12"
${security}
services:
${Object.entries(variants)
  .map(([name, more]) => `  - {name: ${name}, attestation: {mrenclave: ${measurement}, ${more}}}`)
  .join('\n')}`;

const { mrtd, rtmr1 } = intel.domainValues;

test('an enclave vouches for itself, on its own connection alone', async () => {
  const { bare, launch } = hardware();
  await bare.upload(
    services({
      a: '',
      b: `signer: {mrsigner: ${'a2'.repeat(32)}, isvprodid: 3, isvsvn_min: 7}`,
      c: `signer: {mrsigner: ${'a2'.repeat(32)}, isvprodid: 3, isvsvn_min: 8}`,
    }),
  );
  const show = ({ data }: Asked) => ({ hardware: enclave(data) });
  assert.equal(await launch('a', show), 'granted');
  assert.equal(await launch('b', show), 'granted');
  assert.equal(await launch('c', show), 'SIGNER_UNEXPECTED');
  assert.equal(await launch('a', () => ({ hardware: enclave(randomBytes(64)) })), 'EVIDENCE_INVALID');
  const helped = async (asked: Asked) => ({
    hardware: enclave(asked.data),
    evidence: (await las(domain()).show(asked)).evidence ?? '',
  });
  assert.equal(await launch('a', helped), 'EVIDENCE_INVALID', 'who speaks for it may be anybody');
  const others = ({ data }: Asked) => ({ hardware: enclave(data, { mrenclave: 'ee'.repeat(32) }) });
  assert.equal(await launch('a', others), 'MEASUREMENT_UNEXPECTED');
  const debug = ({ data }: Asked) => ({ hardware: enclave(data, { attributes: `07${'0'.repeat(30)}` }) });
  assert.equal(await launch('a', debug), 'DEBUG_NOT_TOLERATED');
});

test('a LAS counts where its machine is the one that the policy names, and once it has shown that it is there', async () => {
  const { bare, launch } = hardware();
  await bare.upload(
    services({
      named: `tdx: {mrtd: ${mrtd}, rtmr1: [${'0'.repeat(96)}, ${rtmr1}]}`,
      other: `tdx: {mrtd: ${'0'.repeat(96)}}`,
      kernel: `tdx: {mrtd: ${mrtd}, rtmr1: ${'0'.repeat(96)}}`,
      amd: `sev_snp: {measurement: ${'14'.repeat(48)}}`,
      none: '',
    }),
  );
  const machine = las(domain());
  const show = machine.show.bind(machine);
  assert.equal(await launch('named', show), 'asked anew, granted');
  assert.equal(await launch('named', show), 'granted', 'it is known now');
  assert.equal(await launch('other', show), 'MACHINE_UNEXPECTED');
  assert.equal(await launch('kernel', show), 'MACHINE_UNEXPECTED');
  assert.equal(await launch('amd', show), 'MACHINE_UNNAMED');
  assert.equal(await launch('none', show), 'MACHINE_UNNAMED');
  assert.equal(machine.count, 1);
});

test('what a machine has said grows old, and is asked for anew', async () => {
  const { bare, launch } = hardware();
  const named = `tdx: {mrtd: ${mrtd}}`;
  await bare.upload(services({ a: named }));
  const machine = las(domain());
  const show = machine.show.bind(machine);
  assert.equal(await launch('a', show), 'asked anew, granted');
  bare.now += 590_000;
  assert.equal(await launch('a', show), 'granted');
  bare.now += 15_000;
  assert.equal(await launch('a', show), 'asked anew, granted');
  // The clock was set back.
  bare.now -= 3_600_000;
  assert.equal(await launch('a', show), 'asked anew, granted');
  bare.now += 3_600_000;

  await bare.upload(
    services({ a: named }, 'security: {attestation: {max_quote_age: 1s}}')
      .replace('name: s', 'name: s\npredecessor: HASH')
      .replace('HASH', await hashOf(bare)),
  );
  assert.equal(await launch('a', show), 'asked anew, granted');
  bare.now += 2000;
  // Launchers that start at about the same time share what was asked for.
  const before = machine.count;
  for (let time = 0; time < 5; time++) assert.equal(await launch('a', show), 'asked anew, granted');
  assert.ok(machine.count <= before + 1);
});

async function hashOf({ cas }: BareCas): Promise<string> {
  return readHash(cas, 's', { certificate: keyOf('alice'), signers: [] });
}

test('a nonce of somebody else makes nothing fresh, nor does the same answer again', async () => {
  const { bare, launch } = hardware();
  await bare.upload(services({ a: `tdx: {mrtd: ${mrtd}}` }));
  const machine = las(domain());
  const deaf = async ({ data }: Asked) => machine.show({ data, nonce: undefined });
  assert.equal(await launch('a', deaf), 'asked anew, EVIDENCE_STALE');
  // One of the right time, without the code that goes with it.
  const time = bare.cas.machineNonces.issue(bare.now).subarray(0, 6);
  const inventive = async ({ data }: Asked) =>
    machine.show({ data, nonce: Buffer.concat([time, randomBytes(32)]) });
  assert.equal(await launch('a', inventive), 'asked anew, EVIDENCE_STALE');
});

test('a machine vouches for its own LAS alone, and a LAS only together with its machine', async () => {
  const { bare, launch } = hardware();
  await bare.upload(
    services({ a: `tdx: {mrtd: ${mrtd}}` }, 'security: {attestation: {tolerate: [debug-mode]}}'),
  );
  const [honest, other] = [las(domain()), las(domain())];
  // Somebody makes a key of his own, and borrows what an honest machine says.
  const borrowed = async (asked: Asked) => {
    const { hardware } = await honest.show(asked);
    const { evidence } = await other.show(asked);
    return { evidence: evidence ?? '', ...(hardware && { hardware }) };
  };
  assert.equal(await launch('a', borrowed), 'EVIDENCE_INVALID');
  const alone = async (asked: Asked) => ({ evidence: (await honest.show(asked)).evidence ?? '' });
  assert.equal(await launch('a', alone), 'PLATFORM_UNTRUSTED');
  const without = async (asked: Asked) => {
    const { hardware } = await honest.show(asked);
    return hardware ? { hardware } : {};
  };
  assert.equal(await launch('a', without), 'EVIDENCE_INVALID');
  // What is meant for a connection is not good for a machine.
  const confused = async (asked: Asked) => {
    const { evidence = '' } = await honest.show(asked);
    return { evidence, hardware: domain()(asked.data, '') };
  };
  assert.equal(await launch('a', confused), 'EVIDENCE_INVALID');
  assert.equal(await launch('a', ({ data }) => ({ hardware: enclave(data) })), 'MACHINE_MISSING');
});

test('a guest of SEV-SNP counts with level, versions and products as the policy has them', async () => {
  const { bare, launch } = hardware();
  const right = `measurement: ${'14'.repeat(48)}`;
  await bare.upload(
    services({
      right: `sev_snp: {${right}, minimum_tcb: {snp: 24, microcode: 219}}`,
      newer: `sev_snp: {${right}, minimum_tcb: {snp: 25}}`,
      open: `sev_snp: {${right}}`,
      genoa: `sev_snp: {${right}, products: [Genoa], minimum_tcb: {snp: 1}}`,
      level: `sev_snp: {${right}, vmpl: 2, minimum_tcb: {snp: 1}}`,
      host: `sev_snp: {${right}, host_data: ${'15'.repeat(32)}, minimum_tcb: {snp: 1}}`,
    }),
  );
  const run = async (service: string, options?: amd.ReportOptions) => {
    const machine = las(guest(options));
    return launch(service, machine.show.bind(machine));
  };
  assert.equal(await run('right'), 'asked anew, granted');
  assert.equal(await run('newer'), 'asked anew, WEAKNESS_NOT_TOLERATED');
  assert.equal(await run('open'), 'asked anew, WEAKNESS_NOT_TOLERATED');
  assert.equal(await run('genoa'), 'asked anew, MACHINE_UNEXPECTED');
  assert.equal(await run('level'), 'asked anew, MACHINE_UNEXPECTED');
  assert.equal(await run('level', { vmpl: 2 }), 'asked anew, granted');
  assert.equal(await run('right', { vmpl: 1 }), 'asked anew, MACHINE_UNEXPECTED');
  assert.equal(await run('host'), 'asked anew, granted');
  assert.equal(await run('right', { policy: 0xb_0137n }), 'asked anew, DEBUG_NOT_TOLERATED');
  assert.equal(await run('right', { platformInfo: 0x25n }), 'asked anew, WEAKNESS_NOT_TOLERATED');
});

test('nobody is admitted by an AMD machine whose revocation list is not there', async () => {
  const { bare, launch } = hardware(amd.bag([milan.ark, milan.ask, chipKey]));
  await bare.upload(services({ a: `sev_snp: {measurement: ${'14'.repeat(48)}, minimum_tcb: {snp: 1}}` }));
  const machine = las(guest());
  assert.equal(await launch('a', machine.show.bind(machine)), 'asked anew, COLLATERAL_MISSING');
});

test('platforms names machines too', async () => {
  const { bare, launch } = hardware();
  const text = services({ a: `tdx: {mrtd: ${mrtd}}`, b: `tdx: {mrtd: ${mrtd}}` })
    .replace('{name: a,', `{name: a, platforms: ["INTEL_QE_ID:${'CD'.repeat(16)}"],`)
    .replace('{name: b,', `{name: b, platforms: ["INTEL_QE_ID:${'ce'.repeat(16)}"],`);
  await bare.upload(text);
  const machine = las(domain());
  assert.equal(await launch('a', machine.show.bind(machine)), 'asked anew, granted');
  assert.equal(await launch('b', machine.show.bind(machine)), 'PLATFORM_NOT_ALLOWED');
});

test('a TPM counts once it is enrolled, with registers as the policy has them, and not from before a reset', async () => {
  const { bare, launch } = hardware();
  const registers = Object.entries(tpm.pcrs).map(([register, value]) => `${register}: "${value}"`);
  await bare.upload(
    services({ a: `tpm: {pcrs: {${registers.join(', ')}}}`, b: `tpm: {pcrs: {7: "${'0'.repeat(64)}"}}` }),
  );
  let boots = { resetCount: 5, restartCount: 0 };
  const machine = las((data, nonce) => {
    const { message, signature, key, pcrs } = tpm.quote({ extraData: tpmReportData(data), ...boots });
    return {
      type: 'tpm',
      message: base64(message),
      signature: base64(signature),
      key: base64(key),
      pcrs,
      nonce,
    };
  });
  const show = machine.show.bind(machine);
  assert.equal(await launch('a', show), 'TPM_UNKNOWN');
  const { name } = parsePublicArea(tpm.publicArea(tpm.ecKey));
  const endorsementKey = randomBytes(32);
  await bare.cas.store.enrol(endorsementKey, name);
  assert.equal(await launch('a', show), 'asked anew, granted');
  assert.equal(await launch('b', show), 'MACHINE_UNEXPECTED');

  const kept = await machine.show({ data: randomBytes(64), nonce: undefined });
  const old = async ({ data }: Asked) => ({
    evidence: (await machine.show({ data, nonce: undefined })).evidence ?? '',
    ...(kept.hardware && { hardware: kept.hardware }),
  });
  assert.equal(await launch('a', old), 'granted');
  boots = { resetCount: 6, restartCount: 0 };
  bare.now += 700_000;
  assert.equal(await launch('a', show), 'asked anew, granted');
  assert.equal(await launch('a', old), 'EVIDENCE_STALE');
  // Whoever enrols the same key again wins nothing by it, and another takes no place.
  assert.ok(await bare.cas.store.enrol(endorsementKey, name));
  assert.ok(!(await bare.cas.store.enrol(endorsementKey, randomBytes(34))));
  assert.ok(await bare.cas.store.enrol(endorsementKey, name));
  assert.equal(await launch('a', old), 'EVIDENCE_STALE');
  const beforeRestart = await machine.show({ data: randomBytes(64), nonce: undefined });
  boots = { resetCount: 6, restartCount: 1 };
  bare.now += 700_000;
  assert.equal(await launch('a', show), 'asked anew, granted');
  const resumed = async ({ data }: Asked) => ({
    evidence: (await machine.show({ data, nonce: undefined })).evidence ?? '',
    ...(beforeRestart.hardware && { hardware: beforeRestart.hardware }),
  });
  assert.equal(await launch('a', resumed), 'EVIDENCE_STALE');
});

test('a refusal says what of the machine would have to be tolerated', async () => {
  const outdated = intel.collateral({
    by: processors,
    tee: 'TDX',
    tcb: intel.tcbInfo('TDX', [{ status: 'OutOfDate', advisories: ['INTEL-SA-01036'] }]),
  });
  const { bare, launch } = hardware(outdated);
  await bare.upload(services({ a: `tdx: {mrtd: ${mrtd}}` }));
  const machine = las(domain());
  let said: string[] = [];
  try {
    const connection = {
      channel: randomBytes(32),
      source: 'here',
      shown: new Set<string>(),
      confirms: true,
      spent: [],
    };
    const data = reportData({
      role: 'launcher',
      channel: connection.channel,
      casKey: bare.cas.key,
      configId: 's/a',
    });
    const request = async (nonce?: Buffer) => ({
      session: 's',
      service: 'a',
      ...(await machine.show({ data, nonce })),
    });
    await assert.rejects(release(bare.cas, { request: await request(), connection }), Challenge);
    const { challenge } = connection as { challenge?: Buffer };
    await release(bare.cas, { request: await request(challenge), connection });
  } catch (error) {
    said = causes(error);
  }
  assert.equal(said.length, 3);
  assert.match(said[0] ?? '', /outdated-tcb: firmware or microcode lacks published corrections/);
  assert.match(said[1] ?? '', /INTEL-SA-01036/);
  assert.match(said[2] ?? '', /tolerate: \[outdated-tcb\], ignore_advisories: \[INTEL-SA-01036\]/);
  assert.equal(await launch('a', machine.show.bind(machine)), 'WEAKNESS_NOT_TOLERATED');
});

test('where no Evidence is asked for, none is looked at', async () => {
  const { bare, launch } = hardware();
  bare.cas.collateral.forQuote = async () => assert.fail('nobody needs collateral');
  await bare.upload(services({ a: '' }, 'security: {attestation: {mode: none}}'));
  const machine = las(domain());
  assert.equal(await launch('a', machine.show.bind(machine)), 'granted');
});

test('who holds no certificate of the maker makes nobody fetch anything', async () => {
  const { bare, launch } = hardware();
  bare.cas.collateral.forQuote = async () => assert.fail('that would be asked for at others');
  await bare.upload(services({ a: '' }));
  const stranger = intel.maker();
  const own = { pck: intel.pck(stranger), chain: [stranger.platformCa, stranger.root] };
  const body = intel.enclaveReport({ reportData: Buffer.alloc(64) });
  const show = () => ({
    hardware: { type: 'sgx' as const, quote: base64(intel.quote({ tee: 'sgx', body, ...own })) },
  });
  assert.equal(await launch('a', show), 'EVIDENCE_INVALID');
});

test('a TPM is enrolled by the secret that was made for it, for a minute', async () => {
  const { bare } = hardware();
  const secret = randomBytes(32);
  const contents = {
    endorsementKey: 'aa'.repeat(32),
    attestationKey: `000b${'bb'.repeat(32)}`,
    secret: secret.toString('hex'),
    until: bare.now + 60_000,
  };
  const seal = (place: string) =>
    Buffer.from(bare.cas.keyring.seal(Buffer.from(JSON.stringify(contents)), place));
  const ticket = seal('ticket/tpm-enrolment');
  const name = Buffer.from(contents.attestationKey, 'hex');
  const unproven = (answer: Parameters<typeof enrolTpm>[1]) =>
    assert.rejects(enrolTpm(bare.cas, answer), { code: 'TPM_UNPROVEN' });
  await unproven({ ticket, secret: randomBytes(32) });
  await unproven({ ticket, secret: Buffer.from(secret.subarray(1)) });
  await unproven({ ticket: seal('elsewhere'), secret });
  bare.now += 61_000;
  await unproven({ ticket, secret });
  assert.equal(await bare.cas.store.endorsementKey(name), undefined);
  bare.now -= 2_000;
  assert.equal((await enrolTpm(bare.cas, { ticket, secret })).platform, `TPM_EK:${contents.endorsementKey}`);
  assert.equal((await bare.cas.store.endorsementKey(name))?.toString('hex'), contents.endorsementKey);
});

test('in a token of another session only an enclave is named, which no author of a policy can make up', async () => {
  const { bare, launch } = hardware();
  await bare.upload(
    `name: giver\nversion: "0.3.12"\nsecrets:\n  - {name: k, kind: private-key, key_type: P-384}\n` +
      '  - {name: t, kind: jwt, signer: k, alg: ES384, validity: {for: 1h}, ' +
      'payload: {sub: $$SCONE::self::software_identity$$}, export: [{session: s}]}\n',
  );
  const command = 'command: [$$SCONE::t$$], attestation';
  const text = services(
    { a: '', b: `tdx: {mrtd: ${mrtd}}` },
    'security: {attestation: {tolerate: [debug-mode]}}',
  );
  await bare.upload(
    `${text.replaceAll('attestation: {mrenclave', () => `${command}: {mrenclave`)}\nsecrets: [{name: t, import: {session: giver, secret: t}}]`,
    'mallory',
  );
  assert.equal(await launch('a', ({ data }) => ({ hardware: enclave(data) })), 'granted');
  const debug = ({ data }: Asked) => ({ hardware: enclave(data, { attributes: `07${'0'.repeat(30)}` }) });
  assert.equal(await launch('a', debug), 'SECRET_UNAVAILABLE');
  const machine = las(domain());
  assert.equal(await launch('b', machine.show.bind(machine)), 'asked anew, SECRET_UNAVAILABLE');
});
