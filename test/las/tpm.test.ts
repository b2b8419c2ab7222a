import assert from 'node:assert/strict';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parseCollateral } from '../../src/attestation/collateral.ts';
import {
  makeCredential,
  noTpms,
  type TrustedTpms,
  verifyEndorsementKey,
} from '../../src/attestation/tpm/credential.ts';
import { parsePublicArea } from '../../src/attestation/tpm/structures.ts';
import { verifyTpmQuote } from '../../src/attestation/tpm/verify.ts';
import { isEnrolled, openTpm, type Tpm } from '../../src/las/tpm.ts';
import { ENDORSEMENT, publicArea } from '../attestation/tpm/synthetic.ts';
import { certificate, newKey } from '../support/pki.ts';
import { skip, startTpm, type TestTpm } from '../support/tpm.ts';

/** A TPM through the programs of tpm2-tools: swtpm, which is one in all but the chip. */

let swtpm: TestTpm;
let directory: string;
let tpm: Tpm;
const open = () => openTpm({ directory, env: { ...process.env, TPM2TOOLS_TCTI: swtpm.tcti } });
before(async () => {
  if (skip) return;
  swtpm = await startTpm();
  directory = mkdtempSync(join(tmpdir(), 'envcas-las-'));
  assert.equal(isEnrolled(directory), false);
  tpm = await open();
});
after(async () => {
  if (skip) return;
  await swtpm.stop();
  rmSync(directory, { recursive: true });
});

const verified = (quoted: Awaited<ReturnType<Tpm['quote']>>) =>
  verifyTpmQuote({ ...quoted, key: tpm.attestationKey });

test('it quotes 64 bytes and its registers', { skip }, async () => {
  const data = randomBytes(64);
  const verdict = verified(await tpm.quote(data));
  assert.equal(verdict.reportData, data.toString('hex'));
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

test('only the owner reads what is kept, and nothing else is left', { skip }, () => {
  assert.deepEqual(readdirSync(join(directory, 'tpm')).toSorted(), ['ak.priv', 'ak.pub']);
  for (const name of ['ak.priv', 'ak.pub'])
    assert.equal(statSync(join(directory, 'tpm', name)).mode & 0o077, 0);
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
    await assert.rejects(tpm.activate(credential), { code: 'HARDWARE_UNUSABLE' });
});

test('a credential for an endorsement key of ECC is opened too', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'envcas-ecc-'));
  const file = (name: string) => join(folder, name);
  try {
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
  } finally {
    rmSync(folder, { recursive: true });
  }
});

const now = Date.now();
function makers(pem: string): TrustedTpms {
  const { certificates } = parseCollateral([{ name: 'makers', bytes: Buffer.from(pem) }]);
  const roots = certificates.filter(({ subject, issuer }) => subject === issuer);
  return { ...noTpms, certificates, roots: new Set(roots.map(({ fingerprint }) => fingerprint)) };
}

test('a TPM is trusted by the certificate of its maker, or by its name', { skip }, async () => {
  const { publicArea: endorsementKey, certificate: own } = await tpm.endorsementKey();
  assert.ok(own);
  const trusted = makers(swtpm.makers);
  const byMaker = verifyEndorsementKey({ endorsementKey, certificate: own }, { ...trusted, at: now });
  assert.equal(byMaker.trustedBy, 'certificate');
  const byName = verifyEndorsementKey({ endorsementKey }, { ...noTpms, trustedKeys: [byMaker.ek], at: now });
  assert.deepEqual(byName, { ek: byMaker.ek, trustedBy: 'name' });

  const refused = (
    code: string,
    given: Parameters<typeof verifyEndorsementKey>[0],
    by: TrustedTpms,
    at = now,
  ) => assert.throws(() => verifyEndorsementKey(given, { ...by, at }), { code });
  refused('TPM_UNTRUSTED', { endorsementKey }, trusted);
  refused('TPM_UNTRUSTED', { endorsementKey, certificate: own }, noTpms);
  refused(
    'TPM_UNTRUSTED',
    { endorsementKey: publicArea(newKey('RSA'), ENDORSEMENT), certificate: own },
    trusted,
  );
  refused('EVIDENCE_INVALID', { endorsementKey, certificate: own }, trusted, Date.parse('2000-01-01'));
  refused('EVIDENCE_INVALID', { endorsementKey, certificate: own.subarray(1) }, trusted);
  // Who has the certificate of another maker, or is no endorsement key.
  const impostor = certificate({ commonName: 'Another maker', ca: true });
  refused('EVIDENCE_INVALID', { endorsementKey, certificate: own }, makers(impostor.pem));
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const forged = certificate({ commonName: 'TPM', key: privateKey, issuer: impostor });
  const theirs = { endorsementKey: publicArea(privateKey, ENDORSEMENT), certificate: forged.der };
  refused('EVIDENCE_INVALID', theirs, trusted);
  assert.equal(verifyEndorsementKey(theirs, { ...makers(impostor.pem), at: now }).trustedBy, 'certificate');
  refused('EVIDENCE_INVALID', { ...theirs, endorsementKey: publicArea(privateKey) }, makers(impostor.pem));
});

test('where there is no TPM, the reason is told', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'envcas-las-'));
  try {
    const env = { ...process.env, TPM2TOOLS_TCTI: 'device:/nonexistent' };
    await assert.rejects(openTpm({ directory: folder, env }), { code: 'HARDWARE_UNUSABLE' });
    await assert.rejects(openTpm({ directory: folder, env: { PATH: '/nonexistent' } }), {
      code: 'HARDWARE_UNUSABLE',
      message: /tpm2_/,
    });
    assert.equal(isEnrolled(folder), false);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
