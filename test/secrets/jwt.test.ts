import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { signJwt } from '../../src/secrets/jwt.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { missing } from '../support/stack.ts';

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' });
const pkcs8 = privateKey.export({ type: 'pkcs8', format: 'der' });
const HOUR = 3_600_000;
const request = { privateKey: pkcs8, payload: '{}', validFor: HOUR, now: 1_700_000_000_999 };
const decoded = (part = ''): Record<string, unknown> => JSON.parse(`${Buffer.from(part, 'base64url')}`);
const claims = async (changes: Partial<Parameters<typeof signJwt>[0]>) =>
  decoded((await signJwt({ ...request, ...changes })).split('.')[1]);

/** INTEGER of DER: no leading zeros but where the highest bit would be taken for a sign. */
function derInteger(bytes: Buffer): Buffer {
  const digits = bytes.toString('hex').replace(/^(00)+/, '');
  const value = Buffer.from(/^[89a-f]/.test(digits) ? `00${digits}` : digits, 'hex');
  return Buffer.concat([Buffer.of(0x02, value.length), value]);
}

/** ECDSA-Sig-Value (RFC 3279 §2.2.3) of the 96 bytes that JOSE has. */
function derSignature(raw: Buffer): Buffer {
  const content = Buffer.concat([derInteger(raw.subarray(0, 48)), derInteger(raw.subarray(48))]);
  return Buffer.concat([Buffer.of(0x30, content.length), content]);
}

test('openssl verifies the signature', { skip: missing('openssl') }, async () => {
  const folder = temporaryFolder();
  const [head, body, signature = ''] = (await signJwt(request)).split('.');
  const raw = Buffer.from(signature, 'base64url');
  assert.equal(raw.length, 96);
  writeFileSync(
    join(folder, 'public.pem'),
    createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }),
  );
  writeFileSync(join(folder, 'signature'), derSignature(raw));
  const verify = (input: string) =>
    execFileSync('openssl', ['dgst', '-sha384', '-verify', 'public.pem', '-signature', 'signature'], {
      cwd: folder,
      input,
      encoding: 'utf8',
      stdio: ['pipe', 'pipe', 'pipe'],
    });
  assert.match(verify(`${head}.${body}`), /Verified OK/);
  assert.throws(() => verify(`${head}.${body}A`));
});

test('the header names algorithm, type and the thumbprint of the key', async () => {
  const { x, y } = createPublicKey(privateKey).export({ format: 'jwk' });
  // RFC 7638 §3: the required members, in this order.
  const thumbprint = createHash('sha256')
    .update(`{"crv":"P-384","kty":"EC","x":"${x}","y":"${y}"}`)
    .digest('base64url');
  const [head] = (await signJwt(request)).split('.');
  assert.deepEqual(decoded(head), { alg: 'ES384', typ: 'JWT', kid: thumbprint });
});

test('it is valid from now on, for as long as is asked, in seconds', async () => {
  assert.deepEqual(await claims({}), { iat: 1_700_000_000, nbf: 1_700_000_000, exp: 1_700_003_600 });
  assert.deepEqual(await claims({ now: 0, validFor: 24 * HOUR }), { iat: 0, nbf: 0, exp: 86_400 });
  assert.deepEqual(await claims({ now: 1_001, validFor: 1_999 }), { iat: 1, nbf: 1, exp: 2 });
});

test('the payload is there as it was given, before the times', async () => {
  const payload = {
    iss: 'cas',
    sub: 'session/service',
    aud: 'ü',
    empty: '',
    quoted: '"\\\n',
  };
  const { iat, nbf, exp, ...others } = await claims({ payload: JSON.stringify(payload) });
  assert.deepEqual([iat, nbf, exp], [1_700_000_000, 1_700_000_000, 1_700_003_600]);
  assert.deepEqual(others, payload);
});

test('only a P-384 key signs', async () => {
  for (const pair of [generateKeyPairSync('ec', { namedCurve: 'P-256' }), generateKeyPairSync('ed25519')]) {
    const other = (pair.privateKey as typeof privateKey).export({ type: 'pkcs8', format: 'der' });
    await assert.rejects(signJwt({ ...request, privateKey: other }));
  }
});
