import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, test } from 'node:test';
import { connect, type TLSSocket } from 'node:tls';
import { reportData } from '../../src/attestation/report-data.ts';
import { signSoftwareEvidence } from '../../src/attestation/software.ts';
import { openIdentity } from '../../src/cas/identity.ts';
import { createLaunchPort, type LaunchPort } from '../../src/cas/launch-port.ts';
import { createWatches, PLACES, type Watch } from '../../src/cas/watch.ts';
import { accessTokenProof } from '../../src/protocol/access-token.ts';
import { frames } from '../../src/protocol/frame.ts';
import {
  channelBinding,
  FORMER_LAUNCH_PROTOCOL,
  LAUNCH_PROTOCOL,
  LAUNCH_PROTOCOLS,
  type LaunchRequest,
} from '../../src/protocol/launch.ts';
import { oneTimePassword, parseSharedSecret } from '../../src/secrets/one-time-password.ts';
import { type BareCas, bareCas, type TestLas, testLas } from '../support/cas.ts';
import { PATIENCE } from '../support/until.ts';

let bare: BareCas;
let port: LaunchPort;
let las: TestLas;
let sockets: TLSSocket[];
beforeEach(async () => {
  las = testLas();
  bare = bareCas([las.platform]);
  sockets = [];
  port = createLaunchPort(
    bare.cas,
    await openIdentity(bare.cas.store, bare.cas.keyring, { commonName: 'cas', names: [] }, Date.now()),
  );
  await new Promise<void>((resolve) => port.server.listen(0, '127.0.0.1', resolve));
});
afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  await port.close();
});

const MEASUREMENT = 'ab'.repeat(32);
const PROCESS = '01'.repeat(32);

interface Client {
  socket: TLSSocket;
  /** Sends the request of a round, and gives the answer. */
  ask(round: number, request: LaunchRequest): Promise<Message>;
  send(request: LaunchRequest): void;
  read(): Promise<Message>;
  /** Evidence of a process, good in one round. */
  evidence(round: number, service: string, id?: string): Promise<string>;
}
// biome-ignore lint/suspicious/noExplicitAny: tests look into messages of every form
type Message = any;

/** @param confirms whether it says that it has its answers */
async function client(confirms = true, ALPNProtocols = LAUNCH_PROTOCOLS): Promise<Client> {
  const { port: number } = port.server.address() as AddressInfo;
  const socket = connect({
    host: '127.0.0.1',
    port: number,
    rejectUnauthorized: false,
    ALPNProtocols,
  });
  sockets.push(socket);
  await once(socket, 'secureConnect');
  const channel = frames(socket, 1 << 26);
  const it: Client = {
    socket,
    send: (request) => void channel.write(request),
    read: async () => {
      const message: Message = await channel.read(Date.now() + PATIENCE);
      if (message.configuration && confirms) channel.write({ arrived: true });
      return message;
    },
    ask: (_, request) => {
      it.send({ watch: true, ...request });
      return it.read();
    },
    evidence: (round, configId, id = PROCESS) => {
      const binding = { channel: channelBinding(socket, round), casKey: bare.cas.key, configId };
      const process = { measurement: MEASUREMENT, pid: 1, uid: 1, gid: 1, id, properties: [] };
      return signSoftwareEvidence(process, reportData({ role: 'launcher', ...binding }), las, bare.now);
    },
  };
  return it;
}

const open = 'security: {attestation: {mode: none}}\n';
const showing = (value: string, security = open) =>
  `${security}services: [{name: s, command: [envcas, "${value}"]}, {name: t}]\n`;
/** Uploads the next version of a session. */
async function upload(name: string, rest: string, who?: string): Promise<void> {
  const predecessor = hashes.get(name);
  const text = `name: ${name}\nversion: "0.3.12"\n${predecessor ? `predecessor: ${predecessor}\n` : ''}${rest}`;
  hashes.set(name, await bare.upload(text, who));
}
const hashes = new Map<string, string>();
beforeEach(() => hashes.clear());

const shown = (answer: Message) => answer.configuration?.command[1].join('');
const CHANGED = { changed: true };
const code = (answer: Message) => answer.refusal?.code;
/** Whether a connection ends before anything else comes. */
const ended = (it: Client) =>
  it.read().then(
    () => false,
    () => true,
  );

test('a new version is told of, and the next round gives it, as often as it comes', async () => {
  await upload('a', showing('one'));
  const it = await client();
  assert.equal(shown(await it.ask(0, { session: 'a', service: 's' })), 'one');
  for (const [index, value] of ['two', 'three', 'four'].entries()) {
    await upload('a', showing(value));
    assert.deepEqual(await it.read(), CHANGED);
    assert.equal(shown(await it.ask(index + 1, { session: 'a', service: 's' })), value);
  }
});

