import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { type Rest, rest } from '../support/rest.ts';
import { missing, type Stack, startStack } from '../support/stack.ts';

/** What is told of sessions, and to whom. */
describe('sessions, their versions and their hashes', { skip: missing('curl', 'openssl') }, () => {
  let stack: Stack;
  let cas: Rest;
  before(async () => {
    stack = await startStack();
    cas = rest(stack);
  });

  const session = (name: string, more = '') => `name: ${name}\nversion: "0.3.12"\n${more}`;

  test('with a root namespace it is said who creates sessions, and who lists them', async () => {
    // The root can be set only as the very first session; until then the top is everybody's.
    assert.deepEqual((await cas.get('/v1/sessions', 'mallory')).body, { sessions: [], more: false });
    const policy = `access_policy: {create_sessions: ${cas.keyHash('alice')}, list_sessions: ${cas.keyHash('bob')}}\n`;
    assert.equal((await cas.upload(session('/', policy), 'root')).status, 201);
    const refused = await cas.upload(session('mallory'), 'mallory');
    assert.deepEqual([refused.status, refused.body.code], [403, 'ACCESS_DENIED']);
    for (const name of ['team', 'team/a', 'team/a/deep', 'teamwork'])
      assert.equal((await cas.upload(session(name))).status, 201);

    const all = { sessions: ['team', 'teamwork'], more: false };
    for (const who of ['alice', 'bob']) assert.deepEqual((await cas.get('/v1/sessions', who)).body, all);
    const below = await cas.get('/v1/sessions?namespace=team&after=team', 'alice');
    assert.deepEqual(below.body, { sessions: ['team/a'], more: false });
    for (const [path, who, status] of [
      ['/v1/sessions', 'mallory', 403],
      ['/v1/sessions?namespace=team', 'bob', 403],
      ['/v1/sessions?namespace=none', 'alice', 404],
      ['/v1/sessions', undefined, 401],
    ] as const)
      assert.equal((await cas.get(path, who)).status, status, path);
  });

  test('a namespace can be held to a version', async () => {
    const hash = (await cas.get('/v1/hashes/team', 'alice')).body.hash;
    const wrong = await cas.upload(session('team/held', `namespace_hash: ${'0'.repeat(64)}\n`));
    assert.deepEqual([wrong.status, wrong.body.code], [409, 'NAMESPACE_CHANGED']);
    assert.equal((await cas.upload(session('team/held', `namespace_hash: ${hash}\n`))).status, 201);
  });

  test('a hash is for readers, and for everybody once the session had a salt', async () => {
    const { hash } = (await cas.upload(session('salted'))).body;
    assert.equal((await cas.get('/v1/hashes/salted')).status, 401);
    assert.equal((await cas.get('/v1/hashes/salted', 'bob')).status, 403);
    assert.deepEqual((await cas.get('/v1/hashes/salted', 'alice')).body, { hash });
    const salt = `salt: ${'ab'.repeat(16)}\n`;
    const second = (await cas.upload(session('salted', `${salt}predecessor: ${hash}\n`))).body.hash;
    const third = (await cas.upload(session('salted', `predecessor: ${second}\n`))).body.hash;
    for (const who of [undefined, 'bob', 'alice'])
      assert.deepEqual((await cas.get('/v1/hashes/salted', who)).body, { hash: third });
    // The log has public hashes alone.
    assert.match(stack.server.output(), new RegExp(second));
    assert.doesNotMatch(stack.server.output(), new RegExp(hash));
  });

  test('the history tells who uploaded what when', async () => {
    const policy = `access_policy: {read: ANY, update: [${cas.keyHash('alice')}, ${cas.keyHash('bob')}]}\n`;
    const first = (await cas.upload(session('shared', policy))).body.hash;
    const started = Date.now();
    const second = (await cas.upload(session('shared', `${policy}predecessor: ${first}\n`), 'bob')).body.hash;
    const { versions, more } = (await cas.get('/v1/history/shared', 'mallory')).body;
    assert.equal(more, false);
    assert.deepEqual(
      versions.map(({ number, hash, by }: Record<string, unknown>) => ({ number, hash, by })),
      [
        { number: 2, hash: second, by: [{ certificate: cas.keyHash('bob') }] },
        { number: 1, hash: first, by: [{ certificate: cas.keyHash('alice') }] },
      ],
    );
    assert.ok(Date.parse(versions[0].created) >= started - 1000);
    assert.ok(Date.parse(versions[0].created) <= Date.now());
    const older = await cas.get('/v1/history/shared?before=2', 'mallory');
    assert.deepEqual(
      older.body.versions.map(({ number }: { number: number }) => number),
      [1],
    );
    assert.equal((await cas.get('/v1/history/shared?before=x', 'mallory')).status, 400);
    assert.equal((await cas.get('/v1/history/team', 'mallory')).status, 403);
  });

  test('the creator counts for the hash, whether the text names him or not', async () => {
    const text = session('owned', 'access_policy: {read: ANY}\n');
    const { hash } = (await cas.upload(text)).body;
    const { body } = await cas.get('/session/owned', 'bob');
    assert.deepEqual(body, { session: text, hash, creator: { certificate: cas.keyHash('alice') } });
    const named = await cas.upload(session('another', `creator: ${cas.keyHash('bob')}\n`));
    assert.deepEqual([named.status, named.body.code], [403, 'CREATOR_MISMATCH']);
  });

  test('what a launcher must show is explained to readers, with variables filled in', async () => {
    const text = session(
      'explained',
      `security:
  attestation:
    tolerate: [debug-mode, outdated-tcb]
    require: [$$SCONE::property$$]
    ignore_advisories: [INTEL-SA-00615]
    trusted_scone_qe_pubkeys: [${'ef'.repeat(32)}]
    one_time_password_shared_secret: $$SCONE::otp:base32nopad$$
  service_access_token: $$SCONE::token$$
  singleton_enclaves: true
services:
  - name: s
    attestation:
      - mrenclave: [$$SCONE::launchers$$, ${'12'.repeat(32)}]
      - signer: {mrsigner: ${'34'.repeat(32)}, isvprodid: 1, isvsvn_min: 2}
    mrenclaves: [${'56'.repeat(32)}]
  - name: plain
    mrenclaves: [${'56'.repeat(32)}]
secrets:
  - {name: token, kind: ascii}
  - {name: otp, kind: binary}
  - {name: property, kind: ascii, value: root-owned-code}
  - {name: launchers, kind: config-fragment, value: [${'78'.repeat(32)}]}
`,
    );
    assert.equal((await cas.upload(text)).status, 201);
    const { status, body } = await cas.get('/v1/admission/explained/s', 'alice');
    assert.equal(status, 200, JSON.stringify(body));
    const { trustedPlatforms, ...rest } = body;
    assert.equal(trustedPlatforms.length, 2);
    assert.equal(trustedPlatforms[1], 'ef'.repeat(32));
    assert.deepEqual(rest, {
      session: 'explained',
      service: 's',
      mode: 'hardware',
      tolerate: ['debug-mode', 'outdated-tcb'],
      require: ['root-owned-code'],
      maxQuoteAge: 600_000,
      ignoreAdvisories: ['INTEL-SA-00615'],
      variants: [
        { measurements: ['78'.repeat(32), '12'.repeat(32)] },
        { signer: { mrsigner: '34'.repeat(32), isvprodid: 1, isvsvn_min: 2 } },
        { measurements: ['56'.repeat(32)] },
      ],
      platforms: [],
      oneTimePassword: true,
      accessToken: true,
      singleton: true,
    });
    assert.equal((await cas.get('/v1/admission/explained/s', 'bob')).status, 403);
    assert.equal((await cas.get('/v1/admission/explained/none', 'alice')).body.code, 'SERVICE_NOT_FOUND');

    const otp = await cas.get('/v1/otp/explained/s', 'alice');
    assert.match(otp.body.secret, /^[A-Z2-7]{32}$/);
    assert.equal((await cas.get('/v1/otp/explained/s', 'bob')).status, 403);
  });

  test('a shared secret is for readers where it is written, else for those who may update its session', async () => {
    const keep = (who: string) => `access_policy: {read: ANY, update: ${cas.keyHash(who)}}\n`;
    const service = `security: {attestation: {mode: none}}\nservices: [{name: s, one_time_password_shared_secret: `;
    const literal = `${keep('bob')}${service}JJBFGV2ZGNCFARKIKBFTGUCYKBNFKVQK}]\n`;
    const vault = `${keep('bob')}secrets: [{name: otp, kind: binary, export: [{session: user}]}]\n`;
    const user = `${keep('alice')}${service}$$SCONE::otp:base32nopad$$}]\nsecrets: [{name: otp, import: {session: vault, secret: otp}}]\n`;
    const without = `${keep('alice')}security: {attestation: {mode: none}}\nservices: [{name: s}]\n`;
    for (const [name, text] of Object.entries({ literal, vault, user, without }))
      assert.equal((await cas.upload(session(name, text))).status, 201, name);
    const get = async (name: string, who: string) => {
      const { status, body } = await cas.get(`/v1/otp/${name}/s`, who);
      return status === 200 ? body.secret : body.code;
    };
    assert.equal(await get('literal', 'mallory'), 'JJBFGV2ZGNCFARKIKBFTGUCYKBNFKVQK');
    assert.equal(await get('user', 'alice'), 'ACCESS_DENIED');
    assert.match(await get('user', 'bob'), /^[A-Z2-7]{32}$/);
    assert.equal(await get('without', 'alice'), 'ONE_TIME_PASSWORD_UNUSED');
  });

  test('what is wrong with a request is told apart by its status, always in one form', async () => {
    const many = Array.from({ length: 300 }, () => cas.get('/v1/version'));
    for (const { status } of await Promise.all(many)) assert.ok(status === 200 || status === 429);
    for (const [answer, status, code] of [
      [await cas.get('/v1/nothing', 'alice'), 404, 'PATH_UNKNOWN'],
      [await cas.get('/session/%ff', 'alice'), 400, 'REQUEST_INVALID'],
      [await cas.get('/session/mine'), 401, 'IDENTITY_REQUIRED'],
      [await cas.send('POST', '/session', Buffer.of(0xff), 'alice'), 400, 'REQUEST_INVALID'],
      [await cas.send('POST', '/session', Buffer.alloc(4 << 20, 'a'), 'alice'), 413, 'REQUEST_TOO_LARGE'],
      [await cas.send('PUT', '/session', '', 'alice'), 405, 'METHOD_NOT_ALLOWED'],
    ] as const) {
      assert.deepEqual([answer.status, answer.body.code], [status, code]);
      assert.ok(answer.body.msg.length > 0 && answer.body.hint);
    }
  });
});
