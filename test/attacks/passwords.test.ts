import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect as connectTcp, createServer } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { connect, type TLSSocket } from 'node:tls';
import { Secret, TOTP } from 'otpauth';
import { reportData } from '../../src/attestation/report-data.ts';
import { signSoftwareEvidence } from '../../src/attestation/software.ts';
import { openIdentity } from '../../src/cas/identity.ts';
import { createLaunchPort, type LaunchPort } from '../../src/cas/launch-port.ts';
import { believeBalancers } from '../../src/cas/limits/proxy-protocol.ts';
import { openDatabase } from '../../src/cas/store/open.ts';
import { frames } from '../../src/protocol/frame.ts';
import { channelBinding, FORMER_LAUNCH_PROTOCOL, LAUNCH_PROTOCOL } from '../../src/protocol/launch.ts';
import { codeFrom, launch, listen, newSharedSecret, upload } from '../launcher/support.ts';
import { type BareCas, bareCas, type TestLas, testLas } from '../support/cas.ts';
import { balancers, connectFrom } from '../support/proxy-protocol.ts';
import { type Apart, startApart } from '../support/stack.ts';
import { PATIENCE, until } from '../support/until.ts';

/** Who knows a one-time password, and chooses the number of a launch himself, tries to have it launch more than once. */

const MEASUREMENT = 'ab'.repeat(32);
const NUMBER = Buffer.alloc(32, 7).toString('base64');
const modes = ['hardware', 'none'] as const;
const HERE = '127.0.0.1';
const ELSEWHERE = '198.51.100.2';

