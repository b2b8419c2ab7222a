import assert from 'node:assert/strict';
import { Console } from 'node:console';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { format, inspect } from 'node:util';
import { Secret } from '../../src/secrets/secret.ts';

const text = 'hunter2-hunter2';
const secret = new Secret(Buffer.from(text));
const nested = { list: [secret, { deep: new Map([['key', secret]]) }], set: new Set([secret]) };

/** What a console prints of a value. */
function logged(value: unknown): string {
  let output = '';
  const stream = new Writable({
    write(chunk, _, done) {
      output += chunk;
      done();
    },
  });
  const console = new Console(stream, stream);
  console.log(value);
  console.error('%s %o %O %j', value, value, value, value);
  console.dir(value, { showHidden: true, depth: null });
  console.table([value]);
  return output;
}

function thrown(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return inspect(error);
  }
  return assert.fail('nothing was thrown');
}

const printed: [how: string, print: () => string][] = [
  ['String()', () => String(secret)],
  ['a template literal', () => `${secret}`],
  ['joining a list', () => [secret, secret].join()],
  ['String.prototype.concat', () => 'x'.concat(secret as unknown as string)],
  ['JSON.stringify', () => JSON.stringify({ ...nested, secret }) + JSON.stringify(secret)],
  ['util.inspect', () => inspect(secret)],
  ['util.inspect of what it is nested in', () => inspect(nested, { depth: null })],
  [
    'util.inspect that shows all',
    () => inspect(nested, { showHidden: true, showProxy: true, getters: true, depth: null }),
  ],
  ['util.inspect without the custom form', () => inspect(secret, { customInspect: false, showHidden: true })],
  ['util.format', () => format('%s %d %i %j %o %O', secret, secret, secret, secret, secret, secret)],
  ['console', () => logged(secret) + logged(nested)],
  ['Object.entries', () => inspect([Object.entries(secret), Reflect.ownKeys(secret), { ...secret }])],
  ['structuredClone', () => inspect(structuredClone(secret))],
  ['an error message', () => inspect(new Error(`wrong: ${secret}`, { cause: nested }))],
  ['a failed assertion', () => thrown(() => assert.deepEqual(nested, { list: [secret] }))],
  ['a TypeError', () => thrown(() => (secret as unknown as { nothing(): void }).nothing())],
];
for (const [how, print] of printed)
  test(`a secret does not show by ${how}`, () => {
    const shown = print();
    for (const form of [
      'hunter',
      Buffer.from(text).toString('hex'),
      Buffer.from(text).toString('base64'),
      '68 75',
    ])
      assert.equal(shown.includes(form), false, shown);
  });

test('it prints as [secret], and reveals a copy of the bytes it was made of', () => {
  assert.equal(`${secret} ${JSON.stringify(secret)} ${inspect(secret)}`, '[secret] "[secret]" [secret]');
  const bytes = Buffer.from(text);
  const copy = new Secret(bytes);
  bytes.fill(0);
  assert.equal(copy.reveal().toString(), text);
});
