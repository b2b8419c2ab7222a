import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Malformed } from '../../../src/attestation/bytes.ts';
import {
  bitString,
  boolean,
  children,
  objectIdentifier,
  parseDer,
  smallInteger,
  tags,
  time,
} from '../../../src/attestation/x509/der.ts';
import * as pki from '../../support/pki.ts';

/** DER as X.690 has it, and what only looks like it. */

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');
const refused = (work: () => unknown) => assert.throws(work, Malformed);

test('elements are read as they were written', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 }), (contents) => {
      const encoded = pki.sequence(...contents.map((content) => pki.octetString(Buffer.from(content))));
      const read = children(parseDer(encoded, tags.sequence)).map(({ content }) => content);
      assert.deepEqual(
        read,
        contents.map((content) => Buffer.from(content)),
      );
    }),
  );
});

test('numbers, names of things and times are read as they were written', () => {
  for (const value of [0, 1, 127, 128, 255, 256, 65_535, 2 ** 40])
    assert.equal(smallInteger(parseDer(pki.integer(value), tags.integer)), value);
  for (const id of ['1.2.840.113741.1.13.1.2.17', '2.5.29.15', '2.100.3', '0.9.2342'])
    assert.equal(objectIdentifier(parseDer(pki.objectIdentifier(id), tags.objectIdentifier)), id);
  const at = Date.parse('2049-12-31T23:59:59Z');
  assert.equal(time(parseDer(pki.time(at), tags.generalizedTime)), at);
  const utc = (text: string) => time(parseDer(pki.der(tags.utcTime, Buffer.from(text)), tags.utcTime));
  assert.equal(utc('491231235959Z'), at);
  assert.equal(utc('500101000000Z'), Date.parse('1950-01-01T00:00:00Z'));
  assert.deepEqual(bitString(parseDer(pki.bitString(Buffer.from('ab')), tags.bitString)), Buffer.from('ab'));
});

for (const [what, bytes] of [
  ['a length in more bytes than it needs', '30 81 02 05 00'],
  ['a length with a zero in front', '30 82 00 80'],
  ['a length that is not definite', '30 80 05 00 00 00'],
  ['a length of eight bytes', '30 88 00 00 00 00 00 00 00 01 00'],
  ['a length beyond the end', '30 05 05 00'],
  ['no length', '30'],
  ['nothing', ''],
  ['bytes behind it', '30 02 05 00 00'],
  ['a tag of several bytes', '3f 81 00 00'],
  ['another tag', '31 00'],
] as const)
  test(`DER with ${what} is refused`, () => refused(() => parseDer(hex(bytes), tags.sequence)));

test('values that DER does not have are refused', () => {
  const element = (tag: number, content: string) => parseDer(pki.der(tag, hex(content)), tag);
  refused(() => boolean(element(tags.boolean, '01')));
  refused(() => boolean(element(tags.boolean, 'ffff')));
  refused(() => smallInteger(element(tags.integer, '')));
  refused(() => smallInteger(element(tags.integer, 'ff')));
  refused(() => smallInteger(element(tags.integer, '01020304050607')));
  refused(() => bitString(element(tags.bitString, '')));
  refused(() => bitString(element(tags.bitString, '03a8')));
  refused(() => objectIdentifier(element(tags.objectIdentifier, 'ff'.repeat(12))));
  for (const bytes of ['', '2b81']) refused(() => objectIdentifier(element(tags.objectIdentifier, bytes)));
  for (const text of ['491231235959', '4912312359Z', '491331235959Z', '20491231235959Z', ''])
    refused(() => time(element(tags.utcTime, Buffer.from(text).toString('hex'))));
});
