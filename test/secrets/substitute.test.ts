import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { TypedSecret } from '../../src/secrets/kinds.ts';
import { Secret } from '../../src/secrets/secret.ts';
import {
  type Part,
  parseTemplate,
  substitute,
  TemplateError,
  TooLarge,
} from '../../src/secrets/substitute.ts';

const parse = (text: string) =>
  parseTemplate(Buffer.from(text)).map((part) => (Buffer.isBuffer(part) ? part.toString() : part));
const ref = (name: string, format = '') => ({ name, format });

const templates: [text: string, parts: (string | { name: string; format: string })[]][] = [
  ['', []],
  ['plain', ['plain']],
  ['$$SCONE::a$$', [ref('a')]],
  ['x$$SCONE::a:hex$$y', ['x', ref('a', ':hex'), 'y']],
  ['$$SCONE::a$$$$SCONE::b.hex$$', [ref('a'), ref('b', '.hex')]],
  ['$$SCONE::a.b~c-d_1:base32nopad$$', [ref('a.b~c-d_1', ':base32nopad')]],
  ['$$SCONE::a:x:y-z$$', [ref('a', ':x:y-z')]],
  ['$$$SCONE::a$$$', ['$', ref('a'), '$']],
  ['$$$$ $$ $1 $(x) $$SCONE: $SCONE::a$$', ['$$$$ $$ $1 $(x) $$SCONE: $SCONE::a$$']],
  ['$$scone::a$$', ['$$scone::a$$']],
];
for (const [text, parts] of templates)
  test(`${JSON.stringify(text)} is taken apart`, () => {
    assert.deepEqual(parse(text), parts);
  });

const malformed: [text: string, message: RegExp][] = [
  ['$$SCONE::', /not closed/],
  ['ab$$SCONE::a', /not closed/],
  ['é$$SCONE::a$', /not closed/],
  [`$$SCONE::${'a'.repeat(1024)}$$`, /not closed/],
  ['$$SCONE::$$', /"" is not a reference/],
  ['$$SCONE::a b$$', /"a b" is not a reference/],
  ['$$SCONE::a:$$', /not a reference/],
  ['$$SCONE::a:HEX$$', /not a reference/],
  ['$$SCONE::a|escape(json)$$', /not a reference/],
  ['$$SCONE::a\n$$', /not a reference/],
  ['$$SCONE::a $$SCONE::b$$', /not a reference/],
];
for (const [text, message] of malformed)
  test(`${JSON.stringify(text.slice(0, 30))} is refused`, () => {
    assert.throws(() => parse(text), { name: 'TemplateError', message });
  });

const typed = (kind: TypedSecret['kind'], bytes: Uint8Array | string): TypedSecret => ({
  kind,
  secret: new Secret(Buffer.from(bytes)),
});

test('secrets come in their format, bytes around them as they are', () => {
  const secrets = new Map([
    ['b', typed('binary', Buffer.of(0, 255))],
    ['a', typed('ascii', 'word')],
  ]);
  const fill = (text: string) => substitute(Buffer.from(text, 'latin1'), secrets, 100).toString('latin1');
  assert.equal(fill('\xff$$SCONE::b$$\0$$SCONE::b:hex$$ $$SCONE::a$$'), '\xff\0\xff\x0000ff word');
  assert.equal(fill('$$SCONE::b:bin$$$$SCONE::b:base64$$'), '\0\xffAP8=');
  assert.equal(fill(''), '');
  for (const text of ['$$SCONE::x$$', '$$SCONE::a:hex$$', '$$SCONE::b:pem$$', '$$SCONE::__proto__$$'])
    assert.throws(() => fill(text), TemplateError, text);
});

test('a result up to the limit is given, a larger one refused', () => {
  const secrets = new Map([['b', typed('binary', Buffer.alloc(4))]]);
  const fill = (text: string) => substitute(Buffer.from(text), secrets, 10).length;
  assert.equal(fill('x$$SCONE::b:hex$$y'), 10);
  for (const text of ['x$$SCONE::b:hex$$yz', '$$SCONE::b$$'.repeat(3), 'x'.repeat(11)])
    assert.throws(() => fill(text), TooLarge, text);
});

const pieces = [
  '$$SCONE::',
  '$$',
  '$',
  'a',
  'b',
  ':hex',
  '.hex',
  ':',
  ' ',
  '\n',
  '$$SCONE::a$$',
  '\xff',
  '\0',
  'SCONE',
];
const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 30 }).map((found) => Buffer.from(found)),
  fc
    .array(fc.constantFrom(...pieces), { maxLength: 12 })
    .map((found) => Buffer.from(found.join(''), 'latin1')),
);

test('any bytes are parts that make up the template again, or a TemplateError', () => {
  const render = (part: Part) =>
    Buffer.isBuffer(part) ? part : Buffer.from(`$$SCONE::${part.name}${part.format}$$`);
  fc.assert(
    fc.property(bytes, (template) => {
      try {
        assert.deepEqual(Buffer.concat(parseTemplate(template).map(render)), template);
      } catch (error) {
        if (!(error instanceof TemplateError)) throw error;
      }
    }),
    { numRuns: 1000 },
  );
});

test('what a secret contains is never filled in, also where it begins or ends a reference', () => {
  const literal = fc.stringMatching(/^[^$]{0,6}$/).map((text) => Buffer.from(text));
  const name = fc.constantFrom('a', 'b');
  fc.assert(
    fc.property(bytes, bytes, fc.array(fc.oneof(literal, name)), (a, b, parts) => {
      const values = { a, b };
      const template = parts.map((part) =>
        typeof part === 'string' ? Buffer.from(`$$SCONE::${part}$$`) : part,
      );
      const expected = parts.map((part) => (typeof part === 'string' ? values[part as 'a' | 'b'] : part));
      const secrets = new Map([
        ['a', typed('ascii', a)],
        ['b', typed('binary', b)],
      ]);
      assert.deepEqual(
        substitute(Buffer.concat(template), secrets, Number.POSITIVE_INFINITY),
        Buffer.concat(expected),
      );
    }),
    { numRuns: 500 },
  );
});