describe('with a client of his own', () => {
  let bare: BareCas;
  let las: TestLas;
  let port: LaunchPort;
  let open: TLSSocket[];
  const listening = async () => {
    const identity = openIdentity(
      ...([bare.cas.store, bare.cas.keyring, { commonName: 'cas', names: [] }, Date.now()] as const),
    );
    port = createLaunchPort(bare.cas, await identity);
    believeBalancers(port.server, balancers);
    await new Promise<void>((resolve) => port.server.listen(0, HERE, resolve));
  };
  beforeEach(async () => {
    las = testLas();
    bare = bareCas([las.platform]);
    open = [];
    await listening();
  });
  afterEach(async () => {
    for (const socket of open) socket.destroy();
    await port.close();
  });

  /** A session that asks for a code, and the code of now. */
  async function session(mode: (typeof modes)[number], security = ''): Promise<{ code: string }> {
    const secret = new Secret({ size: 20 });
    const attestation = `{mode: ${mode}, tolerate: [debug-mode], one_time_password_shared_secret: ${secret.base32}}`;
    const admitted = mode === 'none' ? '' : `, mrenclaves: [${MEASUREMENT}]`;
    await bare.upload(
      `name: a\nversion: "0.3.12"\nsecurity: {attestation: ${attestation}${security}}\nservices: [{name: s, command: envcas${admitted}}]\n`,
    );
    return { code: new TOTP({ secret }).generate({ timestamp: bare.now }) };
  }

  interface Try {
    code: string;
    protocol?: string;
    source?: string;
    /** 64 hexadecimal digits. */
    process?: string;
    number?: string;
    /** When it has the answer: at once, or only after it has said so, or never. */
    leaving?: 'at once' | 'confirmed' | 'never';
  }
  /** @returns `granted`, or the code of the refusal */
  async function attempt(it: Try): Promise<string | undefined> {
    const { code, protocol = LAUNCH_PROTOCOL, source = HERE, process = '01'.repeat(32) } = it;
    const { port: number } = port.server.address() as AddressInfo;
    const at = source === HERE ? { host: HERE, port: number } : { socket: connectFrom(source, number) };
    const socket = connect({
      ...{ ...at, rejectUnauthorized: false },
      ALPNProtocols: [protocol],
    }).on('error', () => {});
    open.push(socket);
    await once(socket, 'secureConnect');
    const binding = { channel: channelBinding(socket), casKey: bare.cas.key, configId: 'a/s' };
    const measured = { measurement: MEASUREMENT, pid: 1, uid: 1, gid: 1, id: process, properties: [] };
    const data = reportData({ role: 'launcher', ...binding });
    const stream = frames(socket, 1 << 20);
    stream.write({
      ...{ session: 'a', service: 's', oneTimePassword: code, attempt: it.number ?? NUMBER },
      evidence: await signSoftwareEvidence(measured, data, las, bare.now),
    });
    const answer = (await stream.read(Date.now() + PATIENCE)) as {
      configuration?: object;
      refusal?: { code: string };
    };
    const ended = new Promise((resolve) => socket.once('close', resolve));
    // The CAS ends the connection once it has noted that.
    if (it.leaving === 'confirmed') stream.write({ arrived: true });
    else if (it.leaving !== 'never') socket.destroy();
    if (it.leaving !== 'never') await ended;
    return answer.configuration ? 'granted' : answer.refusal?.code;
  }
  const inTurn = async (...tries: Try[]) => {
    const outcomes: (string | undefined)[] = [];
    for (const each of tries) outcomes.push(await attempt(each));
    return outcomes;
  };
  const five = <Each>(each: Each) => Array<Each>(5).fill(each);
  const former = { protocol: FORMER_LAUNCH_PROTOCOL } as const;

  for (const mode of modes) {
    test(`five launches by one password (mode ${mode}): one`, async () => {
      const { code } = await session(mode);
      assert.deepEqual(await inTurn(...five<Try>({ code, leaving: 'confirmed' })), [
        'granted',
        ...Array(4).fill('OTP_USED'),
      ]);
    });

    for (const protocol of [LAUNCH_PROTOCOL, FORMER_LAUNCH_PROTOCOL])
      test(`five launches by who never says that he has the answer (mode ${mode}, ${protocol}): four`, async () => {
        const { code } = await session(mode);
        const outcomes = await inTurn(...five<Try>({ code, protocol }));
        assert.deepEqual(outcomes, [...Array(4).fill('granted'), 'OTP_USED']);
      });

    test(`a launch from another source, with the number (mode ${mode})`, async () => {
      const { code } = await session(mode);
      const there = { code, source: ELSEWHERE };
      const tries: Try[] = [{ code }, there, { ...there, ...former }, { code, leaving: 'confirmed' }, there];
      const used = 'OTP_USED';
      assert.deepEqual(await inTurn(...tries), ['granted', used, used, 'granted', used]);
    });

    test(`a launch with another number, which says that it has its answer (mode ${mode})`, async () => {
      const { code } = await session(mode);
      const other = { code, number: Buffer.alloc(32, 8).toString('base64'), leaving: 'confirmed' } as const;
      assert.deepEqual(await inTurn({ code }, other, { code }), ['granted', 'OTP_USED', 'granted']);
    });

    test(`a launch after ten seconds, by the protocol of 0.1.0 (mode ${mode})`, async () => {
      const { code } = await session(mode);
      assert.equal(await attempt({ code, ...former }), 'granted');
      bare.now += 9_999;
      assert.deepEqual(await inTurn({ code, ...former }), ['granted']);
      bare.now += 1;
      assert.deepEqual(await inTurn({ code, ...former }, { code }), ['OTP_USED', 'OTP_USED']);
    });
  }

  test('five launches at once, by a process that never says that it has its answer: four', async () => {
    const { code } = await session('hardware');
    const outcomes = await Promise.all(five<Try>({ code }).map(attempt));
    assert.deepEqual(outcomes.sort(), ['OTP_USED', ...Array(4).fill('granted')]);
  });

  test('a launch by another process of the same source, with the number', async () => {
    const { code } = await session('hardware');
    const process = '02'.repeat(32);
    const tries: Try[] = [{ code }, { code, process }, { code, process, ...former }, { code }];
    assert.deepEqual(await inTurn(...tries), ['granted', 'OTP_USED', 'OTP_USED', 'granted']);
  });

  test('a launch while the first has its answer and does not say so', async () => {
    const { code } = await session('hardware');
    const tries: Try[] = [{ code, leaving: 'never' }, { code, leaving: 'confirmed' }, { code }];
    assert.deepEqual(await inTurn(...tries), ['granted', 'granted', 'OTP_USED']);
  });

  test('a launch when the code is too old, and when the clock was set back to its time', async () => {
    const { code } = await session('hardware');
    await attempt({ code });
    bare.now += 90_000;
    assert.equal(await attempt({ code }), 'OTP_INVALID');
    bare.now -= 90_000;
    const tries: Try[] = [{ code }, { code }, { code }, { code }];
    assert.deepEqual(await inTurn(...tries), ['granted', 'granted', 'granted', 'OTP_USED']);
  });

  test('a launch after the answer has arrived, with a clock that was set back, and a CAS that was started anew', async () => {
    const { code } = await session('hardware');
    await attempt({ code, leaving: 'confirmed' });
    bare.now -= 20_000;
    await port.close();
    await listening();
    assert.deepEqual(await inTurn({ code }, { code, ...former }), ['OTP_USED', 'OTP_USED']);
  });

  test('a CAS that ends between its answer and what the launcher says of it loses nothing: it may come again, and no more', async () => {
    const { code } = await session('hardware');
    assert.equal(await attempt({ code, leaving: 'never' }), 'granted');
    for (const socket of open) socket.destroy();
    await port.close();
    await listening();
    assert.deepEqual(await inTurn({ code, leaving: 'confirmed' }, { code }), ['granted', 'OTP_USED']);
  });

  test('a store that is away when the answer has arrived ends no launch, and leaves what is bounded', async () => {
    const { code } = await session('hardware');
    const { complete } = bare.cas.store;
    bare.cas.store.complete = async () => {
      throw new Error('away');
    };
    assert.equal(await attempt({ code, leaving: 'confirmed' }), 'granted');
    bare.cas.store.complete = complete;
    assert.deepEqual(await inTurn({ code, leaving: 'confirmed' }, { code }), ['granted', 'OTP_USED']);
  });

  test('a launch by the same process after its answer has arrived, with the number (singleton_enclaves)', async () => {
    const { code } = await session('hardware', ', singleton_enclaves: true');
    assert.deepEqual(await inTurn({ code }, { code, leaving: 'confirmed' }, { code }), [
      ...['granted', 'granted', 'PROCESS_SEEN'],
    ]);
  });

  test('each is in the audit log, and one that is repeated says so', async () => {
    const { code } = await session('hardware');
    await inTurn({ code }, { code, leaving: 'confirmed' }, { code });
    const lines = await bare.cas.audit.lines(1, 100);
    const entries = lines.map((line) => JSON.parse(line.toString()));
    const released = entries.filter(({ operation }) => operation === 'service_released');
    assert.deepEqual(
      released.map(({ repetition }) => repetition),
      [undefined, 1],
    );
    assert.equal(entries.at(-1).code, 'OTP_USED');
  });
});

