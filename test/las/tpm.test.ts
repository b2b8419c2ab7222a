import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { parseCollateral } from '../../src/attestation/collateral.ts';
import { makeCredential, noTpms, verifyEndorsementKey } from '../../src/attestation/tpm/credential.ts';
import { parsePublicArea } from '../../src/attestation/tpm/structures.ts';
import { verifyTpmQuote } from '../../src/attestation/tpm/verify.ts';
import { isEnrolled, openTpm, type Tpm } from '../../src/las/tpm.ts';
import { ENDORSEMENT, message, pcrs, publicArea } from '../attestation/tpm/synthetic.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { newKey } from '../support/pki.ts';
import { missing } from '../support/stack.ts';
import { skip, startTpm, type TestTpm } from '../support/tpm.ts';

/** A TPM through the programs of tpm2-tools: swtpm, which is one in all but the chip. */

let swtpm: TestTpm;
let directory: string;
let tpm: Tpm;
const open = () => openTpm({ directory, env: { ...process.env, TPM2TOOLS_TCTI: swtpm.tcti } });
before(async () => {
  if (skip) return;
  swtpm = await startTpm();
  directory = temporaryFolder();
  assert.equal(isEnrolled(directory), false);
  tpm = await open();
});

const verified = (quoted: Awaited<ReturnType<Tpm['quote']>>) =>
  verifyTpmQuote({ ...quoted, key: tpm.attestationKey });

test('it quotes report data as far as every TPM takes it, and its registers', { skip }, async () => {
  const data = randomBytes(64);
  const verdict = verified(await tpm.quote(data));
  assert.equal(verdict.reportData, data.toString('hex', 0, 32));
  assert.deepEqual(
    verdict.selected,
    Array.from({ length: 16 }, (_, register) => register),
  );
  assert.equal(verdict.resetCount, (await tpm.clock()).resetCount);
});

test('what was measured shows in the next quote', { skip }, async () => {
  const registers = async () => verified(await tpm.quote(randomBytes(64))).pcrs?.['9'];
  const unlike = await registers();
  swtpm.run('tpm2_pcrextend', `9:sha256=${'ab'.repeat(32)}`);
  assert.notEqual(await registers(), unlike);
});

test('its key outlives a restart of the LAS and a reset of the TPM, which counts', { skip }, async () => {
  const { attestationKey } = tpm;
  const { resetCount } = verified(await tpm.quote(randomBytes(64)));
  await swtpm.reboot();
  assert.equal(isEnrolled(directory), true);
  tpm = await open();
  assert.deepEqual(tpm.attestationKey, attestationKey);
  const verdict = verified(await tpm.quote(randomBytes(64)));
  assert.equal(verdict.resetCount, resetCount + 1);
  assert.equal(verdict.pcrs?.['9'], '0'.repeat(64));
});

test('who reaches the TPM cannot lock it by wrong authorisations of a key of his own', { skip }, async () => {
  const file = (name: string) => join(folder, name);
  const folder = temporaryFolder();
  swtpm.run('tpm2_createprimary', '-C', 'o', '-c', file('primary'));
  swtpm.run('tpm2_create', ...['-C', file('primary'), '-G', 'ecc', '-p', 'right', '-c', file('key')]);
  writeFileSync(file('digest'), randomBytes(32));
  const signs = (password: string) => {
    const key = ['-c', file('key'), '-p', password];
    try {
      swtpm.run('tpm2_sign', ...key, '-d', ...[file('digest'), '-o', file('signature')]);
      return true;
    } catch {
      // What fails leaves the key in the TPM.
      swtpm.run('tpm2_getcap', 'handles-transient');
      return false;
    }
  };
  assert.equal(signs('right'), true);
  // So many that it locks what it does protect.
  for (let count = 0; count < 40; count++) signs('wrong');
  assert.equal(signs('right'), false);
  assert.equal(verified(await tpm.quote(randomBytes(64))).root, 'tpm');
  swtpm.run('tpm2_dictionarylockout', '--clear-lockout');
});

