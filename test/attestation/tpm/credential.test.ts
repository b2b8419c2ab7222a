import assert from 'node:assert/strict';
import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import { test } from 'node:test';
import { Malformed } from '../../../src/attestation/bytes.ts';
import { parseCollateral } from '../../../src/attestation/collateral.ts';
import {
  makeCredential,
  noTpms,
  type TrustedTpms,
  verifyEndorsementKey,
} from '../../../src/attestation/tpm/credential.ts';
import {
  type CertificateOptions,
  certificate,
  der,
  type Issuer,
  type Minted,
  name,
  newKey,
  objectIdentifier,
  revocationList,
  sequence,
} from '../../support/pki.ts';
import { survives } from '../../support/spoil.ts';
import { ENDORSEMENT, ecKey, publicArea, rsaKey } from './synthetic.ts';

/** Whose TPM it is: endorsement keys, their certificates and makers. What a TPM makes of a credential, las/tpm.test.ts tries. */

const at = Date.parse('2026-06-01T00:00:00Z');
const FOR_ENDORSEMENT = '2.23.133.8.1';
const usage = (id: string, isCritical: boolean) => ({
  id: '2.5.29.37',
  content: sequence(objectIdentifier(id)),
  isCritical,
});
/** What a TPM's certificate has in place of a subject: a directoryName. */
const alternativeName = { id: '2.5.29.17', content: sequence(der(0xa4, name('TPM'))), isCritical: true };

const root = certificate({ commonName: 'Maker', ca: true });
const issuer = certificate({ commonName: 'Issuer of the maker', ca: 0, issuer: root });
const bagOf = (...files: Buffer[]) =>
  parseCollateral(files.map((bytes, index) => ({ name: String(index), bytes })));
const fingerprint = (minted: Minted) => createHash('sha256').update(minted.der).digest('hex');

function makers(...certificates: Minted[]): TrustedTpms {
  return {
    ...noTpms,
    ...bagOf(...certificates.map((each) => each.der)),
    roots: new Set([fingerprint(root)]),
  };
}

const trusted = makers(root, issuer);
const endorsementKey = publicArea(rsaKey, ENDORSEMENT);

function mint(by: Issuer, key: KeyObject, extensions: CertificateOptions['extensions'], more: object = {}) {
  return certificate({
    commonName: 'TPM',
    key,
    ca: false,
    issuer: by,
    ...(extensions && { extensions }),
    ...more,
  }).der;
}
const genuine = mint(issuer, rsaKey, [alternativeName, usage(FOR_ENDORSEMENT, true)]);

function accepted(bytes: Buffer, by = trusted, key = endorsementKey): void {
  const { trustedBy } = verifyEndorsementKey({ endorsementKey: key, certificate: bytes }, { ...by, at });
  assert.equal(trustedBy, 'certificate');
}

interface Refusal {
  code?: string;
  detail?: RegExp;
  bytes?: Buffer | undefined;
  by?: TrustedTpms;
  key?: Buffer;
  at?: number;
}

function refused({
  code = 'TPM_UNTRUSTED',
  detail = /./,
  by = trusted,
  key = endorsementKey,
  ...given
}: Refusal) {
  const bytes = 'bytes' in given ? given.bytes : genuine;
  assert.throws(
    () =>
      verifyEndorsementKey(
        { endorsementKey: key, ...(bytes && { certificate: bytes }) },
        { ...by, at: given.at ?? at },
      ),
    (error: Error & { code?: string }) => {
      assert.equal(error.code, code, String(error));
      assert.match(error.message, detail);
      return true;
    },
  );
}

test('a maker vouches for a key by a certificate, and an operator by naming it', () => {
  accepted(genuine);
  const ek = createHash('sha256')
    .update(createPublicKey(rsaKey).export({ type: 'spki', format: 'der' }))
    .digest('hex');
  const named = verifyEndorsementKey({ endorsementKey }, { ...noTpms, trustedKeys: [ek], at });
  assert.deepEqual(named, { ek, trustedBy: 'name' });
  refused({ bytes: undefined, detail: /no certificate/ });
  refused({ by: noTpms, detail: /no maker/ });
  refused({ by: { ...noTpms, trustedKeys: ['ab'.repeat(32)] }, bytes: undefined });
});

test('of the keys of a TPM that its maker has certified, one counts; another one has to be named', () => {
  const bytes = mint(issuer, ecKey, [usage(FOR_ENDORSEMENT, false)]);
  const key = publicArea(ecKey, ENDORSEMENT);
  refused({ key, bytes, detail: /RSA key of 2048 bits alone/ });
  const spki = createPublicKey(ecKey).export({ type: 'spki', format: 'der' });
  const trustedKeys = [createHash('sha256').update(spki).digest('hex')];
  assert.equal(
    verifyEndorsementKey({ endorsementKey: key }, { ...noTpms, trustedKeys, at }).trustedBy,
    'name',
  );
  const policy = Buffer.from(publicArea(rsaKey, ENDORSEMENT));
  policy[12] = (policy[12] ?? 0) ^ 1;
  refused({ key: policy, detail: /template L-1/ });
});

