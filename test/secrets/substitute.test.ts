import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type Part,
  parseTemplate,
  splitReference,
  substitute,
  TemplateError,
  TooLarge,
} from '../../src/secrets/substitute.ts';

const parse = (text: string) =>
  parseTemplate(Buffer.from(text)).map((part) => (Buffer.isBuffer(part) ? part.toString() : part));
const ref = (text: string, format = '') => ({ text: text + format, escape: undefined });

const templates: [text: string, parts: (string | { text: string; escape: unknown })[]][] = [
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
  ['$$PALAEMON::a.crt$$ $$SCONE::b$$', [ref('a.crt'), ' ', ref('b')]],
  ['$$SCONE::a:hex|escape(json)$$', [{ text: 'a:hex', escape: 'json' }]],
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
  ['$$SCONE::a|escape(xml)$$', /not a reference/],
  ['$$SCONE::a|escape(json)|escape(json)$$', /not a reference/],
  ['$$SCONE::a\n$$', /not a reference/],
  ['$$SCONE::a $$SCONE::b$$', /not a reference/],
];
for (const [text, message] of malformed)
  test(`${JSON.stringify(text.slice(0, 30))} is refused`, () => {
    assert.throws(() => parse(text), { name: 'TemplateError', message });
  });

const forms = (table: Record<string, string | Buffer>) =>
  new Map(Object.entries(table).map(([text, bytes]) => [text, Buffer.from(bytes as string, 'latin1')]));

test('forms come in the place of references, bytes around them as they are', () => {
  const known = forms({ b: '\0\xff', 'b:hex': '00ff', a: 'word' });
  const fill = (text: string) => substitute(Buffer.from(text, 'latin1'), known, 100).toString('latin1');
  assert.equal(fill('\xff$$SCONE::b$$\0$$SCONE::b:hex$$ $$PALAEMON::a$$'), '\xff\0\xff\x0000ff word');
  assert.equal(fill(''), '');
  for (const text of ['$$SCONE::x$$', '$$SCONE::a:hex$$', '$$SCONE::b:pem$$', '$$SCONE::__proto__$$'])
    assert.throws(() => fill(text), TemplateError, text);
});

test('a format begins with a colon; an older one with a dot, unless a secret has that name', () => {
  const split = (text: string, ...secrets: string[]) =>
    splitReference(text, (name) => secrets.includes(name));
  assert.deepEqual(split('a'), { name: 'a', format: '' });
  assert.deepEqual(split('a:privatekey:der'), { name: 'a', format: ':privatekey:der' });
  assert.deepEqual(split('a.key'), { name: 'a', format: '.key' });
  assert.deepEqual(split('a.b.chain', 'a.b'), { name: 'a.b', format: '.chain' });
  assert.deepEqual(split('a.key', 'a', 'a.key'), { name: 'a.key', format: '' });
  assert.deepEqual(split('a.key:crt', 'a'), { name: 'a.key', format: ':crt' });
  assert.deepEqual(split('a.pem'), { name: 'a.pem', format: '' });
});

test('a result up to the limit is given, a larger one refused', () => {
  const known = forms({ b: Buffer.alloc(4), 'b:hex': '00000000' });
  const fill = (text: string) => substitute(Buffer.from(text), known, 10).length;
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
    Buffer.isBuffer(part)
      ? part
      : Buffer.from(`$$SCONE::${part.text}${part.escape ? '|escape(json)' : ''}$$`);
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