test('without watch, the connection ends after the answer', async () => {
  await upload('a', showing('one'));
  const it = await client();
  assert.equal(shown(await it.ask(0, { session: 'a', service: 's', watch: false })), 'one');
  assert.ok(await ended(it));
});

test('nothing is told before the launcher says that it has the answer, and who says something else is cut off', async () => {
  await upload('a', showing('one'));
  const it = await client(false);
  assert.equal(it.socket.alpnProtocol, LAUNCH_PROTOCOL);
  assert.equal(shown(await it.ask(0, { session: 'a', service: 's' })), 'one');
  await upload('a', showing('two'));
  let isTold = false;
  const told = it.read().then((message) => {
    isTold = true;
    return message;
  });
  // Whatever it would say after the answer would have come before the answer to another.
  await (await client()).ask(0, { session: 'a', service: 's' });
  assert.equal(isTold, false);
  it.send({ arrived: true } as never);
  assert.deepEqual(await told, CHANGED);
  for (const other of [{ arrived: false }, { changed: true }, { session: 'a', service: 's' }, 'arrived']) {
    const wrong = await client(false);
    await wrong.ask(0, { session: 'a', service: 's' });
    wrong.send(other as never);
    assert.ok(await ended(wrong));
  }
});

test('a launcher of 0.1.0 says nothing of its answer, and is told of changes', async () => {
  await upload('a', showing('one'));
  const it = await client(false, [FORMER_LAUNCH_PROTOCOL]);
  assert.equal(it.socket.alpnProtocol, FORMER_LAUNCH_PROTOCOL);
  assert.equal(shown(await it.ask(0, { session: 'a', service: 's' })), 'one');
  await upload('a', showing('two'));
  assert.deepEqual(await it.read(), CHANGED);
  assert.equal(shown(await it.ask(1, { session: 'a', service: 's' })), 'two');
});

test('changes that come before the next request are told of once; those in the meantime, after its answer', async () => {
  await upload('a', showing('1'));
  const it = await client();
  await it.ask(0, { session: 'a', service: 's' });
  for (const value of ['2', '3', '4']) await upload('a', showing(value));
  assert.deepEqual(await it.read(), CHANGED);
  const { activeVersion } = bare.cas.store;
  bare.cas.store.activeVersion = async (name) => {
    bare.cas.store.activeVersion = activeVersion;
    const before = await activeVersion(name);
    // Read, and outdated before the answer is out: it is decided anew.
    await upload('a', showing('5'));
    return before;
  };
  assert.equal(shown(await it.ask(1, { session: 'a', service: 's' })), '5');
  assert.deepEqual(await it.read(), CHANGED);
  assert.equal(shown(await it.ask(2, { session: 'a', service: 's' })), '5');
});

test('sessions that gave a secret count: directly, through others, or for admission alone; no others do', async () => {
  const exporting = (value: string) =>
    `secrets: [{name: x, kind: ascii, value: "${value}", export: [{session: middle}, {session: user}]}]\n`;
  const importing = (name: string, from: string) =>
    `  - {name: ${name}, import: {session: ${from}, secret: x}`;
  await upload('far', exporting('one'));
  const asking = (mode: string) =>
    `secrets: [{name: x, kind: config-fragment, value: {mode: ${mode}}, export: [{session: user}]}]\n`;
  await upload('mode', asking('none'));
  await upload('middle', `secrets:\n${importing('x', 'far')}, export: [{session: user}]}\n`, 'bob');
  const user = showing('$$SCONE::x$$', 'security: {attestation: $$SCONE::m$$}\n');
  await upload('user', `${user}secrets:\n${importing('x', 'middle')}}\n${importing('m', 'mode')}}\n`, 'bob');
  const request = { session: 'user', service: 's' };
  const it = await client();
  assert.equal(shown(await it.ask(0, request)), 'one');
  await upload('far', exporting('two'));
  assert.deepEqual(await it.read(), CHANGED);
  assert.equal(shown(await it.ask(1, request)), 'two');
  // A refusal is no end: the policy may be corrected.
  await upload('mode', asking('hardware'));
  assert.deepEqual(await it.read(), CHANGED);
  assert.equal(code(await it.ask(2, request)), 'EVIDENCE_MISSING');
  await upload('mode', asking('none'));
  assert.deepEqual(await it.read(), CHANGED);
  assert.equal(shown(await it.ask(3, request)), 'two');
  await upload('stranger', exporting('two'));
  it.send({ ...request, watch: true });
  assert.ok(await ended(it), 'nothing was told, so asking was wrong');
});