describe('with envcas', () => {
  let stack: Apart;
  before(async () => {
    stack = await startApart();
  });
  after(() => stack.stop());

  /** What the CAS keeps of launches that may come again. */
  const unfinished = async () => {
    const database = await openDatabase(`sqlite:${join(stack.directory, 'cas', 'cas.db')}`);
    const rows = await database.all('SELECT attempt FROM one_time_password');
    await database.close();
    return { of: rows.length, left: rows.filter(({ attempt }) => attempt !== null).length };
  };

  test('what it says of its answer arrives, though it is another program at once', async () => {
    const times = 8;
    const already = (await unfinished()).of;
    for (let time = 0; time < times; time++) {
      const secret = newSharedSecret();
      const id = await upload(stack, { program: '/bin/true', oneTimePassword: secret });
      const { status, stderr } = await launch(stack, `${id}@${codeFrom(secret)}`).finished;
      assert.equal(status, 0, stderr);
    }
    await until(async () => (await unfinished()).left === 0, 'all are complete');
    assert.equal((await unfinished()).of, already + times);
  });

  test('a connection that is cut before the answer has arrived costs no password: it comes again, and nobody after it', async (t) => {
    const secret = newSharedSecret();
    const id = await upload(stack, {
      command: ['-c', 'echo started'],
      oneTimePassword: secret,
      files: [{ to: join(stack.files, 'large'), content: 'x'.repeat(200_000) }],
    });
    const relay = await cutOnce(Number(stack.env.SCONE_CAS_ENCLAVE_PORT), 50_000);
    t.after(relay.close);
    const code = codeFrom(secret);
    const env = { SCONE_CAS_ENCLAVE_PORT: relay.port, SCONE_START_TIMEOUT: '60s', SCONE_LOG: 'INFO' };
    const { status, stdout, stderr } = await launch(stack, `${id}@${code}`, { env }).finished;
    assert.deepEqual({ status, stdout }, { status: 0, stdout: 'started\n' }, stderr);
    assert.match(stderr, /trying again/);
    assert.equal(relay.passed(), 2);
    assert.match((await launch(stack, `${id}@${code}`).finished).stderr, /Code: OTP_USED/);
  });
});

/** Passes on what comes, but cuts the first connection after so many bytes of what the server says. */
async function cutOnce(to: number, most: number) {
  let connections = 0;
  const { port, close } = await listen(
    createServer((client) => {
      const isFirst = ++connections === 1;
      const server = connectTcp(to, HERE).on('error', () => client.destroy());
      const end = () => {
        client.destroy();
        server.destroy();
      };
      let said = 0;
      client.on('close', end).pipe(server);
      server.on('close', end).on('data', (chunk: Buffer) => {
        said += chunk.length;
        if (isFirst && said > most) end();
        else client.write(chunk);
      });
    }),
  );
  return { port, close, passed: () => connections };
}
