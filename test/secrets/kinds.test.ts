import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { checkDefinition, formatOf, formatSecret, formatsOf, makeSecret } from '../../src/secrets/kinds.ts';
import { Secret } from '../../src/secrets/secret.ts';

const binary = (bytes: Uint8Array) => ({ kind: 'binary' as const, secret: new Secret(bytes) });

const compared: [format: string, command: string, args: string[], adapt?: (text: string) => string][] = [
  [':base64', 'openssl', ['base64', '-A']],
  [':base64url', 'basenc', ['--base64url', '-w0'], (text) => text.replace(/=+$/, '')],
  [':base32', 'base32', ['-w0']],
  [':base32nopad', 'base32', ['-w0'], (text) => text.replace(/=+$/, '')],
  [':hex', 'xxd', ['-p'], (text) => text.replaceAll('\n', '')],
  ['.hex', 'od', ['-An', '-v', '-tx1'], (text) => text.replace(/\s/g, '')],
];
for (const [format, command, args, adapt = (text: string) => text] of compared) {
  const missing = spawnSync(command, ['--version']).error !== undefined;
  test(`binary ${format} is what ${command} prints`, { skip: missing && `there is no ${command}` }, () => {
    for (const size of [1, 2, 3, 4, 5, 16, 20, 61, 1000]) {
      const { secret, kind } = makeSecret({ kind: 'binary', size });
      const { stdout } = spawnSync(command, args, { input: secret.reveal(), encoding: 'latin1' });
      assert.equal(formatSecret({ kind, secret }, format).toString('latin1'), adapt(stdout), `size ${size}`);
    }
  });
}

test('raw formats are the bytes themselves, and may not stand in text', () => {
  const bytes = Buffer.from([0, 255, 10, 0xc3]);
  for (const format of ['', ':bin']) {
    assert.deepEqual(formatSecret(binary(bytes), format), bytes);
    assert.deepEqual(formatOf('binary', format), { raw: true });
  }
  for (const format of formatsOf('binary').slice(2))
    assert.deepEqual(formatOf('binary', format), { raw: false }, format);
  assert.deepEqual(formatOf('ascii', ''), { raw: false });
});

test('there are no other formats', () => {
  assert.deepEqual(formatsOf('ascii'), ['']);
  for (const format of [':hex', ':bin', 'constructor']) assert.equal(formatOf('ascii', format), undefined);
  for (const format of [':HEX', 'hex', '.bin', ':pem', '__proto__', 'toString'])
    assert.equal(formatOf('binary', format), undefined, format);
  assert.throws(() => formatSecret(binary(Buffer.of(1)), ':pem'));
});

test('any bytes come back from each format', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      const decode = (format: string, encoding: BufferEncoding) =>
        Buffer.from(formatSecret(binary(bytes), format).toString(), encoding);
      assert.deepEqual(decode(':hex', 'hex'), Buffer.from(bytes));
      assert.deepEqual(decode(':base64', 'base64'), Buffer.from(bytes));
      assert.deepEqual(decode(':base64url', 'base64url'), Buffer.from(bytes));
    }),
    { numRuns: 200 },
  );
});

test('a generated secret has its size, 20 unless told otherwise, and never comes twice', () => {
  for (const kind of ['ascii', 'binary'] as const) {
    assert.equal(makeSecret({ kind }).secret.reveal().length, 20);
    for (const size of [1, 7, 1024]) assert.equal(makeSecret({ kind, size }).secret.reveal().length, size);
    const many = Array.from({ length: 200 }, () => makeSecret({ kind }).secret.reveal().toString('hex'));
    assert.equal(new Set(many).size, many.length);
  }
});

test('generated ascii is of the 94 printable characters without space, each as likely', () => {
  const count = new Map<number, number>();
  for (const byte of makeSecret({ kind: 'ascii', size: 94_000 }).secret.reveal())
    count.set(byte, (count.get(byte) ?? 0) + 1);
  assert.deepEqual(
    [...count.keys()].sort((a, b) => a - b),
    Array.from({ length: 94 }, (_, index) => 0x21 + index),
  );
  // 1000 are expected of each, with a standard deviation of 32.
  for (const [byte, times] of count) assert.ok(Math.abs(times - 1000) < 250, `${byte}: ${times}`);
});

test('an explicit value is text for ascii and hexadecimal for binary', () => {
  const explicit = (kind: 'ascii' | 'binary', value: string) =>
    makeSecret({ kind, value }).secret.reveal().toString('latin1');
  assert.equal(explicit('ascii', 'hunter2'), 'hunter2');
  assert.equal(explicit('ascii', '00'), '00');
  assert.equal(explicit('binary', '00fFAb'), '\x00\xff\xab');
});

const definitions: [what: string, definition: Parameters<typeof checkDefinition>[0], ok: boolean][] = [
  ['no value', { kind: 'binary', size: 3 }, true],
  ['hexadecimal', { kind: 'binary', value: '00Ff' }, true],
  ['hexadecimal of its size', { kind: 'binary', size: 2, value: '00Ff' }, true],
  ['text of its size', { kind: 'ascii', size: 3, value: 'abc' }, true],
  ['an odd number of digits', { kind: 'binary', value: '00f' }, false],
  ['no hexadecimal', { kind: 'binary', value: 'xy' }, false],
  ['hexadecimal with a line end', { kind: 'binary', value: '00\n' }, false],
  ['another size', { kind: 'binary', size: 4, value: '00Ff' }, false],
  ['another size of text', { kind: 'ascii', size: 4, value: 'abc' }, false],
];
for (const [what, definition, ok] of definitions)
  test(`a definition with ${what} is ${ok ? 'accepted' : 'refused without quoting it'}`, () => {
    const wrong = checkDefinition(definition);
    assert.equal(wrong === undefined, ok);
    assert.equal(wrong?.includes(definition.value ?? '') ?? false, false);
  });

test('a binary value that is no hexadecimal is called so also where a size is given', () => {
  assert.match(checkDefinition({ kind: 'binary', size: 1, value: 'xy' }) ?? '', /hexadecimal/);
});