test('a refusal ends the first round, and no later one; who was refused may ask again by himself', async () => {
  const stranger = await client();
  assert.equal(code(await stranger.ask(0, { session: 'a', service: 's' })), 'SESSION_NOT_FOUND');
  assert.ok(await ended(stranger));
  await upload('a', showing('one'));
  const it = await client();
  await it.ask(0, { session: 'a', service: 's' });
  await upload('a', `${open}services: [{name: other}]\n`);
  assert.deepEqual(await it.read(), CHANGED);
  assert.equal(code(await it.ask(1, { session: 'a', service: 's' })), 'SERVICE_NOT_FOUND');
  assert.equal(code(await it.ask(2, { session: 'a', service: 's' })), 'SERVICE_NOT_FOUND');
  await upload('a', showing('two'));
  // What he is told crosses his request.
  assert.deepEqual(await it.ask(3, { session: 'a', service: 's' }), CHANGED);
  assert.equal(shown(await it.read()), 'two');
  await upload('a', showing('three'));
  assert.deepEqual(await it.read(), CHANGED);
});

test('when a certificate is to be made anew, or one above it, that is told, and done', async () => {
  const certificates = (ca: string, own: string) =>
    `${showing('$$SCONE::c$$')}secrets:\n  - {name: k, kind: private-key}\n  - {name: ca, kind: x509-ca, private_key: k, valid_for: ${ca}}\n  - {name: own, kind: private-key}\n  - {name: c, kind: x509, private_key: own, issuer: ca, valid_for: ${own}}\n`;
  await upload('leaf', certificates('1 year', '1 hour'));
  await upload('root', certificates('1 hour', '1 year'));
  const sessions = ['leaf', 'root'];
  const issued = await Promise.all(sessions.map((session) => bare.launch(session, 's')));
  // A third of the hour is left then, but for a second.
  bare.now += 40 * 60_000 - 1000;
  const watched = await Promise.all(
    sessions.map(async (session, index) => {
      const it = await client();
      const before = shown(await it.ask(0, { session, service: 's' }));
      assert.equal(before, shown(issued[index]));
      return { session, it, before: new X509Certificate(before) };
    }),
  );
  bare.now += 1000;
  for (const { session, it, before } of watched) {
    assert.deepEqual(await it.read(), CHANGED);
    const after = new X509Certificate(shown(await it.ask(1, { session, service: 's' })));
    assert.notEqual(after.serialNumber, before.serialNumber);
    assert.ok(after.publicKey.equals(before.publicKey));
  }
});

test('a token is told of when most of its validity is over', async () => {
  const secrets =
    'secrets:\n  - {name: k, kind: private-key, key_type: P-384}\n  - {name: j, kind: jwt, signer: k, alg: ES384, validity: {for: 3 s}, payload: {sub: x}}\n';
  await upload('a', `${showing('$$SCONE::j$$')}${secrets}`);
  const it = await client();
  const before = shown(await it.ask(0, { session: 'a', service: 's' }));
  bare.now += 2000;
  assert.deepEqual(await it.read(), CHANGED);
  assert.notEqual(shown(await it.ask(1, { session: 'a', service: 's' })), before);
});

const SECRET = 'JJBFGV2ZGNCFARKIKBFTGUCYKBNFKVQK';
const OTHER_SECRET = 'KRUGKIDROVUWG2ZAMJZG653OEBTG66BA';
const codeOf = (secret: string) => {
  const parsed = parseSharedSecret(secret);
  assert.ok(typeof parsed !== 'string');
  return oneTimePassword(parsed, bare.now);
};
const attested = (value: string, more = '', security = '') =>
  `security: {${security}attestation: {tolerate: [debug-mode]${more}}}\nservices: [{name: s, mrenclaves: [${MEASUREMENT}], command: [envcas, "${value}"]}]\n`;

test('Evidence is good in the round that it was made for alone', async () => {
  await upload('a', attested('one'));
  const it = await client();
  const first = await it.evidence(0, 'a/s');
  const request = { session: 'a', service: 's' };
  assert.equal(shown(await it.ask(0, { ...request, evidence: first })), 'one');
  await upload('a', attested('two'));
  assert.deepEqual(await it.read(), CHANGED);
  assert.equal(code(await it.ask(1, { ...request, evidence: first })), 'EVIDENCE_INVALID');
  const early = await it.evidence(1, 'a/s');
  assert.equal(code(await it.ask(2, { ...request, evidence: early })), 'EVIDENCE_INVALID');
  assert.equal(shown(await it.ask(3, { ...request, evidence: await it.evidence(3, 'a/s') })), 'two');
});

