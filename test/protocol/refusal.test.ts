import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { verifySoftwareEvidence } from '../../src/attestation/software.ts';
import { causes, errors, exitOf, failure } from '../../src/errors.ts';
import { printable, Refused, refusal, toRefusal } from '../../src/protocol/refusal.ts';

test('a declared error comes to the other side with its code, causes and hint', () => {
  const error = failure(
    'LAUNCH_REFUSED',
    failure('DEBUG_NOT_TOLERATED', { detail: 'it is in debug mode' }, failure('EVIDENCE_MISSING')),
  );
  const received = new Refused(v.parse(refusal, JSON.parse(JSON.stringify(toRefusal(error)))));
  assert.equal(received.code, 'LAUNCH_REFUSED');
  assert.equal(received.hint, error.hint);
  assert.deepEqual(causes(received), causes(error));
});

test('of any other error nothing is told', () => {
  for (const error of [new Error('hunter2', { cause: new Error('hunter2') }), 'hunter2', undefined]) {
    const sent = toRefusal(error);
    assert.equal(sent.refusal.code, 'INTERNAL');
    assert.equal(JSON.stringify(sent).includes('hunter2'), false);
  }
});

test('a code of a newer version is told as it is, with a status of its own; what is no code is INTERNAL', () => {
  const codeOf = (code: string) => new Refused({ refusal: { code, messages: ['x'] } }).code;
  assert.equal(codeOf('LUNAR_ECLIPSE'), 'LUNAR_ECLIPSE');
  assert.deepEqual(['LUNAR_ECLIPSE', 'OTP_USED', 'INTERNAL'].map(exitOf), [69, errors.OTP_USED.exit, 70]);
  for (const code of ['', 'constructor', '__proto__', 'A\x1b[2J', 'A'.repeat(65)])
    assert.equal(codeOf(code), 'INTERNAL');
});

test('text from outside is shown on one line, without control characters', () => {
  assert.equal(printable('\x1b[2Ja\nb\r\u009b\u2028\x7f'), '\ufffd[2Ja; b\ufffd\ufffd\ufffd\ufffd');
  assert.equal(printable('plain é 😀'), 'plain é 😀');
  for (const unseen of [
    '\u061c',
    '\u200b',
    '\u200e',
    '\u202e',
    '\u2066',
    '\u2060',
    '\ufeff',
    '\u00ad',
    '\u{e0041}',
    '\u034f',
    '\u3164',
    '\ufe0f',
    '\u{e0100}',
    '\ue000',
  ])
    assert.equal(printable(`a${unseen}b`), 'a\ufffdb', JSON.stringify(unseen));
});

test('a refusal of another shape is not one', () => {
  for (const refused of [
    ...[
      {},
      { code: 'X' },
      { code: 'X', messages: [] },
      { code: 5, messages: ['x'] },
      { code: 'X', messages: 'x' },
    ],
    ...[
      { code: 'X'.repeat(65), messages: ['x'] },
      { code: 'X', messages: ['x'.repeat(8193)] },
    ],
    ...[{ code: 'X', messages: Array(17).fill('x') }, null],
  ])
    assert.equal(v.safeParse(refusal, { refusal: refused }).success, false);
});

test('every refusal fits what the other side accepts', async () => {
  const kid = 'a'.repeat(9000);
  const header = Buffer.from(JSON.stringify({ alg: 'EdDSA', typ: 'eat+jwt', kid })).toString('base64url');
  const errors = [
    failure('SERVICE_NOT_FOUND', { session: 's', service: 'x' }),
    failure('MEASUREMENT_UNEXPECTED', {
      actual: 'a',
      expected: Array(130).fill('b'.repeat(64)).join(' or '),
    }),
    await verifySoftwareEvidence(`${header}.e30.AA`).catch((error: unknown) => error),
  ];
  assert.deepEqual(
    errors.map((error) => v.safeParse(refusal, toRefusal(error)).success),
    errors.map(() => true),
  );
});
