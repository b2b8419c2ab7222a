import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { basename } from 'node:path';
import { test } from 'node:test';
import { enclaveQuote, type GramineFiles, isInEnclave } from '../../src/platform/gramine.ts';

/**
 * Gramine's files for attestation by its manual: `user_report_data` takes 64 bytes and is for writing as well as reading,
 * `quote` is made anew each time it is opened, over what was written last, and only with the type `dcap`.
 */
function gramine(type: string, quote: (data: Buffer) => Buffer): GramineFiles {
  let data = Buffer.alloc(64);
  const error = (code: string) => Object.assign(new Error(code), { code });
  return {
    readFileSync: (path: string, encoding?: string) => {
      const name = basename(path);
      if (name !== 'attestation_type' && (name !== 'quote' || type !== 'dcap')) throw error('ENOENT');
      const content = name === 'quote' ? quote(data) : Buffer.from(type);
      return encoding ? content.toString() : content;
    },
    openSync: (path: string, flags: number) => {
      if (basename(path) !== 'user_report_data') throw error('ENOENT');
      if (flags !== constants.O_WRONLY) throw error('EACCES');
      return 5;
    },
    writeSync: (_: number, written: Buffer) => {
      data = Buffer.concat([written, Buffer.alloc(64)]).subarray(0, 64);
      return Math.min(64, written.length);
    },
    closeSync: () => {},
  } as unknown as GramineFiles;
}

const over = (data: Buffer) => Buffer.concat([Buffer.from('quote over '), data]);

test('an enclave that can be attested is told by its type', () => {
  assert.equal(isInEnclave('/dev/attestation', gramine('dcap', over)), true);
  assert.equal(isInEnclave('/dev/attestation', gramine('dcap\n', over)), true);
  assert.equal(isInEnclave('/dev/attestation', gramine('none', over)), false);
  assert.equal(isInEnclave('/dev/attestation', gramine('epid', over)), false);
  assert.equal(isInEnclave('/nonexistent'), false);
});

test('each quote is over the data that were given for it', () => {
  const files = gramine('dcap', over);
  for (const data of [randomBytes(64), randomBytes(64)])
    assert.deepEqual(enclaveQuote(data, '/dev/attestation', files), over(data));
});

test('where there is no enclave, the reason is told', () => {
  assert.throws(() => enclaveQuote(randomBytes(64), '/dev/attestation', gramine('none', over)), {
    code: 'HARDWARE_UNUSABLE',
  });
  assert.throws(() => enclaveQuote(randomBytes(64), '/nonexistent'), { code: 'HARDWARE_UNUSABLE' });
});