test('a one-time password stays good on its connection, for the same process and shared secret', async () => {
  const withCode = (value: string, secret: string) =>
    attested(value, `, one_time_password_shared_secret: ${secret}`);
  await upload('a', withCode('one', SECRET));
  const it = await client();
  const round = async (number: number, more: Partial<LaunchRequest> = {}, id = PROCESS) =>
    it.ask(number, {
      ...{ session: 'a', service: 's' },
      evidence: await it.evidence(number, 'a/s', id),
      ...more,
    });
  assert.equal(shown(await round(0, { oneTimePassword: codeOf(SECRET) })), 'one');
  await upload('a', withCode('two', SECRET));
  assert.deepEqual(await it.read(), CHANGED);
  assert.equal(code(await round(1, {}, '02'.repeat(32))), 'OTP_MISSING', 'another process');
  assert.equal(code(await round(2, { evidence: undefined as never })), 'EVIDENCE_MISSING');
  assert.equal(shown(await round(3)), 'two');
  await upload('a', withCode('three', OTHER_SECRET));
  assert.deepEqual(await it.read(), CHANGED);
  assert.equal(code(await round(4)), 'OTP_MISSING', 'another shared secret');
  assert.equal(shown(await round(5, { oneTimePassword: codeOf(OTHER_SECRET) })), 'three');

  const other = await client();
  const evidence = await other.evidence(0, 'a/s');
  assert.equal(code(await other.ask(0, { session: 'a', service: 's', evidence })), 'OTP_MISSING');
});

test('without Evidence, a one-time password stays good on its connection alone', async () => {
  const withCode = (value: string) =>
    showing(value, `security: {attestation: {mode: none, one_time_password_shared_secret: ${SECRET}}}\n`);
  await upload('a', withCode('one'));
  const it = await client();
  const request = { session: 'a', service: 's' };
  assert.equal(shown(await it.ask(0, { ...request, oneTimePassword: codeOf(SECRET) })), 'one');
  await upload('a', withCode('two'));
  assert.deepEqual(await it.read(), CHANGED);
  assert.equal(shown(await it.ask(1, request)), 'two');
  // That nobody has vouched for a process before is no reason to believe of this one that it gave the code.
  await upload('a', attested('three', `, one_time_password_shared_secret: ${SECRET}`));
  assert.deepEqual(await it.read(), CHANGED);
  const evidence = await it.evidence(2, 'a/s');
  assert.equal(code(await it.ask(2, { ...request, evidence })), 'OTP_MISSING');
});

test('singleton_enclaves admits a process again on its connection, and on no other', async () => {
  const single = (value: string) => attested(value, '', 'singleton_enclaves: true, ');
  await upload('a', single('one'));
  const it = await client();
  const request = { session: 'a', service: 's' };
  assert.equal(shown(await it.ask(0, { ...request, evidence: await it.evidence(0, 'a/s') })), 'one');
  await upload('a', single('two'));
  assert.deepEqual(await it.read(), CHANGED);
  assert.equal(shown(await it.ask(1, { ...request, evidence: await it.evidence(1, 'a/s') })), 'two');
  const other = await client();
  const answer = await other.ask(0, { ...request, evidence: await other.evidence(0, 'a/s') });
  assert.equal(code(answer), 'PROCESS_SEEN');
});

test('an access token is proven in every round', async () => {
  const withToken = (value: string) =>
    showing(value, 'security: {attestation: {mode: none}, service_access_token: some words}\n');
  await upload('a', withToken('one'));
  const it = await client();
  const proof = (round: number, role: 'launcher' | 'cas') =>
    accessTokenProof('some words', {
      ...{ role, casKey: bare.cas.key, configId: 'a/s' },
      channel: channelBinding(it.socket, round),
    }).toString('base64');
  const request = (round: number) => ({ session: 'a', service: 's', accessToken: proof(round, 'launcher') });
  assert.equal((await it.ask(0, request(0))).accessToken, proof(0, 'cas'));
  await upload('a', withToken('two'));
  assert.deepEqual(await it.read(), CHANGED);
  assert.equal(code(await it.ask(1, request(0))), 'ACCESS_TOKEN_INVALID');
  assert.equal((await it.ask(2, request(2))).accessToken, proof(2, 'cas'));
});