test('only the owner reads what is kept, and nothing else is left', { skip }, () => {
  const kept = ['ak.auth', 'ak.priv', 'ak.pub'];
  assert.deepEqual(readdirSync(join(directory, 'tpm')).toSorted(), kept);
  for (const name of kept) assert.equal(statSync(join(directory, 'tpm', name)).mode & 0o077, 0);
});

test('an endorsement key is made where there is none, always the same', { skip }, async () => {
  const { publicArea: own } = await tpm.endorsementKey();
  swtpm.run('tpm2_evictcontrol', '-c', '0x81010001');
  const folder = temporaryFolder();
  const other = await openTpm({ directory: folder, env: { ...process.env, TPM2TOOLS_TCTI: swtpm.tcti } });
  assert.deepEqual((await other.endorsementKey()).publicArea, own);
  assert.notDeepEqual(other.attestationKey, tpm.attestationKey);
  assert.equal(verified(await tpm.quote(randomBytes(64))).root, 'tpm');
  await assert.rejects(async () => verified(await other.quote(randomBytes(64))), /signature/);
});

test('quotes that were made with other keys, and written otherwise, verify', { skip }, () => {
  const folder = temporaryFolder();
  const file = (name: string) => join(folder, name);
  const read = (name: string) => readFileSync(file(name));
  swtpm.run('tpm2_createprimary', ...['-C', 'e', '-c', file('primary')]);
  const attributes = 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign';
  for (const [scheme, hash, formats] of [
    ['rsa2048:rsassa', 'sha256', ['tss', 'plain']],
    ['ecc256:ecdsa', 'sha256', ['tss', 'plain']],
    // Bare, a signature does not say with which hash it was made.
    ['rsa3072:rsassa', 'sha512', ['tss']],
    ['ecc384:ecdsa', 'sha384', ['tss']],
  ] as const) {
    swtpm.run(
      'tpm2_create',
      ...['-C', file('primary'), '-G', `${scheme}-${hash}:null`, '-a', attributes],
      ...['-u', file('key.pub'), '-c', file('key')],
    );
    for (const format of formats) {
      swtpm.run(
        'tpm2_quote',
        ...['-c', file('key'), '-l', 'sha256:0,7,16', '-q', 'ab'.repeat(20), '-g', hash, '-f', format],
        ...['-m', file('message'), '-s', file('signature'), '-o', file('pcrs'), '-F', 'values'],
      );
      const quote = { message: read('message'), signature: read('signature'), pcrs: read('pcrs') };
      const { selected, reportData, keyName } = verifyTpmQuote({ ...quote, key: read('key.pub') });
      assert.deepEqual([selected, reportData], [[0, 7, 16], 'ab'.repeat(20)], `${scheme}, ${format}`);
      assert.match(swtpm.run('tpm2_readpublic', '-c', file('key')), new RegExp(`^name: ${keyName}$`, 'm'));
      assert.throws(() => verifyTpmQuote({ ...quote, key: tpm.attestationKey }), {
        code: 'EVIDENCE_INVALID',
      });
    }
  }
});

test('a key that signs anything vouches for nothing, though it is in the TPM', { skip }, () => {
  const folder = temporaryFolder();
  const file = (name: string) => join(folder, name);
  swtpm.run('tpm2_createprimary', ...['-C', 'e', '-c', file('primary')]);
  swtpm.run(
    'tpm2_create',
    ...['-C', file('primary'), '-G', 'ecc256:ecdsa-sha256:null', '-u', file('key.pub'), '-c', file('key')],
  );
  writeFileSync(file('message'), message());
  swtpm.run('tpm2_sign', ...['-c', file('key'), '-g', 'sha256', '-o', file('signature'), file('message')]);
  const forged = { message: message(), signature: readFileSync(file('signature')), pcrs };
  const key = readFileSync(file('key.pub'));
  assert.equal(verifyTpmQuote({ ...forged, key: parsePublicArea(key).key }).keyName, undefined);
  assert.throws(() => verifyTpmQuote({ ...forged, key }), /only what its TPM says/);
});

