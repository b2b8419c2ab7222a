import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { before, test } from 'node:test';
import { type Stack, startStack } from '../support/stack.ts';

/** Two CASes, each of which knows the other by the key that sessions name. */
let here: Stack;
let there: Stack;
let keyHere: string;
let keyThere: string;
before(async () => {
  [here, there] = await Promise.all([startStack(), startStack()]);
  [keyHere, keyThere] = [here, there].map((stack) =>
    stack.scone('cas', 'show-identification', '-c').trim(),
  ) as [string, string];
});

const url = (stack: Stack) => `localhost:${stack.env.SCONE_CAS_API_PORT}`;
const session = (name: string, shown: string[], secrets: string) => `
name: ${name}
version: "0.3.10"
security: {attestation: {mode: none}}
services:
  - {name: show, image_name: i, command: ${JSON.stringify(['envcas', '%s', ...shown])}}
images:
  - name: i
    injection_files: [{path: /etc/envcas/config.yaml, content: "program: /usr/bin/printf"}]
secrets:
${secrets}
`;
const importing = (name: string, from: string, secret: string, more = '', as = `$$SCONE::it$$`) =>
  session(
    name,
    [as],
    `  - {name: it, import: {cas_url: "${url(here)}", cas_key: ${keyHere}, session: ${from}, secret: ${secret}${more}}}`,
  );
const exportTo = (name: string, more = '') =>
  `export: [{cas_url: "${url(there)}", cas_key: ${keyThere}, session: ${name}${more}}]`;

test('secrets of every kind come from a session on another CAS that exports them', () => {
  here.create(
    session(
      'giver',
      ['$$SCONE::word$$', '$$SCONE::bytes:hex$$', '$$SCONE::key$$', '$$SCONE::cert:chain$$'],
      `
  - {name: word, kind: ascii, ${exportTo('taker/word')}}
  - {name: bytes, kind: binary, ${exportTo('taker/bytes')}}
  - {name: key, kind: private-key, ${exportTo('taker/with-key')}}
  - {name: ca_key, kind: private-key}
  - {name: ca, kind: x509-ca, private_key: ca_key}
  - {name: cert, kind: x509, private_key: key, issuer: ca, export: [
      {cas_key: ${keyThere}, session: taker/with-key}, "${url(there)}/cas_key=${keyThere},session=taker/without-key"]}
  - {name: rules, kind: config-fragment, value: {mode: none}, ${exportTo('taker/rules')}}
  - {name: open, kind: config-fragment, value: {mode: $$SCONE::word$$}, ${exportTo('taker/rules')}}
`,
    ),
  );
  const given = here.launch('giver/show').stdout;
  there.create('name: taker\nversion: "0.3.10"\n');
  const show = (name: string, secret: string, as?: string) => {
    there.create(importing(`taker/${name}`, 'giver', secret, '', as));
    return there.launch(`taker/${name}/show`);
  };
  const word = show('word', 'word');
  assert.equal(word.status, 0, word.stderr);
  assert.equal(word.stdout.length, 20);
  assert.ok(given.startsWith(word.stdout));
  assert.ok(given.includes(show('bytes', 'bytes', '$$SCONE::it:hex$$').stdout));
  assert.ok(given.includes(show('with-key', 'cert', '$$SCONE::it:privatekey$$').stdout));
  const withoutKey = show('without-key', 'cert', '$$SCONE::it:chain$$');
  assert.equal(new X509Certificate(withoutKey.stdout).ca, true);
  there.create(importing('taker2', 'giver', 'word'));
  const refused = there.launch('taker2/show');
  assert.equal(refused.status, 77);
  assert.match(refused.stderr, /it is not exported to taker2 on this CAS/);
});

test('who has the certificate without its key does not get the key', () => {
  there.create(importing('taker/again', 'giver', 'cert', '', '$$SCONE::it:privatekey$$'));
  assert.match(there.launch('taker/again/show').stderr, /SECRET_UNAVAILABLE/);
});

