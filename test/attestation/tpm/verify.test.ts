import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createPublicKey, generateKeyPairSync, sign } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Malformed } from '../../../src/attestation/bytes.ts';
import { replay } from '../../../src/attestation/tpm/event-log.ts';
import { parsePublicArea, parseQuoteInfo, parseSignature } from '../../../src/attestation/tpm/structures.ts';
import { type TpmQuote, verifyTpmQuote } from '../../../src/attestation/tpm/verify.ts';
import { temporaryFolder } from '../../support/leave-nothing.ts';
import { newKey } from '../../support/pki.ts';
import { recorded, skip } from '../../support/quotes.ts';
import { survives } from '../../support/spoil.ts';
import { missing } from '../../support/stack.ts';
import {
  digestOf,
  ecKey,
  eventLog,
  extended,
  type Measured,
  type MessageOptions,
  message,
  pcrs,
  publicArea,
  quote,
  RESTRICTED_SIGNING,
  rsaKey,
  signature,
  sized,
} from './synthetic.ts';

const refused = (work: () => unknown, detail?: RegExp) =>
  assert.throws(work, (error: Error & { code?: string }) => {
    assert.equal(error.code, 'EVIDENCE_INVALID', String(error));
    if (detail) assert.match(error.message, detail);
    return true;
  });

for (const [kind, key] of [
  ['RSA', rsaKey],
  ['ECC', ecKey],
] as const)
  test(`a quote by a key of ${kind} says what it says`, () => {
    const verdict = verifyTpmQuote(quote({ resetCount: 7, restartCount: 2 }, key));
    assert.equal(verdict.root, 'tpm');
    assert.equal(verdict.reportData, 'ee'.repeat(64));
    assert.deepEqual([verdict.resetCount, verdict.restartCount, verdict.safe], [7, 2, true]);
    assert.deepEqual(verdict.pcrs, pcrs);
    assert.match(verdict.keyName ?? '', /^000b[0-9a-f]{64}$/);
  });

test('keys and signatures are taken in other spellings too', () => {
  const { message: bytes, key, pcrs: values } = quote();
  const spki = createPublicKey(ecKey);
  const bare = sign('sha256', bytes, ecKey);
  for (const it of [
    { message: bytes, signature: bare, key: spki },
    { message: bytes, signature: bare, key: sized(key) },
    { message: bytes, signature: sign('sha256', bytes, rsaKey), key: createPublicKey(rsaKey) },
    {
      message: bytes,
      signature: signature(bytes, ecKey),
      key,
      pcrs: Buffer.from(Object.values(values).join(''), 'hex'),
    },
  ])
    assert.equal(verifyTpmQuote(it).resetCount, 3);
  assert.equal(verifyTpmQuote({ message: bytes, signature: bare, key: spki }).keyName, undefined);
});

test('what is signed by another key, or not as it stands, is refused', () => {
  const good = quote();
  refused(() => verifyTpmQuote({ ...good, key: publicArea(newKey('P-256')) }), /signature/);
  refused(() => verifyTpmQuote({ ...good, key: publicArea(rsaKey) }), /signature/);
  for (let offset = 0; offset < good.message.length; offset++) {
    const bytes = Buffer.from(good.message);
    bytes[offset] = (bytes[offset] ?? 0) ^ 1;
    refused(() => verifyTpmQuote({ ...good, message: bytes }));
  }
  for (let offset = 0; offset < good.signature.length; offset++) {
    const bytes = Buffer.from(good.signature);
    bytes[offset] = (bytes[offset] ?? 0) ^ 1;
    refused(() => verifyTpmQuote({ ...good, signature: bytes }));
  }
});

test('weak keys and hashes are refused, though the signature is right', () => {
  const { message: bytes, pcrs: values } = quote();
  const weak = [
    generateKeyPairSync('rsa', { modulusLength: 1024 }),
    generateKeyPairSync('ec', { namedCurve: 'secp224r1' }),
    generateKeyPairSync('ec', { namedCurve: 'secp256k1' }),
  ];
  for (const { privateKey, publicKey } of weak)
    refused(
      () => verifyTpmQuote({ message: bytes, signature: sign('sha256', bytes, privateKey), key: publicKey }),
      /neither RSA of 2048 bits nor on P-256/,
    );
  const small = generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey;
  refused(
    () => verifyTpmQuote({ message: bytes, signature: signature(bytes, small), key: publicArea(small) }),
    /RSA key of 1024 bits/,
  );
  const sha1 = Buffer.concat([Buffer.of(0, 0x14, 0, 0x04), sized(sign('sha1', bytes, rsaKey))]);
  refused(
    () => verifyTpmQuote({ message: bytes, signature: sha1, key: publicArea(rsaKey), pcrs: values }),
    /hash algorithm 4/,
  );
});