test('a credential for both of its keys it opens, and no other', { skip }, async () => {
  const { publicArea: endorsementKey } = await tpm.endorsementKey();
  const { name } = parsePublicArea(tpm.attestationKey);
  const secret = randomBytes(32);
  assert.deepEqual(await tpm.activate(makeCredential(endorsementKey, name, secret)), secret);
  const otherName = Buffer.concat([name.subarray(0, 2), randomBytes(32)]);
  const otherKey = publicArea(newKey('RSA'), ENDORSEMENT);
  for (const credential of [
    makeCredential(endorsementKey, otherName, secret),
    makeCredential(otherKey, name, secret),
  ])
    await assert.rejects(tpm.activate(credential), { code: 'TPM_UNUSABLE', message: /\(0x/ });
});

test('a credential for an endorsement key of ECC is opened too', { skip }, () => {
  const folder = temporaryFolder();
  const file = (name: string) => join(folder, name);
  const run = (program: string, ...args: string[]) => swtpm.run(program, ...args);
  run('tpm2_createek', ...['-c', '0x81010002', '-G', 'ecc', '-u', file('ek.pub'), '-f', 'tss']);
  run(
    'tpm2_createak',
    ...['-C', '0x81010002', '-c', file('ak.ctx'), '-G', 'ecc', '-g', 'sha256', '-s', 'ecdsa'],
    ...['-u', file('ak.pub'), '-r', file('ak.priv'), '-n', file('ak.name')],
  );
  run('tpm2_readpublic', '-c', '0x81010002', '-f', 'tss', '-o', file('ek.tss'));
  const secret = randomBytes(20);
  const { credentialBlob, encryptedSecret } = makeCredential(
    parsePublicArea(readFileSync(file('ek.tss'))).bytes,
    readFileSync(file('ak.name')),
    secret,
  );
  writeFileSync(
    file('credential'),
    Buffer.concat([Buffer.from('badcc0de00000001', 'hex'), credentialBlob, encryptedSecret]),
  );
  run('tpm2_startauthsession', '--policy-session', '-S', file('session'));
  run('tpm2_policysecret', '-S', file('session'), '-c', 'e');
  run(
    'tpm2_activatecredential',
    ...['-c', file('ak.ctx'), '-C', '0x81010002', '-i', file('credential')],
    ...['-o', file('secret'), '-P', `session:${file('session')}`],
  );
  assert.deepEqual(readFileSync(file('secret')), secret);
});

test('it is trusted by the certificate that its maker has put into it', { skip }, async () => {
  const { publicArea: endorsementKey, certificate } = await tpm.endorsementKey();
  const { certificates } = parseCollateral([{ name: 'makers', bytes: Buffer.from(swtpm.makers) }]);
  const roots = certificates.filter(({ subject, issuer }) => subject === issuer);
  const trusted = {
    ...noTpms,
    certificates,
    roots: new Set(roots.map(({ fingerprint }) => fingerprint)),
    at: Date.now(),
  };
  assert.equal(verifyEndorsementKey({ endorsementKey, certificate }, trusted).trustedBy, 'certificate');
});

const unusable = async (env: NodeJS.ProcessEnv, message: RegExp) => {
  const folder = temporaryFolder();
  await assert.rejects(openTpm({ directory: folder, env }), { code: 'TPM_UNUSABLE', message });
  assert.equal(isEnrolled(folder), false);
};

test('where there is no TPM, the reason is told', { skip: missing('tpm2_getcap') }, () =>
  unusable({ ...process.env, TPM2TOOLS_TCTI: 'device:/nonexistent' }, /tcti/),
);

test('where tpm2-tools are not installed, that is told', () =>
  unusable({ PATH: '/nonexistent' }, /tpm2_getcap: not found in PATH; the package tpm2-tools has it/));
