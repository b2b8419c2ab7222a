import fc from 'fast-check';
import { anyCharacter } from '../support/any-character.ts';

/** What stands in a YAML text: every scalar but null is text. */
export type Tree = string | null | Tree[] | { [key: string]: Tree };

/** Texts of any characters, single halves of surrogate pairs and what YAML takes for something among them. */
export const anyText = fc.oneof(
  fc.string({ unit: anyCharacter, maxLength: 12 }),
  fc.string({
    unit: fc.constantFrom(...'$~\n :#-|>\'"\\{}[],&*!%@`\t\r\u0085\u2028\ufeff\ud800A0'),
    maxLength: 8,
  }),
  fc.constantFrom(
    '~',
    'null',
    'true',
    '0x10',
    '1e3',
    '-',
    '---',
    '...',
    '<<',
    '=',
    '%YAML 1.1',
    '$A',
    '${A}',
  ),
);
const wellFormed = anyText.map((text) => text.toWellFormed());
const withoutNul = wellFormed.map((text) => text.replaceAll('\0', '').replaceAll('@@', ''));

/** 1 to `maxLength` of these characters. */
const word = (characters: string, maxLength: number) =>
  fc.string({ unit: fc.constantFrom(...characters), minLength: 1, maxLength });

const name = word('abXY09_.~-', 6);
const hex64 = fc.nat().map((number) => number.toString(16).padStart(64, 'aB'));
const path = word('abc', 4).map((file) => `/${file}`);
const size = fc.integer({ min: 16, max: 100 }).map(String);
const flag = fc.constantFrom('true', 'false');
const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined, freq: 2 });
/** A mapping of whichever keys are there. */
const mapping = (
  keys: Record<string, fc.Arbitrary<Tree | undefined>>,
): fc.Arbitrary<{ [key: string]: Tree }> =>
  fc
    .record(keys)
    .map((found) =>
      Object.fromEntries(
        Object.entries(found).flatMap(([key, value]) => (value === undefined ? [] : [[key, value]])),
      ),
    );
const variableName = word('ABC_', 6);
const uniqueNames = (maxLength: number) => fc.uniqueArray(name, { maxLength });
const oneOrMany = (value: fc.Arbitrary<Tree>) =>
  fc.oneof(value, fc.array(value, { minLength: 1, maxLength: 3 }));

const sharing = fc.oneof(
  mapping({ session: fc.constantFrom('a/b', '../c', './d', '..'), session_hash: optional(hex64) }),
  mapping({ namespace: name }),
  fc.constantFrom('/session=x', `/session=a/b,session_hash=${'0a'.repeat(32)}`),
);
const shared = { export: optional(oneOrMany(sharing)) };

/** A secret of each kind that needs no other; the keys that others need are added by {@link secretsOf}. */
const secretBody = fc.oneof(
  mapping({ kind: fc.constant('ascii'), size: optional(size), export_public: optional(flag), ...shared }),
  mapping({ kind: fc.constant('ascii'), value: wellFormed, ...shared }),
  mapping({ kind: fc.constant('binary'), size: optional(size), ...shared }),
  mapping({
    kind: fc.constant('binary'),
    value: fc.uint8Array({ maxLength: 8 }).map((bytes) => Buffer.from(bytes).toString('hex')),
  }),
  mapping({
    kind: fc.constant('private-key'),
    key_type: optional(fc.constantFrom('P-256', 'P-384', 'Ed25519')),
    migrate: optional(flag),
  }),
  mapping({ kind: fc.constant('public-key'), private_key: fc.constant('the-key') }),
  mapping({
    kind: fc.constant('x509'),
    private_key: fc.constant('the-key'),
    common_name: optional(wellFormed),
    san: optional(oneOrMany(fc.constantFrom('dns:a.example', 'dns:*.b.example', 'ip:::1', 'ip:10.0.0.1'))),
    valid_for: optional(fc.constantFrom('90 days', '59d', '1 year')),
  }),
  mapping({ kind: fc.constant('x509-ca'), private_key: fc.constant('the-key') }),
  mapping({ import: mapping({ session: fc.constantFrom('a/b', '../c'), secret: name }) }),
);

const secretsOf = uniqueNames(5).chain((names) =>
  fc
    .tuple(...names.map((own) => secretBody.map((body) => ({ name: own, ...body }))))
    .map((secrets) => [
      ...secrets.filter((secret) => secret.name !== 'the-key'),
      { name: 'the-key', kind: 'private-key' },
    ]),
);

/** A reference that may stand in an argument. */
const referenceTo = (secrets: { [key: string]: Tree }[]) =>
  fc.constantFrom(...secrets).map((secret) => {
    const format = secret.kind === 'binary' ? ':hex' : '';
    return `$$SCONE::${secret.name}${format}$$`;
  });

/** Sessions that are taken, as trees: whatever else is done to one before it is read must account for itself. */
export const sessionTree: fc.Arbitrary<{ [key: string]: Tree }> = fc
  .tuple(secretsOf, uniqueNames(3), uniqueNames(3))
  .chain(([secrets, imageNames, serviceNames]) => {
    const template = fc
      .array(
        fc.oneof(
          withoutNul.map((text) => text.replaceAll('$$', '$')),
          referenceTo(secrets),
        ),
        { maxLength: 3 },
      )
      .map((parts) => parts.join(' '));
    const files = fc.uniqueArray(
      fc.oneof(
        path,
        mapping({
          path: path,
          content: optional(template),
          permission: optional(fc.constantFrom('0o700', '0400', '644')),
        }),
      ),
      { maxLength: 3, selector: (file) => (typeof file === 'string' ? file : file.path) },
    );
    const service = (own: string) =>
      mapping({
        name: fc.constant(own),
        image_name: imageNames.length > 0 ? optional(fc.constantFrom(...imageNames)) : fc.constant(undefined),
        command: optional(
          fc.oneof(fc.array(template, { maxLength: 3 }), fc.constant(`envcas -c 'a b' @@1 "c"`)),
        ),
        environment: optional(
          fc.dictionary(variableName, fc.oneof(template, fc.constant(null)), { noNullPrototype: true }),
        ),
        pwd: optional(fc.constant('/')),
        attestation: oneOrMany(mapping({ mrenclave: oneOrMany(hex64) })),
        mrenclaves: optional(fc.array(hex64, { maxLength: 2 })),
        platforms: optional(fc.array(hex64, { maxLength: 2 })),
      });
    return mapping({
      name: fc.array(word('aZ0_~-', 6), { minLength: 2, maxLength: 4 }).map((levels) => levels.join('/')),
      version: fc.constantFrom('0.3', '0.3.0', '0.3.10', '0.3.12'),
      predecessor: optional(fc.oneof(hex64, fc.constant(null))),
      access_policy: optional(
        mapping({
          read: optional(fc.constantFrom<Tree>('ANY', 'NONE', 'CREATOR', ['CREATOR'])),
          update: optional(fc.constantFrom<Tree>('NONE', [{ 'require-all': ['CREATOR'] }])),
        }),
      ),
      security: optional(
        mapping({
          attestation: optional(
            mapping({
              mode: optional(fc.constantFrom('none', 'hardware')),
              tolerate: optional(fc.subarray(['debug-mode', 'hyperthreading', 'outdated-tcb'])),
            }),
          ),
        }),
      ),
      images: fc.tuple(
        ...imageNames.map((own) => mapping({ name: fc.constant(own), injection_files: optional(files) })),
      ),
      services: fc.tuple(...serviceNames.map(service)),
      secrets: fc.shuffledSubarray(secrets, { minLength: secrets.length }),
    });
  });
