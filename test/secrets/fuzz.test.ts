import assert from 'node:assert/strict';
import { isUtf8 } from 'node:buffer';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseTemplate, substitute, TemplateError } from '../../src/secrets/substitute.ts';
import { anyCharacter } from '../support/any-character.ts';

const NO_LIMIT = Number.POSITIVE_INFINITY;

/** Bytes that may pass for a variable, or a part of one, and bytes that are no text. */
const hostile = fc.oneof(
  fc.uint8Array({ maxLength: 40 }).map((found) => Buffer.from(found)),
  fc
    .array(
      fc.constantFrom(
        '$$SCONE::a$$',
        '$$SCONE::',
        '$$PALAEMON::b$$',
        '$$',
        '$',
        '|escape(json)',
        'a',
        '\0',
        '\xff',
        '"',
        '\\',
        '\n',
      ),
      { maxLength: 8 },
    )
    .map((pieces) => Buffer.from(pieces.join(''), 'latin1')),
  fc.constantFrom(
    Buffer.alloc(0),
    Buffer.alloc(64),
    Buffer.from('$$SCONE::a$$'),
    Buffer.from([0xc0, 0x80, 0xed, 0xa0, 0x80]),
  ),
);
/** The same, for what stands between variables: without the beginning of one, also where two follow each other. */
const literal = hostile.filter((bytes) => !/\$\$(SCONE|PALAEMON)::/.test(bytes.toString('latin1')));

const names = ['a', 'b', 'c.d~e-f_9', 'a:hex'];
const variable = fc.record({
  name: fc.constantFrom(...names),
  opening: fc.constantFrom('$$SCONE::', '$$PALAEMON::'),
  isEscaped: fc.boolean(),
});
/** A template as literals with a variable after each, the last one excepted. */
const template = fc.tuple(fc.array(fc.tuple(literal, variable), { maxLength: 8 }), literal);
const secrets = fc.record(Object.fromEntries(names.map((name) => [name, hostile])));

const inJson = (bytes: Buffer) => Buffer.from(JSON.stringify(bytes.toString()).slice(1, -1));

test('a filled-in template is its pieces and the secrets in turn, which are never looked at', () => {
  fc.assert(
    fc.property(template, secrets, ([pairs, last], values) => {
      const forms = new Map(Object.entries(values));
      const written = [
        ...pairs.flatMap(([before, { opening, name, isEscaped }]) => [
          before,
          Buffer.from(`${opening}${name}${isEscaped ? '|escape(json)' : ''}$$`),
        ]),
        last,
      ];
      const fill = () => substitute(Buffer.concat(written), forms, NO_LIMIT);
      const isPossible = pairs.every(
        ([, { name, isEscaped }]) => !isEscaped || isUtf8(values[name] ?? Buffer.of()),
      );
      if (!isPossible) return assert.throws(fill, TemplateError);
      const expected = pairs.flatMap(([before, { name, isEscaped }]) => {
        const value = values[name] ?? assert.fail();
        return [before, isEscaped ? inJson(value) : value];
      });
      assert.deepEqual(fill(), Buffer.concat([...expected, last]));
    }),
    { numRuns: 2000 },
  );
});

test('a text that is escaped for JSON is read back as it was, whatever stands around it', () => {
  fc.assert(
    fc.property(fc.string({ unit: anyCharacter }), fc.string(), (secret, other) => {
      const form = `{${JSON.stringify(other)}: ["x$$SCONE::a|escape(json)$$", "$$PALAEMON::a|escape(json)$$y"]}`;
      fc.pre(!other.includes('$$'));
      const filled = substitute(Buffer.from(form), new Map([['a', Buffer.from(secret)]]), NO_LIMIT);
      assert.deepEqual(JSON.parse(filled.toString()), { [other]: [`x${secret}`, `${secret}y`] });
    }),
    { numRuns: 1000 },
  );
});

test('bytes that are no text are not escaped for JSON, which would change them', () => {
  for (const bytes of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xe2, 0x82]])
    assert.throws(
      () =>
        substitute(Buffer.from('$$SCONE::a|escape(json)$$'), new Map([['a', Buffer.from(bytes)]]), NO_LIMIT),
      { name: 'TemplateError', message: 'a is no text, so JSON cannot hold it' },
    );
});

test('any reference is well formed or a TemplateError', () => {
  const inner = fc.oneof(
    fc.string({ unit: fc.constantFrom(...'aZ09_.~-:|()escapjon $\n\0é'), maxLength: 20 }),
    fc.string({ unit: anyCharacter, maxLength: 20 }),
    fc.nat(2000).map((length) => 'a'.repeat(length)),
  );
  let wellFormed = 0;
  fc.assert(
    fc.property(inner, fc.constantFrom('$$', '$', ''), (text, close) => {
      try {
        const [part, ...more] = parseTemplate(Buffer.from(`$$SCONE::${text}${close}`));
        assert.ok(part && !Buffer.isBuffer(part));
        assert.match(part.text, /^[A-Za-z0-9_.~-]+(:[a-z0-9-]+)*$/);
        if (more.length === 0) wellFormed++;
      } catch (error) {
        if (!(error instanceof TemplateError)) throw error;
      }
    }),
    { numRuns: 2000 },
  );
  assert.ok(wellFormed > 100, `only ${wellFormed} were well formed`);
});

test('large secrets, and many variables, are filled in', () => {
  const large = Buffer.alloc(1024 * 1024, '$$SCONE::a$$\0\xff', 'latin1');
  const forms = new Map([
    ['a', large],
    ['b', Buffer.of()],
  ]);
  const many = substitute(Buffer.from('$$SCONE::b$$x$$PALAEMON::b$$'.repeat(50_000)), forms, NO_LIMIT);
  assert.deepEqual(many, Buffer.alloc(50_000, 'x'));
  const twice = substitute(Buffer.from('<$$SCONE::a$$|$$SCONE::a$$>'), forms, NO_LIMIT);
  assert.deepEqual(
    twice,
    Buffer.concat([Buffer.from('<'), large, Buffer.from('|'), large, Buffer.from('>')]),
  );
  const zeros = new Map([['a', Buffer.alloc(1024 * 1024)]]);
  const escaped = substitute(Buffer.from('"$$SCONE::a|escape(json)$$"'), zeros, NO_LIMIT);
  assert.equal(JSON.parse(escaped.toString()), '\0'.repeat(1024 * 1024));
});