test('what is no quote of the SHA-256 bank is refused, though the key has signed it', () => {
  const wrong: [RegExp, MessageOptions][] = [
    [/not made by a TPM/, { magic: 0xff544346 }],
    [/no quote/, { type: 0x8017 }],
    [/neither yes nor no/, { safe: 2 }],
    [/SHA-256 bank/, { bank: 0x0004 }],
    [/SHA-256 bank/, { selected: [] }],
    [/SHA-256 bank/, { more: [0x000c] }],
    [/17 banks/, { more: Array<number>(16).fill(0x000c) }],
  ];
  for (const [detail, options] of wrong) refused(() => verifyTpmQuote(quote(options)), detail);
});

test('only a key that signs nothing but what its TPM says makes quotes', () => {
  const flags = [1 << 1, 1 << 4, 1 << 5, 1 << 16, 1 << 18];
  const bytes = message();
  const by = (attributes: number) => ({
    message: bytes,
    signature: signature(bytes, ecKey),
    key: publicArea(ecKey, attributes),
  });
  assert.equal(verifyTpmQuote(by(RESTRICTED_SIGNING)).root, 'tpm');
  for (const flag of flags)
    refused(() => verifyTpmQuote(by(RESTRICTED_SIGNING & ~flag)), /only what its TPM says/);
  refused(() => verifyTpmQuote(by(RESTRICTED_SIGNING | (1 << 17))), /only what its TPM says/);
});

test('registers must be those that were signed, all of them and no others', () => {
  const good = quote();
  const { 7: _, ...fewer } = pcrs;
  const changes: [RegExp, NonNullable<TpmQuote['pcrs']>][] = [
    [/those that were signed/, { ...pcrs, 3: 'f'.repeat(64) }],
    [/those of the quote/, fewer],
    [/those of the quote/, { ...pcrs, 8: '0'.repeat(64) }],
    [/no value of SHA-256/, { ...pcrs, 3: 'f'.repeat(40) }],
    [/224 bytes/, Buffer.alloc(224)],
    [/those that were signed/, Buffer.alloc(256)],
  ];
  for (const [detail, values] of changes) refused(() => verifyTpmQuote({ ...good, pcrs: values }), detail);
});

const boot: Measured[] = [
  { register: 0, type: 8, data: Buffer.from('firmware 1.0') },
  { register: 7, type: 0x80000001, data: Buffer.from('SecureBoot') },
  { register: 0, type: 1, data: Buffer.from('more firmware') },
  { register: 4, type: 0x80000003, data: Buffer.from('boot loader') },
  { register: 4, type: 4, data: Buffer.alloc(4) },
];
/** Registers of the firmware that nothing was measured into, and one that is not only its own. */
const untouched = Object.fromEntries(Object.keys(pcrs).map((register) => [register, '0'.repeat(64)]));
const booted = { ...untouched, ...extended(boot) };
const after = (events: readonly Measured[], values = booted) => ({
  ...quote({ pcrDigest: digestOf(values), selected: Object.keys(values).map(Number) }),
  pcrs: values,
  eventLog: eventLog(events),
});

test('the log of a boot leads to the registers, or is refused', () => {
  const { events } = verifyTpmQuote(after(boot));
  assert.deepEqual(
    events?.map(({ register, type, description }) => [register, type, description]),
    [
      [0, 'EV_S_CRTM_VERSION', 'firmware 1.0'],
      [7, 'EV_EFI_VARIABLE_DRIVER_CONFIG', 'SecureBoot'],
      [0, 'EV_POST_CODE', 'more firmware'],
      [4, 'EV_EFI_BOOT_SERVICES_APPLICATION', 'boot loader'],
      [4, 'EV_SEPARATOR', ''],
    ],
  );
  refused(() => verifyTpmQuote(after(boot.slice(1))), /register 0/);
  refused(() => verifyTpmQuote(after(boot.toReversed())), /register [04]/);
  refused(
    () => verifyTpmQuote(after([...boot, { register: 7, type: 4, data: Buffer.from('x') }])),
    /register 7/,
  );
  const ofOne = (number: number) => boot.filter(({ register }) => register !== number);
  for (const register of [0, 4, 7])
    refused(() => verifyTpmQuote(after(ofOne(register))), new RegExp(`register ${register}`));
  const { pcrs: _, ...withoutRegisters } = after(boot);
  refused(() => verifyTpmQuote(withoutRegisters), /without the registers/);
  // Firmware leaves room behind its log.
  const room = { ...after(boot), eventLog: Buffer.concat([eventLog(boot), Buffer.alloc(1000)]) };
  assert.equal(verifyTpmQuote(room).events?.length, 5);
});

