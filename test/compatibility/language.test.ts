import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { InvalidText } from '../../src/policy/problem.ts';
import { type KeyHolder, parseSession, sessionHash } from '../../src/policy/session.ts';
import { sessionTree } from '../policy/sessions.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { files, publicSession, skip, variables } from '../support/public-sessions.ts';
import { run } from '../support/stack.ts';
import { missingRelease, release, releaseLanguage } from './release.ts';

/**
 * Session texts that the release takes, and the hashes that it gives them: whoever has noted a hash goes on with it.
 *
 * The texts are the examples and the snippets of docs/session-language.md at the release, and others with what those lack.
 * `WRITE=1 npm test -- test/compatibility/language.test.ts` has the release write the hashes anew, after texts were added.
 */
const folder = resolve(import.meta.dirname, '../fixtures/policy/0.1.0');
const list = join(folder, 'hashes.json');
const names = readdirSync(folder).filter((name) => name.endsWith('.yaml'));
const textOf = (name: string) => readFileSync(join(folder, name), 'utf8');
type Language = Pick<typeof import('../../src/policy/session.ts'), 'parseSession' | 'sessionHash'>;
const present: Language = { parseSession, sessionHash };

/** Nobody, somebody with a certificate, and somebody who signs. */
const creators: (KeyHolder | null)[] = [null, { certificate: 'ab'.repeat(32) }, { signer: 'cd'.repeat(32) }];
const hashesBy = ({ parseSession, sessionHash }: Language) =>
  Object.fromEntries(
    names.map((name) => {
      const { session } = parseSession(textOf(name));
      return [name, creators.map((creator) => sessionHash(session, creator))];
    }),
  );

if (process.env.WRITE && !missingRelease)
  writeFileSync(list, `${JSON.stringify(hashesBy(await releaseLanguage()), null, 2)}\n`);

test('every text that the release takes is taken, and has the hash that the release gives it', () => {
  assert.deepEqual(hashesBy(present), JSON.parse(readFileSync(list, 'utf8')));
});

