import assert from 'node:assert/strict';
import { createSecretKey, generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { CompactSign } from 'jose';
import { platformOf, signSoftwareEvidence, verifySoftwareEvidence } from '../../src/attestation/software.ts';
import { anyCharacter } from '../support/any-character.ts';

const pair = generateKeyPairSync('ed25519');
const other = generateKeyPairSync('ed25519');
const platform = platformOf(pair.publicKey);
const otherPlatform = platformOf(other.publicKey);
const measurement = 'ab'.repeat(32);
const id = 'cd'.repeat(32);
const reportData = Buffer.alloc(64, 7);
const cgroup = '/system.slice/shop.service';
const properties = ['secure-execution', 'root-owned-code'] as const;
const credentials = {
  uid: { real: 2, effective: 4, saved: 5 },
  gid: { real: 3, effective: 6, saved: 7 },
  user: 'shop',
  unit: 'shop.service',
};
const evidence = await signSoftwareEvidence(
  { measurement, pid: 1, uid: 2, gid: 3, id, cgroup, properties, credentials },
  reportData,
  { private: pair.privateKey, platform },
  1_700_000_000_999,
);
const [head = '', body = '', signature = ''] = evidence.split('.');
const decoded = (part: string): Record<string, unknown> => JSON.parse(`${Buffer.from(part, 'base64url')}`);
const encoded = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** Evidence of any header and payload, with a right signature. */
function signed(header: unknown, payload: unknown, key = pair.privateKey): string {
  const input = `${encoded(header)}.${typeof payload === 'string' ? Buffer.from(payload).toString('base64url') : encoded(payload)}`;
  return `${input}.${sign(null, Buffer.from(input), key).toString('base64url')}`;
}

const invalid = { name: 'Failure', code: 'EVIDENCE_INVALID' };
const refuses = (text: string, message?: string) =>
  assert.rejects(verifySoftwareEvidence(text), invalid, message ?? text);

test('the name of a platform is its public key', () => {
  const spki = pair.publicKey.export({ type: 'spki', format: 'der' });
  assert.equal(platform, spki.subarray(-32).toString('hex'));
});

test('Evidence is an Entity Attestation Token that says what was measured', () => {
  assert.deepEqual(decoded(head), { alg: 'EdDSA', typ: 'eat+jwt', kid: platform });
  assert.deepEqual(decoded(body), {
    eat_profile: 'tag:envcas,2026:las-software-1',
    eat_nonce: reportData.toString('base64url'),
    iat: 1_700_000_000,
    dbgstat: 'enabled',
    measurement,
    process: {
      ...{ pid: 1, uid: 2, gid: 3, id, cgroup },
      ...{ uids: [2, 4, 5], gids: [3, 6, 7], user: 'shop', unit: 'shop.service' },
    },
    properties,
  });
});

test('its claims are those that were signed, and it counts as debug', async () => {
  const known = { root: 'software', measurement, platform, debug: true, process: id, reportData };
  const claims = { ...known, cgroup, properties, credentials };
  assert.deepEqual(await verifySoftwareEvidence(evidence), claims);
  assert.deepEqual(await verifySoftwareEvidence(signed(decoded(head), decoded(body))), claims);
});

test('Evidence of a LAS that knows of no properties, nor as whom it runs, has none', async () => {
  const { properties: _, ...old } = decoded(body);
  const {
    properties: found,
    cgroup: group,
    credentials: whom,
  } = await verifySoftwareEvidence(signed(decoded(head), { ...old, process: { pid: 1, uid: 2, gid: 3 } }));
  assert.deepEqual([found, group, whom], [[], undefined, undefined]);
});

test('Evidence with any bit of any byte flipped is refused', async () => {
  // The last character holds spare bits: see below.
  for (let at = 0; at < evidence.length - 1; at++)
    for (let bit = 1; bit < 256; bit <<= 1) {
      const byte = String.fromCharCode(evidence.charCodeAt(at) ^ bit);
      await refuses(evidence.slice(0, at) + byte + evidence.slice(at + 1), `${bit} at ${at}`);
    }
});

test('Evidence has one spelling only', async () => {
  const spare = String.fromCharCode((evidence.at(-1) ?? '').charCodeAt(0) ^ 2);
  for (const text of [
    `${evidence}==`,
    `${evidence} `,
    `${head}.${body}.\n${signature}`,
    evidence.slice(0, -1) + spare,
  ])
    await refuses(text);
});

test('Evidence that is cut off or put together from two is refused', async () => {
  for (let at = 0; at < evidence.length; at += 7) await refuses(evidence.slice(0, at));
  const second = signed(decoded(head), { ...decoded(body), measurement: 'cd'.repeat(32) }).split('.');
  await refuses(`${head}.${second[1]}.${signature}`);
  await refuses(`${head}.${body}.${second[2]}`);
  for (const text of [
    `${evidence}.`,
    `.${evidence}`,
    `${head}..${signature}`,
    `${head}.${body}.`,
    '..',
    '....',
  ])
    await refuses(text);
});

const headers: [what: string, header: Record<string, unknown>][] = [
  ['no alg', { alg: undefined }],
  ['alg none', { alg: 'none' }],
  ['alg HS256', { alg: 'HS256' }],
  ['alg ES256', { alg: 'ES256' }],
  ['alg Ed25519', { alg: 'Ed25519' }],
  ['alg in small letters', { alg: 'eddsa' }],
  ['no typ', { typ: undefined }],
  ['another typ', { typ: 'JWT' }],
  ['no kid', { kid: undefined }],
  ['the kid of another key', { kid: otherPlatform }],
  ['a kid in capitals', { kid: platform.toUpperCase() }],
  ['a kid too long', { kid: `${platform}00` }],
  ['a kid that is no text', { kid: 5 }],
  ['a kid that is a very long text', { kid: 'a'.repeat(100_000) }],
  [
    'a key of its own beside the kid of another',
    { kid: otherPlatform, jwk: pair.publicKey.export({ format: 'jwk' }) },
  ],
  ['a critical extension', { crit: ['b64'], b64: false }],
];
for (const [what, header] of headers)
  test(`Evidence is refused: ${what}`, () => refuses(signed({ ...decoded(head), ...header }, decoded(body))));

test('Evidence without signature, or signed with the public key as a shared secret, is refused', async () => {
  await refuses(`${encoded({ ...decoded(head), alg: 'none' })}.${body}.`);
  for (const secret of [Buffer.from(platform, 'hex'), Buffer.from(platform)]) {
    const hmac = await new CompactSign(Buffer.from(body, 'base64url'))
      .setProtectedHeader({ alg: 'HS256', typ: 'eat+jwt', kid: platform })
      .sign(createSecretKey(secret));
    await refuses(hmac);
  }
});

test('Evidence signed by a key with the kid of another is refused', () =>
  refuses(signed(decoded(head), decoded(body), other.privateKey)));

const required = Object.keys(decoded(body)).filter((key) => key !== 'properties');
const payloads: [what: string, payload: Record<string, unknown>][] = [
  ...required.map((key): [string, Record<string, unknown>] => [`no ${key}`, { [key]: undefined }]),
  ['another profile', { eat_profile: 'tag:envcas,2026:las-software-2' }],
  ['a nonce too short', { eat_nonce: 'A'.repeat(85) }],
  ['a nonce too long', { eat_nonce: 'A'.repeat(87) }],
  ['a nonce that is a very long text', { eat_nonce: 'A'.repeat(100_000) }],
  ['a nonce in base64 with padding', { eat_nonce: reportData.toString('base64') }],
  ['a nonce that is a list', { eat_nonce: [reportData.toString('base64url')] }],
  ['a time that is no whole number', { iat: 1.5 }],
  ['a time that is a text', { iat: '1700000000' }],
  ['a debug status that software cannot know', { dbgstat: 'disabled' }],
  ['a measurement too long', { measurement: `${measurement}0` }],
  ['a measurement in capitals', { measurement: measurement.toUpperCase() }],
  ['a measurement with a line end', { measurement: `${measurement}\n` }],
  ['a process without pid', { process: { uid: 2, gid: 3, id } }],
  ['a process that is a text', { process: 'init' }],
  ['a control group too long', { process: { pid: 1, uid: 2, gid: 3, cgroup: '/'.repeat(1025) } }],
  ['properties that are a text', { properties: 'root-owned-code' }],
  ['a property that is a very long text', { properties: ['a'.repeat(65)] }],
  ['very many properties', { properties: Array(17).fill('root-owned-code') }],
];
for (const [what, payload] of payloads)
  test(`Evidence is refused: ${what}`, () =>
    refuses(signed(decoded(head), { ...decoded(body), ...payload })));

test('Evidence whose payload is no mapping in JSON is refused', async () => {
  for (const payload of ['', 'x', 'null', '5', '[]', '{', '\xff', '{}'])
    await refuses(signed(decoded(head), payload));
});

test('any text is refused as Evidence, never another exception', () => {
  const part = fc.oneof(
    fc.constantFrom(head, body, signature),
    fc.string(),
    fc.json().map((text) => Buffer.from(text).toString('base64url')),
  );
  const any = fc.oneof(
    fc.string({ unit: anyCharacter }),
    fc.array(part, { maxLength: 4 }).map((parts) => parts.join('.')),
  );
  return fc.assert(
    fc.asyncProperty(
      any.filter((text) => text !== evidence),
      (text) => refuses(text),
    ),
    { numRuns: 300 },
  );
});
