import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { pkcs12 } from '../../src/secrets/pkcs12.ts';
import {
  generatePrivateKey,
  type KeyType,
  keyTypes,
  publicKeyOf,
  readPem,
  toPem,
} from '../../src/secrets/private-key.ts';
import { NO_EXPIRY } from '../../src/secrets/x509.ts';
import { issueCertificate } from '../../src/secrets/x509-issuer.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { missing } from '../support/stack.ts';

const skip = missing('openssl');
const folder = temporaryFolder();

const caKey = await generatePrivateKey('P-256');
const validity = { notBefore: new Date(Date.now() - 1000), notAfter: NO_EXPIRY };
const names = { dns: [], ip: [] };
const ca = (commonName: string, certificate?: Buffer) =>
  issueCertificate({
    ...validity,
    ...names,
    ca: true,
    commonName,
    publicKey: publicKeyOf(caKey),
    privateKey: caKey,
    ...(certificate && { issuer: { certificate, privateKey: caKey } }),
  });
const root = await ca('root');
const between = await ca('between', root);

async function contents(type: KeyType) {
  const privateKey = await generatePrivateKey(type);
  const certificate = await issueCertificate({
    ...validity,
    ...names,
    ca: false,
    commonName: 'leaf',
    publicKey: publicKeyOf(privateKey),
    issuer: { certificate: between, privateKey: caKey },
  });
  return { certificate, chain: [between, root], privateKey };
}

function openssl(pfx: Buffer, ...args: string[]): { text: string; notes: string } {
  const { stdout, stderr, status } = spawnSync('openssl', ['pkcs12', ...args], {
    input: pfx,
    encoding: 'utf8',
  });
  assert.equal(status, 0, stderr);
  return { text: stdout, notes: stderr };
}

const withoutPassword = ['-passin', 'pass:', '-nodes'];

for (const type of keyTypes)
  test(`openssl reads ${type} key, certificate and chain, and finds key and certificate a pair`, {
    skip,
  }, async () => {
    const all = await contents(type);
    const { text } = openssl(await pkcs12(all), ...withoutPassword);
    assert.deepEqual(readPem(text), [
      { label: 'PRIVATE KEY', der: all.privateKey },
      ...[all.certificate, ...all.chain].map((der) => ({ label: 'CERTIFICATE', der })),
    ]);
    const ids = text.match(/localKeyID: .*/g) ?? [];
    assert.equal(ids.length, 2);
    assert.equal(ids[0], ids[1]);
  });

test('openssl tells apart the certificate of the key and those of the issuers', { skip }, async () => {
  const all = await contents('Ed25519');
  const pfx = await pkcs12(all);
  const read = (option: string) => readPem(openssl(pfx, ...withoutPassword, '-nokeys', option).text);
  assert.deepEqual(
    read('-clcerts')?.map(({ der }) => der),
    [all.certificate],
  );
  assert.deepEqual(
    read('-cacerts')?.map(({ der }) => der),
    all.chain,
  );
});

test('the algorithms are those of today, and two files of the same are not the same', { skip }, async () => {
  const all = await contents('P-256');
  const pfx = await pkcs12(all);
  const { notes } = openssl(pfx, ...withoutPassword, '-info', '-noout');
  assert.match(notes, /^MAC: sha256, Iteration 1000$/m);
  assert.match(notes, /PBES2, PBKDF2, AES-256-CBC, Iteration 1000, PRF hmacWithSHA256/);
  assert.notDeepEqual(await pkcs12(all), pfx);
});

test('key and certificate have the friendly name that is given, or none', { skip }, async () => {
  const all = await contents('P-384');
  const named = openssl(await pkcs12({ ...all, friendlyName: 'my server' }), ...withoutPassword).text;
  assert.equal(named.match(/friendlyName: my server$/gm)?.length, 2);
  assert.doesNotMatch(openssl(await pkcs12(all), ...withoutPassword).text, /friendlyName/);
});

test('a certificate that signs itself needs no chain', { skip }, async () => {
  const pfx = await pkcs12({ certificate: root, chain: [], privateKey: caKey });
  assert.deepEqual(readPem(openssl(pfx, ...withoutPassword).text), [
    { label: 'PRIVATE KEY', der: caKey },
    { label: 'CERTIFICATE', der: root },
  ]);
});

test('damage is noticed, and a password is not accepted', { skip }, async () => {
  const pfx = await pkcs12(await contents('P-256'));
  const read = (input: Buffer, password: string) =>
    spawnSync('openssl', ['pkcs12', '-passin', `pass:${password}`, '-nodes'], { input, encoding: 'utf8' });
  assert.match(read(pfx, 'x').stderr, /invalid password/);
  const certificate = pfx.indexOf(root.subarray(-32));
  assert.ok(certificate > 0);
  const damaged = Buffer.from(pfx);
  damaged.writeUInt8(damaged.readUInt8(certificate) ^ 1, certificate);
  assert.match(read(damaged, '').stderr, /Mac verify error/);
});

test('Java reads them', { skip: missing('keytool') }, async () => {
  for (const type of ['Ed25519', 'RSA-2048'] as const) {
    const all = await contents(type);
    const file = join(folder, `${type}.p12`);
    const password = join(folder, 'empty');
    writeFileSync(file, await pkcs12({ ...all, friendlyName: 'my server' }));
    writeFileSync(password, '');
    const list = ['-list', '-rfc', '-keystore', file, '-storetype', 'PKCS12', '-storepass:file', password];
    const text = execFileSync('keytool', ['-J-Duser.language=en', ...list], { encoding: 'utf8' });
    assert.match(
      text,
      /Alias name: my server\n(.*\n)*Entry type: PrivateKeyEntry\nCertificate chain length: 3\n/,
    );
    const certificates = [all.certificate, ...all.chain].map((der) => toPem('CERTIFICATE', der));
    assert.deepEqual(readPem(text), readPem(certificates.join('')));
  }
});