describe('the language of the release', { skip: missingRelease }, () => {
  test('gives the texts the hashes that are listed', async () => {
    assert.deepEqual(hashesBy(await releaseLanguage()), JSON.parse(readFileSync(list, 'utf8')));
  });

  test('is what its scone computes with', () => {
    const hashes = JSON.parse(readFileSync(list, 'utf8'));
    const env = { PATH: process.env.PATH, HOME: temporaryFolder() };
    // It has no creator, and speaks of none.
    const { stdout, stderr } = run(
      release.scone,
      ['session', 'calculate-hash', join(folder, 'root.yaml')],
      env,
    );
    assert.equal(stdout.trim(), hashes['root.yaml'][0], stderr);
  });

  test('is all in the texts: every key, and every word that has a meaning', () => {
    const all = names.map(textOf).join('\n');
    const env = { PATH: process.env.PATH, HOME: temporaryFolder() };
    const words = [
      ['session', 'schema'],
      ['launch', 'schema'],
    ].flatMap((command) => wordsOf(JSON.parse(run(release.scone, command, env).stdout)));
    assert.ok(words.length > 150, `${words.length}`);
    const missing = new Set(words.filter((word) => !hasWord(all, word)));
    // It is known in order to be refused.
    assert.deepEqual([...missing], ['cas_software_key']);
  });

  test('and the present one give any session the same hash, and the same text', async () => {
    const { parseSession: before, sessionHash: hashBefore } = await releaseLanguage();
    fc.assert(
      fc.property(sessionTree, (tree) => {
        const text = JSON.stringify(tree);
        const was = before(text);
        const is = parseSession(text);
        assert.equal(sessionHash(is.session, null), hashBefore(was.session, null));
        assert.equal(is.text, was.text);
        assert.deepEqual(is.unsupported, was.unsupported);
      }),
    );
  });

  for (const file of files)
    test(`and the present one give ${file} the same hash`, { skip }, async () => {
      const { parseSession: before, sessionHash: hashBefore } = await releaseLanguage();
      const text = publicSession(file);
      const was = before(text, variables);
      const is = parseSession(text, variables);
      assert.equal(is.text, was.text);
      for (const creator of creators)
        assert.equal(sessionHash(is.session, creator), hashBefore(was.session, creator));
    });

  const session = (...lines: string[]) => ['name: s', 'version: "0.3"', ...lines].join('\n');
  const hex = (number: number) => number.toString(16).padStart(64, '0');
  const numbers = (count: number) => Array.from({ length: count }, (_, index) => index);
  const values = { WORD: '$$SCONE::word$$', WORDS: 'one two', ARGUMENT: '@@1' };
  const [certificate = ''] = /-----BEGIN CERT[\s\S]*?END CERTIFICATE-----\n/.exec(
    parseSession(textOf('access.yaml')).session.creator as string,
  ) ?? [''];
  const command = (text: string) =>
    session(
      'security: {attestation: {mode: none}}',
      `services: [{name: main, command: ${text}}]`,
      'secrets: [{name: word, kind: ascii}]',
    );
  test('takes a variant for each machine of a fleet, as the present one does', async () => {
    const { parseSession: before, sessionHash: hashBefore } = await releaseLanguage();
    const variants = numbers(2001).map((number) => `{mrenclave: ${hex(number)}}`);
    const text = session(`services: [{name: main, attestation: [${variants}]}]`);
    assert.equal(sessionHash(parseSession(text).session, null), hashBefore(before(text).session, null));
  });

  /** What the release takes and the present version refuses, so that nobody wears a CAS down, or means something else. */
  const refused: [string, string, RegExp][] = [
    [
      'more than 2000 items of a list',
      session(`images: [${numbers(2001).map((number) => `{name: i${number}}`)}]`),
      /expected at most 2000 items, found 2001/,
    ],
    [
      'more than 20,000 measurements',
      session(`services: [{name: main, mrenclaves: [${numbers(20_001).map(hex)}]}]`),
      /expected at most 20000 items, found 20001/,
    ],
    [
      'more than 256 principals of an operation',
      session(
        `access_policy: {update: [${numbers(257).map((number) => `$$SCONE::key${number}$$`)}]}`,
        `secrets: [${numbers(257).map((number) => `{name: key${number}, kind: ascii, value: CREATOR}`)}]`,
      ),
      /expected at most 256 principals, found 257/,
    ],
    [
      'several certificates in one principal',
      session(`access_policy: {read: ${JSON.stringify(certificate + certificate)}}`),
      /expected one certificate/,
    ],
    ['a reference as a value of a variable', command('[envcas, $WORD]'), /--allow-references takes it/],
    [
      'an argument of the host as a value of a variable',
      command('[envcas, $ARGUMENT]'),
      /--allow-references takes it/,
    ],
    ['several words as a value of a variable', command('envcas $WORDS'), /--allow-references takes it/],
  ];
  for (const [what, text, message] of refused)
    test(`takes ${what}, which the present one refuses on purpose`, async () => {
      const given = (name: string) => values[name as keyof typeof values];
      (await releaseLanguage()).parseSession(text, given);
      assert.throws(
        () => parseSession(text, given),
        (error) => error instanceof InvalidText && error.problems.some((it) => message.test(it.message)),
      );
      if (message.source.includes('allow-references')) parseSession(text, given, true);
    });
});

/** Keys of mappings, and texts with a meaning, in a JSON Schema. */
function wordsOf(schema: unknown): string[] {
  if (typeof schema !== 'object' || schema === null) return [];
  if (Array.isArray(schema)) return schema.flatMap(wordsOf);
  return Object.entries(schema).flatMap(([key, value]) => {
    if (key === 'const') return [String(value)];
    if (key === 'enum') return (value as unknown[]).map(String);
    if (key === 'properties' || key === '$defs' || key === 'definitions')
      return [
        ...(key === 'properties' ? Object.keys(value as object) : []),
        ...Object.values(value as object).flatMap(wordsOf),
      ];
    return wordsOf(value);
  });
}

/** Whether a text has a word, and not just one that it is a part of. */
function hasWord(text: string, word: string): boolean {
  const escaped = RegExp.escape(word);
  return new RegExp(`(?<![A-Za-z0-9_-])${escaped}(?![A-Za-z0-9_-])`).test(text);
}
