import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { addSignature, messageToSign, type SignedSession } from '../../src/policy/signed-session.ts';
import { encryptSession } from '../../src/protocol/encrypted-session.ts';
import { type Rest, rest } from '../support/rest.ts';
import { missing, type Stack, startStack } from '../support/stack.ts';

/** Sessions that several parties agree on by signing them, with keys that openssl makes and uses. */
describe('signed sessions', { skip: missing('curl', 'openssl') }, () => {
  let stack: Stack;
  let cas: Rest;
  before(async () => {
    stack = await startStack();
    cas = rest(stack);
    for (const who of ['ada', 'ben', 'cyd'])
      openssl('genpkey', '-algorithm', 'ed25519', '-out', file(`${who}.key`));
    openssl('ecparam', '-name', 'secp384r1', '-genkey', '-noout', '-out', file('dan.key'));
    for (const who of ['ada', 'ben', 'cyd', 'dan'])
      openssl('pkey', '-in', file(`${who}.key`), '-pubout', '-out', file(`${who}.pub`));
  });

  const file = (name: string) => join(stack.files, name);
  const openssl = (...args: string[]) =>
    execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'ignore'] });
  const publicKey = (who: string) => readFileSync(file(`${who}.pub`), 'utf8');
  const indented = (who: string, columns: number) =>
    publicKey(who).trim().replace(/^/gm, ' '.repeat(columns));

  function sign(session: string | SignedSession, who: string): SignedSession {
    const policy = typeof session === 'string' ? session : session.policy;
    writeFileSync(file('message'), messageToSign(policy));
    const how = who === 'dan' ? ['dgst', '-sha384', '-sign'] : ['pkeyutl', '-sign', '-rawin', '-inkey'];
    const input = who === 'dan' ? [file('message')] : ['-in', file('message')];
    return addSignature(session, publicKey(who), openssl(...how, file(`${who}.key`), ...input));
  }
  const signedBy = (text: string, ...people: string[]) =>
    JSON.stringify(people.reduce<string | SignedSession>((session, who) => sign(session, who), text));

  const governed = (name: string, predecessor = '~', more = '') => `
name: ${name}
version: "0.3.10"
predecessor: ${predecessor}
creator:
  signer: |
${indented('ada', 4)}
access_policy:
  read: ANY
  update:
    - require-at-least-2:
        - CREATOR
        - signer: |
${indented('ben', 12)}
        - require-all:
            - signer: |
${indented('cyd', 16)}
            - signer: |
${indented('dan', 16)}
${more}`;

  test('a board governs a session: enough of it must have signed an update', async () => {
    const created = await cas.send('POST', '/session', signedBy(governed('board'), 'ada'));
    assert.equal(created.status, 201, JSON.stringify(created.body));
    const next = governed('board', created.body.hash, 'services: []');
    for (const people of [['ada'], ['ben', 'cyd'], ['cyd', 'dan']]) {
      const refused = await cas.send('POST', '/session', signedBy(next, ...people));
      assert.deepEqual([refused.status, refused.body.code], [403, 'ACCESS_DENIED'], people.join());
    }
    // What is uploaded with a certificate alone has no signature, whoever it is.
    const unsigned = next.replace(/creator:[\s\S]*?access_policy/, 'access_policy');
    assert.equal((await cas.upload(unsigned)).body.code, 'ACCESS_DENIED');
    for (const people of [
      ['ben', 'cyd', 'dan'],
      ['ada', 'ben'],
    ]) {
      const active = (await cas.get('/session/board', 'alice')).body.hash;
      const text = governed('board', active, `services: [] # ${people}`);
      const updated = await cas.send('POST', '/session', signedBy(text, 'ada', ...people));
      assert.equal(updated.status, 201, JSON.stringify(updated.body));
    }
    const { versions } = (await cas.get('/v1/history/board', 'alice')).body;
    assert.deepEqual(
      versions.map(({ by }: { by: object[] }) => by.length),
      [2, 4, 1],
    );
  });

  test('a signature is over every character, and is checked', async () => {
    const signed = sign(governed('tampered'), 'ada');
    for (const [session, code] of [
      [{ ...signed, policy: signed.policy.replace('ANY', 'NONE') }, 'SIGNATURE_INVALID'],
      [{ ...signed, signatures: [...signed.signatures, ...signed.signatures] }, 'SIGNATURE_INVALID'],
      [{ ...signed, signatures: [] }, 'SIGNED_SESSION_INVALID'],
      [{ ...signed, more: 1 }, 'SIGNED_SESSION_INVALID'],
    ] as const) {
      const { status, body } = await cas.send('POST', '/session', JSON.stringify(session));
      assert.deepEqual([status >= 400, body.code], [true, code]);
    }
    assert.equal((await cas.get('/session/tampered', 'alice')).status, 404);
  });

  test('who brings a signed session does not become its creator', async () => {
    const text = 'name: courier\nversion: "0.3.10"\n';
    const unnamed = await cas.send('POST', '/session', signedBy(text, 'ada'), 'alice');
    assert.deepEqual([unnamed.status, unnamed.body.code], [400, 'CREATOR_UNKNOWN']);
    const named = `${text}creator:\n  signer: |\n${indented('ada', 4)}\n`;
    assert.equal(
      (await cas.send('POST', '/session', signedBy(named, 'ben'), 'alice')).body.code,
      'CREATOR_MISMATCH',
    );
    assert.equal((await cas.upload(named)).body.code, 'CREATOR_MISMATCH');
    const { status, body } = await cas.send('POST', '/session', signedBy(named, 'ada'), 'alice');
    assert.equal(status, 201, JSON.stringify(body));
    assert.equal((await cas.get('/session/courier', 'alice')).status, 403);
  });

  test('without a signature and without a certificate nobody uploads', async () => {
    const { status, body } = await cas.send('POST', '/session', 'name: nobody\nversion: "0.3.10"\n');
    assert.deepEqual([status, body.code], [401, 'IDENTITY_REQUIRED']);
  });

  test('an encrypted session is opened by the CAS it is for, if it is signed inside', async () => {
    const { publicKey: key } = (await cas.get('/v1/session-encryption-key')).body;
    const encrypted = await encryptSession(signedBy(governed('hidden'), 'ada'), key);
    const created = await cas.send('PUT', '/v1/encrypted_sessions', encrypted);
    assert.equal(created.status, 201, JSON.stringify(created.body));
    assert.equal((await cas.get('/session/hidden', 'alice')).body.session, governed('hidden'));

    const unsigned = await encryptSession('name: stolen\nversion: "0.3.10"\n', key);
    for (const [path, method] of [
      ['/session', 'POST'],
      ['/v1/encrypted_sessions', 'PUT'],
    ] as const) {
      const refused = await cas.send(method, path, unsigned, 'alice');
      assert.deepEqual([refused.status, refused.body.code], [400, 'ENCRYPTED_SESSION_INVALID']);
    }
    const plain = await cas.send(
      'PUT',
      '/v1/encrypted_sessions',
      'name: plain\nversion: "0.3.10"\n',
      'alice',
    );
    assert.equal(plain.body.code, 'ENCRYPTED_SESSION_INVALID');

    openssl('genpkey', '-algorithm', 'x25519', '-out', file('other.key'));
    const other = openssl('pkey', '-in', file('other.key'), '-pubout').toString();
    const elsewhere = await encryptSession(signedBy(governed('elsewhere'), 'ada'), other);
    const refused = await cas.send('POST', '/session', elsewhere);
    assert.match(refused.body.msg.join(), /it is for another CAS/);
    // The key outlives the process.
    await stack.restart('SIGKILL');
    cas = rest(stack);
    assert.equal((await cas.get('/v1/session-encryption-key')).body.publicKey, key);
  });

  test('a signer that is no key is an error of the session, with its place', async () => {
    const text = 'name: s\nversion: "0.3.10"\naccess_policy:\n  update:\n    - signer: nonsense\n';
    const { status, body } = await cas.upload(text);
    assert.equal(status, 400);
    assert.deepEqual([body.problems[0].line, body.problems[0].path], [5, 'access_policy.update[0].signer']);
  });
});
