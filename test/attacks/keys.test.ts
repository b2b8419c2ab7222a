import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createPublicKey, X509Certificate } from 'node:crypto';
import { globSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, test } from 'node:test';
import { parseCertificateTable } from '../../src/attestation/amd/certificate-table.ts';
import { parseCollateral } from '../../src/attestation/collateral.ts';
import { pckCertificates } from '../../src/attestation/intel/pck.ts';
import { parseCertificate } from '../../src/attestation/x509/certificate.ts';
import { publicKey as auditLogKey } from '../../src/audit/tree-head.ts';
import { principalKey } from '../../src/policy/principals.ts';
import { signerDigest } from '../../src/policy/signed-session.ts';
import { readCertificate, readPrivateKey, readPublicKey } from '../../src/quick-key.ts';
import { parsePrivateKey, parsePublicKey, publicKeyOf } from '../../src/secrets/private-key.ts';
import { certificatePublicKey, certificateValidity, parseCertificates } from '../../src/secrets/x509.ts';
import { dearCertificate, dearPrivateKeys, dearPublicKey } from '../support/dear-key.ts';
import { certificate, pem } from '../support/pki.ts';
import { missing } from '../support/stack.ts';

const dear = dearCertificate();
const dearPem = pem(dear, 'CERTIFICATE');
const dearKeyPem = pem(dearPublicKey, 'PUBLIC KEY');
const honest = certificate({ commonName: 'honest' });

/** An entry of a certificate table that has one certificate, and its end. */
function tableOf(der: Buffer): Buffer {
  const entries = Buffer.alloc(48, 0);
  entries.fill(1, 0, 16);
  entries.writeUInt32LE(48, 16);
  entries.writeUInt32LE(der.length, 20);
  return Buffer.concat([entries, der]);
}

describe('a key that takes OpenSSL long to read is not read', () => {
  const refused = { name: /^(UnknownKey|Malformed)$/ };
  const ways: Record<string, () => void> = {
    certificate: () => assert.throws(() => readCertificate(dear), refused),
    'PEM in a certificate': () => {
      const extensions = [{ id: '1.2.3', content: Buffer.from(`\n${dearPem}`) }];
      assert.throws(() => readCertificate(certificate({ commonName: 'a', extensions }).der), refused);
    },
    'public key': () => assert.throws(() => readPublicKey(dearPublicKey), refused),
    'private key, and one that has its curve within': () => {
      for (const key of dearPrivateKeys) {
        assert.throws(() => readPrivateKey(key), refused);
        assert.throws(() => publicKeyOf(key), refused);
        assert.match(
          String(parsePrivateKey(pem(key, 'PRIVATE KEY'))),
          /^the type of the private key is none/,
        );
      }
    },
    'secret of kind public-key': () => assert.match(String(parsePublicKey(dearKeyPem)), /unknown type/),
    signer: () => assert.match(String(signerDigest(dearKeyPem)), /unknown type/),
    'key of an audit log': () => assert.equal(auditLogKey(dearKeyPem), undefined),
    principal: () => {
      assert.equal(principalKey(dearPem), undefined);
      // OpenSSL would take the first one, whatever it is called.
      const first = pem(dear, 'X509 CERTIFICATE');
      assert.equal(principalKey(first + honest.pem), undefined);
    },
    'secret of kind x509': () => assert.match(String(parseCertificates(honest.pem + dearPem)), /damaged/),
    'certificate of another CAS': () => {
      assert.throws(() => certificateValidity(dear), refused);
      assert.throws(() => certificatePublicKey(dear), refused);
    },
    'certificate of hardware': () => {
      assert.throws(() => parseCertificate(dear), { name: 'Malformed' });
      assert.throws(() => parseCertificateTable(tableOf(dear)), { name: 'Malformed' });
      for (const bytes of [dear, Buffer.from(dearPem)])
        assert.throws(() => parseCollateral([{ name: 'a', bytes }]), { code: 'COLLATERAL_INVALID' });
    },
  };
  for (const [what, way] of Object.entries(ways)) test(what, way);
});

test('OpenSSL would read it', () => {
  assert.equal(new X509Certificate(dear).publicKey.asymmetricKeyType, 'ec');
  assert.equal(createPublicKey({ key: dearPublicKey, format: 'der', type: 'spki' }).asymmetricKeyType, 'ec');
});

test('certificates of a quote are counted before one is read', () => {
  const read = (certificates: Buffer) =>
    pckCertificates({ certificates } as Parameters<typeof pckCertificates>[0]);
  const broken = Buffer.from('3003020100', 'hex');
  for (const many of [
    Buffer.concat(Array(4).fill(broken)),
    Buffer.from(pem(broken, 'CERTIFICATE').repeat(4)),
  ])
    assert.throws(() => read(many), { message: 'the quote holds more than 3 certificates' });
});

/** Files that have OpenSSL read keys of the project's own, or of who runs a command, and none of others. */
const own = [
  'src/audit/introduction.ts',
  'src/cas/api.ts',
  'src/cas/audit-log.ts',
  'src/cas/identity.ts',
  'src/cas/observe/watched.ts',
  'src/cas/sealed.ts',
  'src/cas/store/check.ts',
  'src/cli/cas.ts',
  'src/cli/cert.ts',
  'src/cli/evidence/tpm.ts',
  'src/cli/self.ts',
  'src/cli/session/hash.ts',
  'src/cli/session/sign.ts',
  'src/cli/state.ts',
  'src/las/key.ts',
];
/** Files that do so with a key which has been read. */
const again = [
  'src/policy/signed-session.ts',
  'src/protocol/encrypted-session.ts',
  'src/secrets/jwt.ts',
  'src/secrets/private-key.ts',
];

test('OpenSSL is given what others have made by src/quick-key.ts alone', () => {
  const root = resolve(import.meta.dirname, '../..');
  const read = (path: string) => readFileSync(resolve(root, path), 'utf8');
  const direct = /new X509Certificate\(|create(Public|Private)Key\((?!\{ format: 'jwk')/;
  const found = globSync('src/**/*.ts', { cwd: root }).filter((path) => direct.test(read(path)));
  assert.deepEqual(found.toSorted(), [...own, ...again, 'src/quick-key.ts'].toSorted());
  for (const path of again)
    assert.doesNotMatch(read(path), /new X509Certificate\(|create(Public|Private)Key\([^)]*'(der|pem)'/);
});

test('a curve that is known is read spelled out too, as 0.1.0 reads it', { skip: missing('openssl') }, () => {
  for (const curve of ['P-256', 'P-384', 'P-521']) {
    const options = [`ec_paramgen_curve:${curve}`, 'ec_param_enc:explicit'].flatMap((option) => [
      '-pkeyopt',
      option,
    ]);
    const key = execFileSync('openssl', ['genpkey', '-algorithm', 'EC', ...options]);
    const spki = execFileSync('openssl', ['pkey', '-pubout', '-outform', 'DER'], { input: key });
    assert.equal(readPublicKey(spki).asymmetricKeyType, 'ec');
  }
});