test('the certificate is for this key, from a maker who is trusted, in date and not revoked', () => {
  refused({ key: publicArea(newKey('RSA'), ENDORSEMENT), detail: /another key/ });
  const impostor = certificate({ commonName: 'Maker', ca: true });
  refused({ bytes: mint(impostor, rsaKey, []), detail: /no chain/ });
  refused({ by: makers(root), detail: /has issued TPM, so there is no chain/ });
  refused({ code: 'EVIDENCE_INVALID', at: Date.parse('2019-01-01'), detail: /good from/ });
  refused({ code: 'EVIDENCE_INVALID', at: Date.parse('2051-01-01'), detail: /good until/ });
  const listed = mint(issuer, rsaKey, [usage(FOR_ENDORSEMENT, false)], { serial: 77 });
  const withList = (list: Buffer) => ({ ...trusted, ...bagOf(root.der, issuer.der, list) });
  accepted(listed, withList(revocationList({ issuer, revoked: [78] })));
  const revoking = withList(revocationList({ issuer, revoked: [77] }));
  refused({ code: 'CERTIFICATE_REVOKED', bytes: listed, by: revoking });
  const foreign = withList(revocationList({ issuer: { ...impostor, commonName: issuer.commonName } }));
  refused({ code: 'COLLATERAL_INVALID', bytes: listed, by: foreign });
});

test('the certificate says that it is for endorsement keys, and is no authority', () => {
  const own = usage(FOR_ENDORSEMENT, false);
  accepted(mint(issuer, rsaKey, [alternativeName, own]));
  refused({ bytes: mint(issuer, rsaKey, [alternativeName]), detail: /TPM is not for endorsement keys/ });
  refused({ bytes: mint(issuer, rsaKey, [own], { ca: 0 }), detail: /TPM is an authority/ });
  // That of an attestation key, of the same maker.
  for (const isCritical of [true, false])
    refused({
      bytes: mint(issuer, rsaKey, [usage('2.23.133.8.3', isCritical)]),
      detail: /TPM is not for endorsement keys/,
    });
  const limited = (id: string, isCritical: boolean) =>
    certificate({ commonName: 'Limited', ca: 0, issuer: root, extensions: [usage(id, isCritical)] });
  const from = (by: Minted) => mint(by, rsaKey, [usage(FOR_ENDORSEMENT, true)]);
  for (const by of [limited(FOR_ENDORSEMENT, true), limited('1.3.6.1.5.5.7.3.1', false)])
    accepted(from(by), makers(root, by));
  const servers = limited('1.3.6.1.5.5.7.3.1', true);
  refused({ bytes: from(servers), by: makers(root, servers), detail: /Limited is not for endorsement keys/ });
  const unknown = { id: '1.2.3.4', content: sequence(), isCritical: true };
  refused({
    code: 'EVIDENCE_INVALID',
    bytes: mint(issuer, rsaKey, [unknown]),
    detail: /critical extension 1\.2\.3\.4/,
  });
});

test('a key has all attributes of an endorsement key, and signs nothing', () => {
  const flags = [1, 4, 5, 7, 16, 17].map((bit) => 1 << bit);
  assert.equal(
    flags.reduce((all, flag) => all | flag, 0),
    ENDORSEMENT,
  );
  for (const flag of [...flags, 1 << 18])
    refused({
      code: 'EVIDENCE_INVALID',
      key: publicArea(rsaKey, ENDORSEMENT ^ flag),
      detail: /attributes/,
    });
});

test('a spoiled certificate or key vouches for nothing', () => {
  const check = (key: Buffer, bytes: Buffer) => {
    verifyEndorsementKey({ endorsementKey: key, certificate: bytes }, { ...trusted, at });
    assert.ok(bytes.equals(genuine), 'it was believed');
  };
  const isRefusal = (error: unknown) =>
    error instanceof Error &&
    'code' in error &&
    ['EVIDENCE_INVALID', 'TPM_UNTRUSTED'].includes(String(error.code));
  survives(genuine, (bytes) => check(endorsementKey, bytes), isRefusal);
  survives(endorsementKey, (bytes) => check(bytes, genuine), isRefusal);
});

test('a credential is made for endorsement keys of the usual kinds', () => {
  const keyName = Buffer.concat([Buffer.of(0, 0x0b), Buffer.alloc(32)]);
  const make = (key: Buffer, length: number) => makeCredential(key, keyName, Buffer.alloc(length));
  for (const key of [rsaKey, ecKey]) {
    const area = publicArea(key, ENDORSEMENT);
    assert.notDeepEqual(make(area, 32), make(area, 32));
    assert.throws(() => make(area, 33), Malformed);
  }
  const isMalformed = (error: unknown) => error instanceof Malformed;
  survives(publicArea(ecKey, ENDORSEMENT), (bytes) => make(bytes, 32), isMalformed);
});