test('the log counts for the registers of the quote, and is told of them alone', () => {
  const more: Measured[] = [...boot, { register: 9, type: 13, data: Buffer.from('kernel') }];
  assert.equal(verifyTpmQuote(after(more)).events?.length, 5);
  // Who comes after the firmware measures into it too, and writes his log elsewhere.
  const later = { ...booted, 9: 'ab'.repeat(32) };
  assert.equal(verifyTpmQuote(after(boot, later)).events?.length, 5);
  refused(() => verifyTpmQuote(after(more, later)), /register 9/);
  // What was not measured proves nothing.
  const claim: Measured = { register: 4, type: 3, data: Buffer.from('boot loader of long ago') };
  assert.equal(verifyTpmQuote(after([claim, ...boot])).events?.length, 5);
  refused(() => verifyTpmQuote(after([...boot, { register: 24, type: 13, data: Buffer.of(1) }])), /24/);
});

test('a TPM that was started from another locality begins register 0 with it', () => {
  const locality: Measured = { register: 0, type: 3, data: Buffer.from('StartupLocality\0\x03') };
  const events = [locality, ...boot];
  const values = { ...untouched, ...extended(events, 3) };
  assert.equal(verifyTpmQuote(after(events, values)).events?.length, 5);
  refused(() => verifyTpmQuote(after(events)), /register 0/);
  // What came before in the log would seem to be in the register.
  const madeUp: Measured = { register: 0, type: 8, data: Buffer.from('better firmware') };
  refused(() => verifyTpmQuote(after([madeUp, ...events], values)), /begins register 0 twice/);
  refused(() => verifyTpmQuote(after([locality, ...events], values)), /begins register 0 twice/);
});

test('others read the log alike', { skip: missing('tpm2_eventlog') }, () => {
  const folder = temporaryFolder();
  // It wants to understand what was measured of EFI.
  const simple = boot.map((event) => ({ ...event, type: event.type < 0x80000000 ? event.type : 1 }));
  writeFileSync(join(folder, 'log'), eventLog(simple));
  const { stdout, stderr } = spawnSync('tpm2_eventlog', [join(folder, 'log')], { encoding: 'utf8' });
  for (const [register, value] of Object.entries(extended(boot)))
    assert.match(stdout, new RegExp(`${register} *: 0x${value}`), stdout + stderr);
});

/** Recorded quotes, with RSA both times. */
function recordedQuotes(): { plain: TpmQuote; tools: TpmQuote } {
  const { ak_public, tpm_quote } = JSON.parse(recorded('tpm/rsa-evidence.json').toString());
  const bytes = (text: string) => Buffer.from(text, 'base64');
  return {
    plain: {
      message: bytes(tpm_quote.message),
      signature: bytes(tpm_quote.signature),
      key: createPublicKey({ key: bytes(ak_public), format: 'der', type: 'spki' }),
      pcrs: Buffer.from(tpm_quote.pcrs.join(''), 'hex'),
    },
    tools: {
      message: recorded('tpm/keylime-quote.out'),
      signature: recorded('tpm/keylime-quotesig.out'),
      key: createPublicKey(recorded('tpm/keylime-akpub.pem')),
    },
  };
}

test('recorded: a quote over 24 registers, and one in the format of tpm2-tools', { skip }, () => {
  const { plain, tools } = recordedQuotes();
  const verdict = verifyTpmQuote(plain);
  assert.equal(verdict.selected.length, 24);
  assert.equal(Object.keys(verdict.pcrs ?? {}).length, 24);
  assert.equal(verdict.reportData.length, 128);
  assert.deepEqual(verifyTpmQuote(tools).selected, [15, 16, 22]);
});

test('recorded: each byte of message, signature and registers counts, and the key', { skip }, () => {
  const { plain, tools } = recordedQuotes();
  for (const good of [plain, tools]) {
    for (const part of ['message', 'signature', 'pcrs'] as const) {
      const bytes = good[part];
      if (!Buffer.isBuffer(bytes)) continue;
      for (let offset = 0; offset < bytes.length; offset++) {
        const flipped = Buffer.from(bytes);
        flipped[offset] = (flipped[offset] ?? 0) ^ 1;
        refused(() => verifyTpmQuote({ ...good, [part]: flipped }));
      }
      for (const other of [bytes.subarray(1), bytes.subarray(0, -1), Buffer.concat([bytes, Buffer.of(0)])])
        refused(() => verifyTpmQuote({ ...good, [part]: other }));
    }
    refused(() => verifyTpmQuote({ ...good, key: createPublicKey(rsaKey) }));
    refused(() => verifyTpmQuote({ ...good, key: createPublicKey(ecKey) }));
  }
  refused(() => verifyTpmQuote({ ...plain, message: tools.message }));
});

test('structures of any bytes are read or refused', () => {
  const isMalformed = (error: unknown) => error instanceof Malformed;
  survives(message(), parseQuoteInfo, isMalformed);
  survives(signature(message(), ecKey), parseSignature, isMalformed);
  survives(publicArea(ecKey), parsePublicArea, isMalformed);
  survives(publicArea(rsaKey), parsePublicArea, isMalformed);
  survives(eventLog(boot), replay, isMalformed);
});
