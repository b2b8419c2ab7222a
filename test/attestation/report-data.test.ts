import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { type Binding, reportData } from '../../src/attestation/report-data.ts';

const binding: Binding = {
  role: 'launcher',
  channel: Buffer.alloc(32, 1),
  casKey: Buffer.alloc(32, 2),
  configId: 's/web',
};

test('it is 64 bytes, the same for the same binding', () => {
  assert.equal(reportData(binding).length, 64);
  assert.deepEqual(reportData({ ...binding, channel: Buffer.alloc(32, 1) }), reportData(binding));
});

test('it changes with every field, and with each byte of a field', () => {
  const flipped = (bytes: Buffer, at: number) => bytes.map((byte, index) => (index === at ? byte ^ 1 : byte));
  const others: Binding[] = [
    { ...binding, role: 'cas' },
    { ...binding, configId: 's/web2' },
    { ...binding, configId: '' },
    { ...binding, channel: binding.casKey, casKey: binding.channel },
    ...Array.from({ length: 32 }, (_, at) => ({
      ...binding,
      channel: Buffer.from(flipped(binding.channel, at)),
    })),
    ...Array.from({ length: 32 }, (_, at) => ({
      ...binding,
      casKey: Buffer.from(flipped(binding.casKey, at)),
    })),
  ];
  const values = new Set([binding, ...others].map((each) => reportData(each).toString('hex')));
  assert.equal(values.size, others.length + 1);
});

test('bytes that move from one field to the next change it', () => {
  const { channel, casKey } = binding;
  const all = Buffer.concat([channel, casKey]);
  const values = Array.from({ length: all.length + 1 }, (_, at) =>
    reportData({ ...binding, channel: all.subarray(0, at), casKey: all.subarray(at) }).toString('hex'),
  );
  assert.equal(new Set(values).size, values.length);
});

test('different bindings have different report data', () => {
  const bytes = fc.uint8Array({ maxLength: 6, max: 0x62 }).map((found) => Buffer.from(found));
  const any = fc.record<Binding>({
    role: fc.constantFrom('launcher', 'cas'),
    channel: bytes,
    casKey: bytes,
    configId: fc.string({ unit: fc.constantFrom('\0', '\x01', 'a', 'b', '/'), maxLength: 6 }),
  });
  fc.assert(
    fc.property(any, any, (one, other) => {
      assert.equal(reportData(one).equals(reportData(other)), isDeepStrictEqual(one, other));
    }),
    { numRuns: 500 },
  );
});
