import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { checkValue, type Definition, makeSecret } from '../../src/secrets/generate.ts';
import { formatOf, formatSecret, formatsOf, secretKinds } from '../../src/secrets/kinds.ts';
import { Secret } from '../../src/secrets/secret.ts';

const binary = (bytes: Uint8Array) => ({ kind: 'binary' as const, secret: new Secret(bytes) });

const make = async (definition: Definition) => {
  const secret = await makeSecret({ name: 'made', ...definition }, Date.now());
  assert.ok(secret);
  return secret.reveal();
};

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
  test(`binary ${format} is what ${command} prints`, {
    skip: missing && `there is no ${command}`,
  }, async () => {
    for (const size of [1, 2, 3, 4, 5, 16, 20, 61, 1000]) {
      const bytes = await make({ kind: 'binary', size });
      const { stdout } = spawnSync(command, args, { input: bytes, encoding: 'latin1' });
      const formatted = await formatSecret(binary(bytes), format);
      assert.equal(formatted.toString('latin1'), adapt(stdout), `size ${size}`);
    }
  });
}

test('raw formats are the bytes themselves, and may not stand in text', async () => {
  const bytes = Buffer.from([0, 255, 10, 0xc3]);
  for (const format of ['', ':bin']) {
    assert.deepEqual(await formatSecret(binary(bytes), format), bytes);
    assert.deepEqual(formatOf('binary', format), { raw: true });
  }
  for (const format of formatsOf('binary').slice(2))
    assert.deepEqual(formatOf('binary', format), { raw: false }, format);
  assert.deepEqual(formatOf('ascii', ''), { raw: false });
});

test('there are no other formats', async () => {
  assert.deepEqual(formatsOf('ascii'), ['']);
  for (const format of [':hex', ':bin', 'constructor']) assert.equal(formatOf('ascii', format), undefined);
  for (const format of [':HEX', 'hex', '.bin', ':pem', '__proto__', 'toString'])
    assert.equal(formatOf('binary', format), undefined, format);
  await assert.rejects(formatSecret(binary(Buffer.of(1)), ':pem'), { name: 'SecretUnusable' });
});

test('any bytes come back from each format', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 40 }), async (bytes) => {
      const decode = async (format: string, encoding: BufferEncoding) =>
        Buffer.from((await formatSecret(binary(bytes), format)).toString(), encoding);
      assert.deepEqual(await decode(':hex', 'hex'), Buffer.from(bytes));
      assert.deepEqual(await decode(':base64', 'base64'), Buffer.from(bytes));
      assert.deepEqual(await decode(':base64url', 'base64url'), Buffer.from(bytes));
    }),
    { numRuns: 200 },
  );
});

test('a generated secret has its size, 20 unless told otherwise, and never comes twice', async () => {
  for (const kind of ['ascii', 'binary'] as const) {
    assert.equal((await make({ kind })).length, 20);
    for (const size of [1, 7, 1024]) assert.equal((await make({ kind, size })).length, size);
    const made = await Promise.all(Array.from({ length: 200 }, () => make({ kind })));
    const many = made.map((bytes) => bytes.toString('hex'));
    assert.equal(new Set(many).size, many.length);
  }
});

test('generated ascii is of the 94 printable characters without space, each as likely', async () => {
  const count = new Map<number, number>();
  for (const byte of await make({ kind: 'ascii', size: 94_000 })) count.set(byte, (count.get(byte) ?? 0) + 1);
  assert.deepEqual(
    [...count.keys()].sort((a, b) => a - b),
    Array.from({ length: 94 }, (_, index) => 0x21 + index),
  );
  // 1000 are expected of each, with a standard deviation of 32.
  for (const [byte, times] of count) assert.ok(Math.abs(times - 1000) < 250, `${byte}: ${times}`);
});

test('an explicit value is text for ascii and hexadecimal for binary', async () => {
  const explicit = async (kind: 'ascii' | 'binary', value: string) =>
    (await make({ kind, value })).toString('latin1');
  assert.equal(await explicit('ascii', 'hunter2'), 'hunter2');
  assert.equal(await explicit('ascii', '00'), '00');
  assert.equal(await explicit('binary', '00fFAb'), '\x00\xff\xab');
});

const definitions: [what: string, definition: Definition, ok: boolean][] = [
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
    const wrong = checkValue(definition);
    assert.equal(wrong === undefined, ok);
    assert.equal(wrong?.includes(String(definition.value ?? '')) ?? false, false);
  });

test('a binary value that is no hexadecimal is called so also where a size is given', () => {
  assert.match(checkValue({ kind: 'binary', size: 1, value: 'xy' }) ?? '', /hexadecimal/);
});

test('every kind of the language has its formats', () => {
  for (const kind of secretKinds)
    assert.ok(
      kind === 'pgp-key' ? formatsOf(kind).length === 6 : formatsOf(kind).includes(''),
      `${kind} has a form of its own`,
    );
});