test('a further request for another service is refused, and the last', async () => {
  await upload('a', showing('one'));
  const it = await client();
  await it.ask(0, { session: 'a', service: 's' });
  await upload('a', showing('two'));
  assert.deepEqual(await it.read(), CHANGED);
  assert.equal(code(await it.ask(1, { session: 'a', service: 't' })), 'REQUEST_INVALID');
  assert.ok(await ended(it));
});

test('who sends what nobody has waited for is cut off', async () => {
  await upload('a', showing('one'));
  const request = { session: 'a', service: 's', watch: true };
  const flooding = await client();
  await flooding.ask(0, request);
  flooding.socket.write(Buffer.alloc(1 << 20));
  assert.ok(await ended(flooding));
  const ahead = await client();
  ahead.send(request);
  ahead.send(request);
  assert.equal(shown(await ahead.read()), 'one');
  assert.ok(await ended(ahead));
  const nonsense = await client();
  await nonsense.ask(0, request);
  await upload('a', showing('two'));
  assert.deepEqual(await nonsense.read(), CHANGED);
  nonsense.socket.write(Buffer.alloc(1 << 20, 0xff));
  assert.ok(await ended(nonsense));
});

test('a client that is told and does not ask stays, and asks when it likes', async () => {
  await upload('a', showing('one'));
  const it = await client();
  await it.ask(0, { session: 'a', service: 's' });
  await upload('a', showing('two'));
  assert.deepEqual(await it.read(), CHANGED);
  for (const value of ['three', 'four']) await upload('a', showing(value));
  assert.equal(shown(await it.ask(1, { session: 'a', service: 's' })), 'four', 'and it was not told again');
});

test('when the CAS closes, what is in hand is answered, and the connections that wait end', async (context) => {
  await upload('a', showing('one'));
  const [waiting, told] = await Promise.all([client(), client()]);
  await told.ask(0, { session: 'a', service: 's' });
  await upload('a', showing('two'));
  assert.deepEqual(await told.read(), CHANGED);
  await waiting.ask(0, { session: 'a', service: 's' });
  // The time that others are given never passes.
  context.mock.timers.enable({ apis: ['setTimeout'] });
  const inHand = await client();
  const { activeVersion } = bare.cas.store;
  let closed: Promise<void> | undefined;
  bare.cas.store.activeVersion = (name) => {
    closed = port.close();
    return activeVersion(name);
  };
  assert.equal(shown(await inHand.ask(0, { session: 'a', service: 's' })), 'two');
  await closed;
  assert.ok(await ended(inHand));
  assert.ok(await ended(waiting));
  assert.ok(await ended(told));
});

test('where no place is left, the answer is given and the connection ends; a session and a source leave some to others', async () => {
  await upload('a', showing('one'));
  await upload('b', showing('two'));
  const take = (session: string, source: string) => {
    const taken: Watch[] = [];
    for (;;) {
      const watch = bare.cas.watches.open(session, source);
      if (!watch) return taken;
      taken.push(watch);
    }
  };
  const isHeld = async (session: string) => {
    const it = await client();
    assert.ok(shown(await it.ask(0, { session, service: 's' })));
    await upload(session, showing('again'));
    const isTold = !(await ended(it));
    it.socket.destroy();
    return isTold;
  };
  const hasPlace = (session: string, source: string) => {
    const watch = bare.cas.watches.open(session, source);
    watch?.end();
    return watch !== undefined;
  };
  const ofSession = ['one', 'two', 'three'].flatMap((source) => take('a', source));
  assert.equal(await isHeld('a'), false);
  assert.ok(hasPlace('b', 'three'));
  for (const watch of ofSession) watch.end();

  // The clients of this test.
  const ofSource = ['c', 'd', 'e'].flatMap((session) => take(session, `uid:${process.getuid?.()}`));
  assert.equal(await isHeld('a'), false);
  assert.ok(hasPlace('e', 'elsewhere'));
  for (const watch of ofSource) watch.end();

  const [first] = ['c', 'd'].flatMap((session) => ['one', 'two', 'three'].flatMap((it) => take(session, it)));
  take('e', 'four');
  assert.equal(await isHeld('a'), false);
  first?.end();
  assert.equal(await isHeld('a'), true);
});

test('what depends on more sessions than can be watched in all is not watched', () => {
  const watches = createWatches(Date.now);
  const open = () => {
    const watch = watches.open('a', 'here');
    assert.ok(watch);
    return watch;
  };
  const [large, small] = [open(), open()];
  for (let index = 0; index < 32 * PLACES; index++) large.session(`${index}`);
  small.session('a');
  assert.deepEqual([large.isComplete(), small.isComplete()], [false, false]);
  large.end();
  small.begin();
  small.session('a');
  assert.equal(small.isComplete(), true);
});
