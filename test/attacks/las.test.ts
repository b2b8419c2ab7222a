import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { connect, type Socket } from 'node:net';
import { basename, join } from 'node:path';
import { after, afterEach, before, describe, it, mock, type TestContext, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { appraise } from '../../src/attestation/appraise.ts';
import { verifySoftwareEvidence } from '../../src/attestation/software.ts';
import { errors, Failure } from '../../src/errors.ts';
import { openLasKey } from '../../src/las/key.ts';
import { observe } from '../../src/las/measure.ts';
import { serveLas } from '../../src/las/serve.ts';
import { frames } from '../../src/protocol/frame.ts';
import { challengeName, LAS_MESSAGE_LIMIT } from '../../src/protocol/las.ts';
import type { Order } from '../fixtures/las/speak.ts';
import { type Plan, runs } from '../fixtures/las/words.ts';
import { Host, type Puppet, sha256, undemanding, type Word } from '../las/host.ts';
import { executables, lacking, run, startServer } from '../support/stack.ts';
import { PATIENCE, until } from '../support/until.ts';

const host = new Host();
const { node, envcas } = host;
const sh = realpathSync('/bin/sh');
const cat = realpathSync('/bin/cat');
/** A small program whose file is old enough, when it is looked at, for the LAS to remember its measurement. */
const settled = host.path('settled');
const SETTLED = 1_000_000_000;
let settledAt = 0;

before(async () => {
  copyFileSync(cat, settled);
  utimesSync(settled, SETTLED, SETTLED);
  settledAt = Date.now();
  await host.start();
});
afterEach(() => host.clean());
after(() => host.close());

const newReportData = () => randomBytes(64).toString('base64');
const decode = (evidence: unknown) => verifySoftwareEvidence(String(evidence));
/** What Evidence says of the process, which the CAS does not look at. */
const processOf = (evidence: unknown) =>
  (
    JSON.parse(Buffer.from(String(evidence).split('.')[1] ?? '', 'base64url').toString()) as {
      process: { pid: number };
    }
  ).process;

/** Code of a refusal that the LAS has sent; what else it has sent, where that is none. */
function refusalOf(word: Word): unknown {
  const answer = (word.answer ?? {}) as { refusal?: { code: string } };
  return word.refused ?? answer.refusal?.code ?? word;
}

/** Has an honest client connect. */
async function hello(client: Puppet, socket = host.socket): Promise<Word> {
  client.tell(`hello ${socket}`);
  return client.hear();
}

async function ask(client: Puppet, reportData = newReportData()): Promise<Word> {
  client.tell(`ask ${reportData}`);
  return client.hear();
}

const changedOrFailed = /^(PROCESS_CHANGED|CHALLENGE_FAILED)$/;
const welcomed = { welcome: true };

async function evidenceFor(client: Puppet): Promise<string> {
  assert.deepEqual(await hello(client), welcomed);
  const { evidence } = await ask(client);
  assert.equal(typeof evidence, 'string');
  return String(evidence);
}

/** Starts a process that connects, leaves the socket to a child and becomes something else. */
function handOver(plan: Omit<Plan, 'socket' | 'reportData'>): Puppet {
  const whole: Plan = { socket: host.socket, reportData: newReportData(), ...plan };
  return host.puppet(['hand-over.ts', JSON.stringify(whole)]);
}

/** Code of the Failure that something throws. */
async function codeOf(action: () => unknown): Promise<string> {
  try {
    await action();
  } catch (error) {
    if (error instanceof Failure) return error.code;
    throw error;
  }
  return 'no failure';
}

const observePid = (pid: number) =>
  observe({ pid, uid: 0, gid: 0 }, undemanding, { user: 0, turn: async (work) => work() });

async function measurementOf(pid: number): Promise<string> {
  const observation = await observePid(pid);
  observation.close();
  return observation.process.measurement;
}

/** Starts a program that waits, and ends with the test. */
function idle(program: string, args: string[] = [], env: Record<string, string> = {}): Puppet {
  return host.puppet(args, { executable: program, raw: true, env });
}

/** A folder for links and a FIFO by which a shell learns of one. */
function newLink(target: string): { folder: string; target: string; fifo: string } {
  const folder = mkdtempSync(host.path('links-'));
  const fifo = join(folder, 'fifo');
  execFileSync('mkfifo', [fifo]);
  return { folder, target, fifo };
}

/** The pid belongs to a process that is not there any more; gives it to the one that is started. */
async function reuse(pid: number, start: () => Puppet): Promise<Puppet | undefined> {
  for (let attempt = 0; attempt < 20; attempt++) {
    writeFileSync(LAST_PID, String(pid - 1));
    const puppet = start();
    if (puppet.pid === pid) return puppet;
    await puppet.stop();
  }
  return undefined;
}

const LAST_PID = '/proc/sys/kernel/ns_last_pid';
const withReuse = {
  skip:
    lacking('SYS_ADMIN') ||
    (spawnSync('test', ['-w', LAST_PID]).status !== 0 && `pids cannot be chosen, by ${LAST_PID}`),
};

describe('a process that would have the LAS read for long', () => {
  const refusal = async (env: Record<string, string>) => {
    const client = host.puppet(['speak.ts'], { env });
    for (const order of [
      { connect: host.socket },
      { message: { version: 1 } },
      { read: true },
    ] satisfies Order[])
      client.tell(order);
    return JSON.stringify(await client.hear());
  };
  it('by a large environment is refused', async () => {
    const large = Object.fromEntries(
      Array.from({ length: 11 }, (_, at) => [`LARGE_${at}`, 'x'.repeat(100_000)]),
    );
    assert.match(await refusal(large), /its environ has more than 1048576 bytes/);
  });
  it('by many threads is refused', async () => {
    assert.match(await refusal({ UV_THREADPOOL_SIZE: '100' }), /more than 32 threads/);
  });
  it('is looked at when it is the turn of its user', async () => {
    let turns = 0;
    const { pid } = idle(cat);
    const turn = async <Result>(work: () => Result) => {
      turns++;
      return work();
    };
    const observation = await observe({ pid, uid: 0, gid: 0 }, undemanding, { user: 0, turn });
    const before = turns;
    await assert.rejects(observation.confirm('another'), { code: 'CHALLENGE_FAILED' });
    observation.close();
    assert.ok(before > 1 && turns === before + 1);
  });
  it('by many variables is refused', async () => {
    const many = Object.fromEntries(Array.from({ length: 4100 }, (_, at) => [`V${at}`, '']));
    assert.match(await refusal(many), /more than 4096 variables/);
  });
});

describe('a socket that outlives the program which connected it', () => {
  it('gives nothing to a child that keeps it while its connector has become envcas', async () => {
    const become = { program: envcas, args: [], env: await host.waiting() };
    const thief = handOver({ helloFirst: false, become, until: envcas });
    assert.equal(refusalOf(await thief.hear()), 'CHALLENGE_FAILED');
  });

  it('gives nothing where the challenge was answered before envcas was executed', async () => {
    const become = { program: envcas, args: [], env: await host.waiting() };
    const thief = handOver({ helloFirst: true, become, until: envcas });
    assert.equal(refusalOf(await thief.hear()), 'CHALLENGE_FAILED');
  });

  it('gives nothing where envcas is executed by a name that answers the challenge', async () => {
    const link = newLink(envcas);
    const script = `read -r next < "${link.fifo}"; exec "$next"`;
    const become = { program: sh, args: ['-c', script], env: await host.waiting() };
    const thief = handOver({ helloFirst: true, become, link });
    assert.equal(typeof (await thief.hear()).link, 'string');
    assert.match(String(refusalOf(await thief.hear())), changedOrFailed);
  });

  it('gives nothing where envcas has started a program, which executes envcas by such a name', async () => {
    const link = newLink(envcas);
    const cas = await host.falseCas();
    const program = join(link.folder, 'program');
    const settings = Object.entries(await host.waiting()).map(
      ([name, value]) => `export ${name}='${value}'\n`,
    );
    writeFileSync(program, `#!/bin/sh\n${settings.join('')}read -r next < "${link.fifo}"\nexec "$next"\n`, {
      mode: 0o755,
    });
    const become = { program: envcas, args: [], env: cas.env };
    const thief = handOver({ helloFirst: false, become, until: envcas, link });
    assert.equal(typeof (await thief.hear()).link, 'string');
    cas.grant(program);
    assert.match(String(refusalOf(await thief.hear())), changedOrFailed);
  });

  it('gives nothing where the same program is executed again, by such a name', async () => {
    const link = newLink(node);
    const script = `read -r next < "${link.fifo}"; exec "$next" -e 'process.stdin.resume()'`;
    const become = { program: sh, args: ['-c', script], env: {} };
    const thief = handOver({ helloFirst: true, become, link });
    assert.equal(typeof (await thief.hear()).link, 'string');
    assert.match(String(refusalOf(await thief.hear())), changedOrFailed);
  });
});

describe('a pid that belongs to another process by now', withReuse, () => {
  it('is not vouched for to a child that keeps the socket of the former one', async (t) => {
    const thief = handOver({ helloFirst: false, until: envcas });
    await thief.exited;
    const env = await host.waiting();
    const honest = await reuse(thief.pid, () => idle(envcas, [], env));
    if (!honest) return t.skip('another process has got the pid');
    assert.equal(refusalOf(await thief.hear()), 'CHALLENGE_FAILED');
  });

  it('is not vouched for where it changed hands after the process was looked at', async (t) => {
    const { folder, target } = newLink(node);
    const thief = handOver({ helloFirst: true, link: { folder, target } });
    const { link } = await thief.hear();
    await thief.exited;
    const honest = await reuse(thief.pid, () => idle(String(link), ['-e', 'process.stdin.resume()']));
    if (!honest) return t.skip('another process has got the pid');
    assert.match(String(refusalOf(await thief.hear())), changedOrFailed);
  });
});

describe('a process that executes something else after it was looked at', () => {
  const waits = `read -r next; exec env "$next" -c 'echo "{}"; read -r end'`;

  it('is confirmed while it is the same', async () => {
    const puppet = idle(sh, ['-c', waits]);
    const observation = await observePid(puppet.pid);
    observation.confirm(basename(sh));
    observation.close();
  });

  it('is noticed though it is the same executable again, by the right name', async () => {
    const again = join(mkdtempSync(host.path('again-')), 'expected');
    symlinkSync(sh, again);
    const puppet = idle(sh, ['-c', waits]);
    const observation = await observePid(puppet.pid);
    puppet.tell(again);
    await puppet.hear();
    assert.equal(await codeOf(() => observation.confirm('expected')), 'PROCESS_CHANGED');
    observation.close();
  });

  it('is noticed by its executable', async () => {
    const puppet = idle(sh, ['-c', `read -r next; exec "$next"`]);
    const observation = await observePid(puppet.pid);
    const other = join(mkdtempSync(host.path('other-')), 'expected');
    symlinkSync(cat, other);
    puppet.tell(other);
    await until(() => runs(puppet.pid, cat, 'expected'), 'another program');
    assert.equal(await codeOf(() => observation.confirm('expected')), 'PROCESS_CHANGED');
    observation.close();
  });

  it('is noticed when it has ended', async () => {
    const puppet = idle(cat);
    const observation = await observePid(puppet.pid);
    await puppet.stop();
    assert.equal(await codeOf(() => observation.confirm('cat')), 'PROCESS_UNREADABLE');
    observation.close();
  });
});

describe('an executable file that is new to the LAS', () => {
  it('has nobody wait for another user’s turns, who came first', async () => {
    const program = host.path('new');
    copyFileSync(cat, program);
    await setTimeout(2500);
    const { pid } = idle(program);
    const peer = { pid, uid: 0, gid: 0 };
    let turns = 0;
    // After the first look nothing more is done for him.
    const turn = <Result>(work: () => Result) =>
      turns++ === 0 ? Promise.resolve(work()) : new Promise<Result>(() => {});
    void observe(peer, undemanding, { user: 61_002, turn });
    await until(() => turns === 2, 'his is being hashed');
    assert.equal(await measurementOf(pid), sha256(cat));
  });
});

describe('an executable file that is replaced', () => {
  it('is measured as the process runs it, whatever its path names by now', async () => {
    const program = host.path('program');
    copyFileSync(node, program);
    const clients = [1, 2].map(() => host.puppet(['ask.ts'], { executable: program }));
    // They have executed it once they answer.
    for (const client of clients)
      assert.match(String((await hello(client, 'no/socket')).refused), /ENOENT|reach/);
    const [first, second] = clients as [Puppet, Puppet];
    const other = host.path('other');
    copyFileSync(envcas, other);
    renameSync(other, program);
    assert.equal((await decode(await evidenceFor(first))).measurement, sha256(node));
    rmSync(program);
    assert.equal((await decode(await evidenceFor(second))).measurement, sha256(node));
  });

  it('is measured anew when its content was changed in place and its time of modification set back', async () => {
    await setTimeout(Math.max(0, settledAt + 2500 - Date.now()));
    const [before, first] = [statSync(settled), sha256(settled)];
    for (const attempt of ['measured', 'remembered']) {
      const puppet = idle(settled);
      assert.equal(await measurementOf(puppet.pid), first, attempt);
      await puppet.stop();
    }
    const file = openSync(settled, 'r+');
    const last = Buffer.alloc(1);
    readSync(file, last, 0, 1, before.size - 1);
    writeSync(file, Buffer.of((last[0] ?? 0) ^ 0xff), 0, 1, before.size - 1);
    closeSync(file);
    utimesSync(settled, SETTLED, SETTLED);
    const now = statSync(settled);
    assert.deepEqual([now.ino, now.size, now.mtimeMs], [before.ino, before.size, before.mtimeMs]);
    const second = sha256(settled);
    assert.notEqual(second, first);
    assert.equal(await measurementOf(idle(settled).pid), second);
  });

  it('is noticed when it is changed between the two looks', async () => {
    const program = host.path('changing');
    copyFileSync(cat, program);
    const puppet = idle(program);
    const observation = await observePid(puppet.pid);
    chmodSync(program, 0o700);
    assert.equal(await codeOf(() => observation.confirm('changing')), 'PROCESS_CHANGED');
    observation.close();
  });
});

describe('a process that sees other files than the LAS', () => {
  for (const [what, option] of [
    ['a mount namespace', '--mount'],
    ['a user namespace', '--user'],
  ] as const)
    it(`is refused for ${what} of its own`, async (t) => {
      if (spawnSync('unshare', [option, 'true']).status !== 0)
        return t.skip(`unshare ${option} is not permitted here`);
      const wrapper = [option, node, '--disable-warning=ExperimentalWarning', host.fixture('ask.ts')];
      const client = host.puppet(wrapper, { executable: 'unshare', raw: true });
      assert.deepEqual(await hello(client), { refused: 'PROCESS_ELSEWHERE' });
    });
});

describe('an executable file that would take long to hash', () => {
  it('is refused', async () => {
    const program = host.path('large');
    copyFileSync(cat, program);
    truncateSync(program, 2 ** 40);
    assert.equal(await codeOf(() => measurementOf(idle(program).pid)), 'EXECUTABLE_TOO_LARGE');
  });
});

describe('a process that has code of others loaded into it by its environment', () => {
  const library = /\S+\/libm\.so\S*/.exec(readFileSync('/proc/self/maps', 'utf8'))?.[0] ?? '';
  const variables = {
    LD_PRELOAD: library,
    LD_AUDIT: library,
    LD_LIBRARY_PATH: '/nonexistent',
    OPENSSL_CONF: '/dev/null',
    NODE_COMPILE_CACHE: host.path('compile-cache'),
  };
  for (const [name, value] of Object.entries(variables))
    it(`is refused for ${name}`, async () => {
      const client = host.puppet(['ask.ts'], { env: { [name]: value } });
      assert.deepEqual(await hello(client), { refused: 'PROCESS_PRELOADED' });
    });

  it('is vouched for without such a variable', async () => {
    const client = host.puppet(['ask.ts'], { env: { LANG: 'C', PRELOAD_LD: library } });
    await evidenceFor(client);
  });
});

describe('options by which Node loads code', () => {
  const { scone } = executables();
  const evil = host.path('evil.cjs');
  const mark = host.path('evil-has-run');
  writeFileSync(evil, `require('node:fs').writeFileSync(${JSON.stringify(mark)}, '')`);
  const hasRun = () => {
    const has = existsSync(mark);
    rmSync(mark, { force: true });
    return has;
  };

  it('have no effect on envcas and scone from the environment', () => {
    const env = { NODE_OPTIONS: `--require ${JSON.stringify(evil)}` };
    assert.equal(run(node, ['-e', '0'], env).status, 0);
    assert.equal(hasRun(), true, 'node does take this option');
    assert.equal(run(envcas, [], { ...env, SCONE_HASH: '1' }).stdout.trim(), sha256(envcas));
    assert.equal(hasRun(), false);
    assert.equal(run(scone, ['--version'], env).status, 0);
    assert.equal(hasRun(), false);
  });

  it('have no effect on envcas and scone from the command line', () => {
    for (const args of [['--require', evil], [`--require=${evil}`], [`--import=${evil}`]]) {
      assert.equal(run(node, [...args, '-e', '0'], {}).status, 0);
      assert.equal(hasRun(), true, `node does take ${args[0]}`);
      assert.equal(run(envcas, args, { SCONE_HASH: '1' }).stdout.trim(), sha256(envcas));
      run(scone, [...args, '--version'], {});
      assert.equal(hasRun(), false);
    }
    const option = `--node-options=--require=${evil}`;
    assert.equal(run(envcas, [option], { SCONE_HASH: '1' }).stdout.trim(), sha256(envcas));
    run(scone, [option, '--version'], {});
    assert.equal(hasRun(), false);
  });
});

describe('a process that is traced', () => {
  const main = (pid: number) => pid;
  const other = (pid: number) =>
    Number(readdirSync(`/proc/${pid}/task`).find((thread) => Number(thread) !== pid));

  async function attach(t: TestContext, thread: number): Promise<Puppet | undefined> {
    const tracer = host.puppet(['trace.ts', String(thread)]);
    if ((await tracer.hear()).attached) return tracer;
    t.skip('the kernel lets nobody trace a process that is not a child (Yama)');
    return undefined;
  }

  for (const [which, thread] of [
    ['its main thread', main],
    ['another thread', other],
  ] as const) {
    it(`is refused when ${which} is traced as it connects, and not any more afterwards`, async (t) => {
      const client = host.puppet(['ask.ts']);
      await hello(client, 'no/socket');
      const tracer = await attach(t, thread(client.pid));
      if (!tracer) return;
      assert.deepEqual(await hello(client), { refused: 'PROCESS_TRACED' });
      await tracer.stop();
      await evidenceFor(client);
    });

    it(`is refused when ${which} is traced after the first look`, async (t) => {
      const client = host.puppet(['ask.ts']);
      assert.deepEqual(await hello(client), welcomed);
      const tracer = await attach(t, thread(client.pid));
      if (!tracer) return;
      assert.deepEqual(await ask(client), { refused: 'PROCESS_TRACED' });
    });
  }
});

describe('a script', () => {
  it('is measured as its interpreter, even under the name of envcas', async () => {
    const client = host.puppet(['ask.ts'], { argv0: envcas });
    const claims = await decode(await evidenceFor(client));
    assert.equal(claims.measurement, sha256(node));
    assert.notEqual(claims.measurement, sha256(envcas));
    const refusals = (measurement: string) =>
      appraise(
        {
          mode: 'hardware',
          tolerate: ['debug-mode'],
          require: [],
          ignoreAdvisories: [],
          variants: [{ measurements: [measurement] }],
          platforms: [],
          trustedPlatforms: [host.key.platform],
        },
        claims,
      ).map(({ code }) => code);
    assert.deepEqual(refusals(sha256(envcas)), ['MEASUREMENT_UNEXPECTED']);
    assert.deepEqual(refusals(sha256(node)), []);
  });
});

describe('a socket that somebody else forwards', () => {
  async function relay(kind: string): Promise<{ socket: string; puppet: Puppet }> {
    const socket = host.path(`${kind}.sock`);
    const puppet = host.puppet(['relay.ts', socket, host.socket, kind]);
    assert.deepEqual(await puppet.hear(), { listening: true });
    return { socket, puppet };
  }

  it('gives the asker nothing', async () => {
    const { socket } = await relay('plain');
    const client = host.puppet(['ask.ts']);
    assert.deepEqual(await hello(client, socket), welcomed);
    assert.deepEqual(await ask(client), { refused: 'CHALLENGE_FAILED' });
  });

  it('gives Evidence about the one who forwards, where he answers the challenge', async () => {
    const { socket, puppet } = await relay('named');
    const client = host.puppet(['ask.ts']);
    assert.deepEqual(await hello(client, socket), welcomed);
    const { evidence } = await ask(client);
    assert.equal(processOf(evidence).pid, puppet.pid);
  });

  it('gives a false LAS, which relays the challenge to envcas, nothing over data of its own', async () => {
    const falseLas = host.path('false-las.sock');
    const cas = await host.falseCas();
    const become = { program: envcas, args: [], env: { ...cas.env, SCONE_LAS_ADDR: falseLas } };
    const thief = handOver({ helloFirst: false, become, until: envcas, falseLas });
    assert.deepEqual(await thief.hear(), { answered: true }, 'envcas answers, for its own report data');
    assert.equal(refusalOf(await thief.hear()), 'CHALLENGE_FAILED');
  });
});

test('refusals of one user are told of some times, and then how many there were', async () => {
  const socket = host.path('refusing.sock');
  const told: object[] = [];
  const log = { info() {}, warn: (fields: object) => void told.push(fields) };
  const demands = { require: ['secure-execution' as const], containers: false };
  const las = await serveLas({ socket, key: host.key, casKeys: new Map(), demands, log });
  try {
    for (let many = 0; many < 50; many++) {
      const client = connect({ path: socket });
      frames(client, LAS_MESSAGE_LIMIT).write({ version: 1 });
      client.resume();
      await once(client, 'close');
    }
    assert.ok(told.length > 8 && told.length < 40, `${told.length}`);
  } finally {
    await las.close();
  }
});

describe('a client that does not keep to the protocol', () => {
  const connected = async (): Promise<Socket> => {
    const socket = connect({ path: host.socket });
    socket.on('error', () => {});
    await once(socket, 'connect');
    return socket;
  };

  /** A client that has said hello. */
  async function speaker(
    ...first: Order[]
  ): Promise<{ say(...orders: Order[]): Promise<Word>; nonce: Buffer }> {
    const puppet = host.puppet(['speak.ts']);
    const speak = (...orders: Order[]) => {
      for (const order of [...orders, { read: true } as const]) puppet.tell(order);
      return puppet.hear();
    };
    const { answer } = await speak({ connect: host.socket }, { message: { version: 1 } }, ...first);
    const { nonce } = answer as { nonce: string };
    return { say: speak, nonce: Buffer.from(nonce, 'base64') };
  }

  const answerTo = (nonce: Buffer, reportData: Buffer): Order[] => [
    { name: challengeName(nonce, reportData) },
    { message: { reportData: reportData.toString('base64') } },
  ];

  /** The LAS serves others. */
  afterEach(async () => {
    await evidenceFor(host.puppet(['ask.ts']));
  });

  it('has one Evidence for each connection', async () => {
    const { say, nonce } = await speaker();
    const first = (await say(...answerTo(nonce, randomBytes(64)))).answer as { evidence: string };
    assert.equal(typeof first.evidence, 'string');
    const second = await say(...answerTo(nonce, randomBytes(64)));
    assert.equal(typeof second.closed, 'string', JSON.stringify(second));
  });

  it('cannot ask before it knows the challenge', async () => {
    const { say } = await speaker({ message: { reportData: newReportData() } });
    assert.equal(refusalOf(await say()), 'CHALLENGE_FAILED');
  });

  it('is refused for a second greeting', async () => {
    const { say } = await speaker();
    assert.equal(refusalOf(await say({ message: { version: 1 } })), 'REQUEST_INVALID');
  });

  it('is refused for another version, and for fields that are not declared', async () => {
    for (const message of [{ version: 2 }, { version: 1, pid: 1 }, [], null, 'hello', 1]) {
      const socket = await connected();
      const channel = frames(socket, LAS_MESSAGE_LIMIT);
      channel.write(message);
      const answer = (await channel.read(Date.now() + PATIENCE)) as Word;
      assert.equal(refusalOf({ answer }), 'REQUEST_INVALID', JSON.stringify(message));
    }
  });

  for (const [what, length] of [
    ['no', 0],
    ['too few', 63],
    ['too many', 65],
  ] as const)
    it(`is refused for ${what} report data`, async () => {
      const { say, nonce } = await speaker();
      assert.equal(refusalOf(await say(...answerTo(nonce, Buffer.alloc(length)))), 'REQUEST_INVALID');
    });

  for (const [what, bytes] of [
    ['garbage', Buffer.from('GET / HTTP/1.1\r\nHost: las\r\n\r\n')],
    ['what is not JSON', Buffer.concat([Buffer.of(0, 0, 0, 4), Buffer.from('{"a"')])],
    ['an empty message', Buffer.alloc(4)],
    ['a message of 1 GB', Buffer.of(0x40, 0, 0, 0)],
  ] as const)
    it(`is left when it sends ${what}`, async () => {
      const socket = await connected();
      socket.write(bytes);
      const answers = await socket.toArray();
      assert.deepEqual(answers, []);
    });

  it('is left when it keeps silent, or stops in the middle of a message', async () => {
    mock.timers.enable({ apis: ['setTimeout', 'Date'], now: Date.now() });
    try {
      const sockets = [await connected(), await connected()];
      sockets[1]?.write(Buffer.of(0, 0, 0, 9, 0x7b));
      const closed = sockets.map((socket) => once(socket.resume(), 'close'));
      // The LAS takes connections in turn: once a later one is served, these wait for their deadlines.
      const channel = frames(await connected(), LAS_MESSAGE_LIMIT);
      channel.write({});
      await channel.read(Date.now() + PATIENCE);
      mock.timers.tick(30_000);
      await Promise.all(closed);
    } finally {
      mock.timers.reset();
    }
  });
});

describe('the socket and the key of a LAS', () => {
  const log = { info() {}, warn() {} };
  /** Is to fail; what does start is ended. */
  const serve = async (socket: string) =>
    (await serveLas({ socket, key: host.key, casKeys: new Map(), demands: undemanding, log })).close();

  it('are not taken from a LAS that is there', async () => {
    assert.equal(await codeOf(() => serve(host.socket)), 'ADDRESS_IN_USE');
    await evidenceFor(host.puppet(['ask.ts']));
  });

  it('are taken over from one that was killed, and serve every user', async () => {
    const { scone } = executables();
    const [directory, socket] = [host.path('second'), host.path('second.sock')];
    const args = ['las', 'serve', '--dir', directory, '--socket', socket];
    const ready = /LAS key \(platform\): (\w+)/;
    const options = { env: { PATH: process.env.PATH ?? '' } };
    const killed = await startServer(scone, args, ready, options);
    await killed.stop('SIGKILL');
    assert.equal(statSync(socket).isSocket(), true);
    linkSync(socket, host.path('as-stale.sock'));
    await serve(host.path('as-stale.sock'));
    assert.equal(statSync(join(directory, 'las.key')).mode & 0o777, 0o600);
    const server = await startServer(scone, args, ready, options);
    try {
      assert.equal(statSync(socket).mode & 0o666, 0o666);
      const client = host.puppet(['ask.ts']);
      assert.deepEqual(await hello(client, socket), welcomed);
      const claims = await decode((await ask(client)).evidence);
      assert.deepEqual([claims.platform, claims.platform], [killed.match[1], server.match[1]]);
      const { status, stderr } = run(scone, args, options.env);
      assert.equal(status, errors.ADDRESS_IN_USE.exit);
      assert.match(stderr, /ADDRESS_IN_USE/);
    } finally {
      await server.stop();
    }
  });

  it('are refused where the path is too long', async () => {
    assert.equal(await codeOf(() => serve(host.path('x'.repeat(108)))), 'STATE_UNUSABLE');
  });

  it('do not cost a file that is no socket', async () => {
    const file = host.path('file');
    writeFileSync(file, 'of great value');
    assert.match(await codeOf(() => serve(file)), /^(ADDRESS_IN_USE|STATE_UNUSABLE)$/);
    assert.equal(readFileSync(file, 'utf8'), 'of great value');
  });

  for (const mode of [0o640, 0o604, 0o620])
    it(`are refused where others have the key file with mode ${mode.toString(8)}`, async () => {
      const path = host.path(`key-${mode}`);
      openLasKey(path);
      chmodSync(path, mode);
      assert.equal(await codeOf(() => openLasKey(path)), 'STATE_UNUSABLE');
    });
});