test('a fragment decides over there, unless it has variables of its own', () => {
  const ruled = (secret: string) =>
    importing('taker/rules', 'giver', secret)
      .replace('{mode: none}', () => '$$SCONE::it$$')
      .replace('"$$SCONE::it$$"', '"x"');
  const hash = there.create(ruled('rules'));
  assert.equal(there.launch('taker/rules/show').stdout, 'x');
  there.create(ruled('open').replace('security', `predecessor: ${hash}\nsecurity`));
  assert.match(there.launch('taker/rules/show').stderr, /ADMISSION_UNKNOWN/);
  const explained = there.tryScone('session', 'explain', 'taker/rules/show').stderr;
  assert.match(explained, /a config-fragment with variables stays on its CAS/);
});

test('both sides may insist on a version', () => {
  const hash = here.create(session('exact', ['-'], `  - {name: word, kind: ascii, ${exportTo('by-hash')}}`));
  const taker = there.create(importing('by-hash', 'exact', 'word', `, session_hash: ${hash}`));
  assert.equal(there.launch('by-hash/show').status, 0);
  there.create(
    importing('by-hash', 'exact', 'word', `, session_hash: ${'0'.repeat(64)}`).replace(
      'security',
      `predecessor: ${taker}\nsecurity`,
    ),
  );
  assert.match(there.launch('by-hash/show').stderr, /of another version than session_hash says/);

  const next = importing('hashed', 'strict', 'word');
  const importer = there.create(next);
  here.create(
    session(
      'strict',
      ['-'],
      `  - {name: word, kind: ascii, ${exportTo('hashed', `, session_hash: ${importer}`)}}`,
    ),
  );
  assert.equal(there.launch('hashed/show').status, 0);
  there.create(next.replace('security', `predecessor: ${importer}\nsecurity`));
  assert.match(there.launch('hashed/show').stderr, /not exported to hashed/);
});

test('another key than the named one, or nobody at the address, is all the same', () => {
  here.create(session('keyed', ['-'], `  - {name: word, kind: ascii, ${exportTo('wrong-key')}}`));
  there.create(importing('wrong-key', 'keyed', 'word').replace(keyHere, keyThere));
  there.create(importing('nobody', 'keyed', 'word').replace(url(here), 'localhost:1'));
  for (const name of ['wrong-key', 'nobody']) {
    const { status, stderr } = there.launch(`${name}/show`);
    assert.equal(status, 77);
    assert.match(stderr, /the CAS at localhost:\d+ with the key \w+ cannot be reached/);
  }
});

test('a circle through two CASes ends', () => {
  const link = (stack: Stack, key: string, name: string, exportKey: string) =>
    session(
      name,
      ['$$SCONE::loop$$'],
      `  - {name: loop, import: {cas_url: "${url(stack)}", cas_key: ${key}, session: loop, secret: loop}, export: [{cas_key: ${exportKey}, session: loop}]}`,
    );
  here.create(link(there, keyThere, 'loop', keyThere));
  there.create(link(here, keyHere, 'loop', keyHere));
  const { status, stderr } = here.launch('loop/show');
  assert.equal(status, 77);
  assert.match(stderr, /it goes through more than 4 CASes/);
});

test('a CAS that is known by no key, or by an address alone, is refused with its place', () => {
  const check = (secret: string) => {
    const text = session('s', ['-'], `  - ${secret}`);
    try {
      here.create(text);
      return '';
    } catch (error) {
      return String(error);
    }
  };
  const imported = (more: string) => check(`{name: x, import: {session: a, secret: b, ${more}}}`);
  assert.match(imported('cas_url: other'), /:11:\d+: error: secrets\[0\]\.import: the key of the other CAS/);
  assert.match(imported(`cas_key: ${keyThere}`), /where is the other CAS/);
  assert.match(imported('cas_url: other, cas_key: nonsense'), /cas_key is not a CAS key hash/);
  assert.match(imported(`cas_url: "ht tp", cas_key: ${keyThere}`), /cas_url is malformed/);
  assert.match(
    check(`{name: x, kind: ascii, export: [{cas_key: ${keyThere}, session: ../up}]}`),
    /no relative name/,
  );
});
