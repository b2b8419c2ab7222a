import assert from 'node:assert/strict';
import fc from 'fast-check';

/** Bytes that are not what they should be. */

/** Ways to spoil bytes: cut, extended, bits flipped, parts put elsewhere or filled. */
export function spoiled(good: Buffer): fc.Arbitrary<Buffer> {
  const offset = fc.nat(good.length - 1);
  const patched = (from: number, bytes: Uint8Array) => {
    const copy = Buffer.from(good);
    copy.set(bytes.subarray(0, copy.length - from), from);
    return copy;
  };
  return fc.oneof(
    offset.map((length) => good.subarray(0, length)),
    fc.uint8Array({ minLength: 1, maxLength: 64 }).map((more) => Buffer.concat([good, more])),
    fc.uint8Array({ maxLength: 64 }).map((more) => Buffer.concat([more, good])),
    fc.tuple(offset, fc.nat(7)).map(([at, bit]) => patched(at, Uint8Array.of((good[at] ?? 0) ^ (1 << bit)))),
    fc.tuple(offset, fc.uint8Array({ minLength: 1, maxLength: 8 })).map(([at, bytes]) => patched(at, bytes)),
    fc
      .tuple(offset, offset, fc.nat(64))
      .map(([from, to, length]) => patched(to, good.subarray(from, from + length))),
    fc
      .tuple(offset, fc.constantFrom(0, 0x7f, 0x80, 0xff), fc.integer({ min: 1, max: 9 }))
      .map(([at, byte, length]) => patched(at, new Uint8Array(length).fill(byte))),
  );
}

/** That work on spoiled bytes gives a result, or throws an error of the kind. */
export function survives(
  good: Buffer,
  work: (bytes: Buffer) => unknown,
  isExpected: (error: unknown) => boolean,
): void {
  fc.assert(
    fc.property(
      fc.oneof(
        spoiled(good),
        fc.uint8Array({ maxLength: 2048 }).map((bytes) => Buffer.from(bytes)),
      ),
      (bytes) => {
        try {
          work(bytes);
        } catch (error) {
          assert.ok(isExpected(error), String(error));
        }
      },
    ),
    { numRuns: 500 },
  );
}
