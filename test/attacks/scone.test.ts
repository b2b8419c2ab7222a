import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { formatKeyHash } from '../../src/policy/key-hash.ts';
import { printable } from '../../src/protocol/refusal.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { executables, missing, run } from '../support/stack.ts';
import { type EvilCas, evilCas } from './evil-cas.ts';
import { ATTACKER } from './host.ts';

/** What a CAS, or another user of the host, has the `scone` of somebody do. */
const { scone } = executables();
const isRoot = process.getuid?.() === 0;
const notRoot = isRoot ? false : 'only root can make files of several users';

let folder: string;
let cas: EvilCas | undefined;
const file = (name: string) => join(folder, name);
const env = () => ({ PATH: process.env.PATH ?? '', HOME: folder });
const command = (...args: string[]) => run(scone, args, env());
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => cas?.stop());

/** A clear screen, a title, an 8-bit control, a delete, a text that turns round, and what is not seen. */
const HOSTILE = '\x1b[2J\x1b]0;title\x07\u009b31m\x7f\u202egpj\u2066\u200b\ufeff\u{e0041}\rover';
const HASH = 'ab'.repeat(32);

describe('a CAS sends what moves a terminal', { skip: missing('script') }, () => {
  const text = `name: s\n# ${HOSTILE}\n`;
  const session = { session: text, hash: HASH, creator: null };
  const onTerminal = async (line: string) => {
    // What a terminal does to ends of lines is no part of it.
    const { stdout } = await (cas as EvilCas).sh(`script -qec '${line}' /dev/null`);
    return stdout.replaceAll('\r\n', '\n');
  };
  /** Whatever is not seen but ends of lines; colours of our own warnings are let through. */
  const unseen = (shown: string) =>
    shown.replaceAll(/\x1b\[\d+m/g, '').match(/[^\P{C}\n]|\p{Default_Ignorable_Code_Point}/gu) ?? [];

  test('in a session that is read: it is shown escaped, and a pipe is given the bytes', async () => {
    cas = await evilCas(folder, () => session);
    const shown = await onTerminal('"$SCONE" session read s $THERE');
    assert.deepEqual(unseen(shown), []);
    assert.ok(shown.includes('\\u001b[2J') && shown.includes('\\u202egpj\\u2066'), shown);
    assert.equal((await cas.scone('session', 'read', 's')).stdout, text);
    for (const to of ['/dev/stdout', '/dev/tty', '/dev/fd/1'])
      assert.deepEqual(unseen(await onTerminal(`"$SCONE" session read s $THERE -o ${to}`)), [], to);
    const inJson = await onTerminal('"$SCONE" session read s --json $THERE 2>/dev/null');
    assert.deepEqual(unseen(inJson), []);
    assert.deepEqual(JSON.parse(inJson), session);
  });

  test('in names, numbers, configurations and errors', async () => {
    cas = await evilCas(folder, ({ pathname }, response) => {
      if (pathname === '/v1/sessions') return { sessions: [HOSTILE], more: false };
      if (pathname === '/v1/owner-configuration')
        return { version: 1, configuration: { [HOSTILE]: HOSTILE } };
      response.statusCode = 403;
      return { msg: [HOSTILE], code: 'ACCESS_DENIED', hint: HOSTILE };
    });
    for (const line of ['session list', 'session list --json', 'cas show-config', 'otp show s/s'])
      for (const json of ['', ' --json'])
        assert.deepEqual(unseen(await onTerminal(`"$SCONE" ${line}${json} $THERE`)), [], line + json);
  });
});

test('text that reads otherwise than it is, or is not seen, is not taken for printable', () => {
  const points = [0x61c, 0x34f, 0x115f, 0x3164, 0xfe0f, 0xe0100, 0xe000, 0x378, 0xffff];
  const ranges = [
    ...[0x200b, 0x202a, 0x2060, 0x2066].flatMap((from) => [0, 1, 2, 3, 4].map((more) => from + more)),
    ...[0xfeff, 0xad, 0x180e, 0xe0001, 0xe0041, 0x85, 0x2028, 0x2029],
  ];
  for (const point of [...points, ...ranges])
    assert.equal(printable(`a${String.fromCodePoint(point)}b`), 'a\ufffdb', point.toString(16));
  assert.equal(printable('schön 漢字 😀 עברית'), 'schön 漢字 😀 עברית');
});

describe('a CAS answers without an end', () => {
  test('by more names than an answer has: none is taken', async () => {
    const sessions = Array.from({ length: 200_000 }, (_, at) => `s${String(at).padStart(6, '0')}`);
    cas = await evilCas(folder, () => ({ sessions, more: false }));
    const { status, stderr } = await cas.scone('session', 'list');
    assert.match(stderr, /Code: CAS_PROTOCOL/);
    assert.equal(status, 76);
  });

  test('by messages of an error, and by levels of what it shows', async () => {
    const deep = `${'['.repeat(500_000)}${']'.repeat(500_000)}`;
    cas = await evilCas(folder, ({ pathname }, response) => {
      if (pathname === '/v1/owner-configuration') {
        response.end(`{"version":1,"configuration":${deep}}`);
        return undefined;
      }
      response.statusCode = 403;
      return { msg: Array(200_000).fill('no'), code: 'ACCESS_DENIED' };
    });
    for (const words of ['session read s', 'cas show-config', 'cas show-config --json'])
      assert.match((await cas.scone(...words.split(' '))).stderr, /CAS_PROTOCOL/, words);
  });

  test('by names that begin anew', async () => {
    let asked = 0;
    cas = await evilCas(folder, () => ({ sessions: [`s${asked++ % 2}`, 's5'], more: asked < 1000 }));
    assert.match((await cas.scone('session', 'list')).stderr, /a list that does not go on/);
    assert.equal(asked, 2);
  });

  const entry = (sequence: number) =>
    JSON.stringify({
      ...{ sequence, time: '2026-01-01T00:00:00.000Z', operation: 'session_read', more: 'x'.repeat(1000) },
      ...{ predecessor: '0'.repeat(128), signature: '0'.repeat(128) },
    });
  const head = (size: number) => ({
    head: { cas: HASH, size, root: HASH, time: '2026-01-01T00:00:00.000Z', signature: '0'.repeat(128) },
    key: 'none',
  });
  /** A log whose head says how long it is, and which is given as it is asked for and beyond. */
  const log = (size: number, lines: (first: number, limit: number) => string[]) => {
    const asked: number[] = [];
    return {
      asked,
      answer: ({ pathname, searchParams }: URL) => {
        if (pathname.endsWith('/head')) return head(size);
        const first = Number(searchParams.get('first'));
        asked.push(first);
        return { lines: asked.length > 100 ? [] : lines(first, Number(searchParams.get('limit'))) };
      },
    };
  };
  const numbered = (first: number, count: number) =>
    Array.from({ length: count }, (_, at) => entry(first + at));

  test('by an audit log that is longer than it says: it is read to where it was to end', async () => {
    const { asked, answer } = log(2500, (first) =>
      numbered(first, 1000).slice(0, first === 2001 ? 500 : 1000),
    );
    cas = await evilCas(folder, answer);
    const { status, stdout, stderr } = await cas.scone('cas', 'read-audit-log');
    assert.equal(status, 0, stderr);
    assert.deepEqual(asked, [1, 1001, 2001]);
    assert.equal(stdout.trimEnd().split('\n').length, 2500);
    assert.deepEqual(JSON.parse((await cas.scone('cas', 'read-audit-log', '--json')).stdout).length, 2500);
  });

  test('by an audit log that repeats itself', async () => {
    const { asked, answer } = log(1_000_000, () => numbered(1, 1000));
    cas = await evilCas(folder, answer);
    assert.match((await cas.scone('cas', 'read-audit-log')).stderr, /Code: CAS_PROTOCOL/);
    assert.deepEqual(asked, [1, 1001]);
  });

  test('by an audit log without an end: what comes is printed, and not kept', async () => {
    const { asked, answer } = log(Number.MAX_SAFE_INTEGER, (first) => numbered(first, 1000));
    cas = await evilCas(folder, answer);
    // Nothing more comes once somebody has read enough.
    const { status, stdout } = await cas.sh('"$SCONE" cas read-audit-log $THERE | head -n 1500; echo end');
    assert.equal(status, 0);
    assert.equal(stdout.trimEnd().split('\n').length, 1501);
    assert.ok(asked.length < 20, `asked ${asked.length} times`);
  });
});

describe('a file without an end', () => {
  for (const args of [
    'session create /dev/zero',
    'session check --name x /dev/zero',
    `cas verify-audit-log -c ${formatKeyHash(Buffer.alloc(32, 5))} /dev/zero`,
    'cas restore --dir STORE /dev/zero',
    'cert show-key-hash /dev/zero',
    '@/dev/zero',
  ])
    test(`is not read to its end: scone ${args}`, () => {
      const words = args.replace('STORE', file('store')).split(' ');
      const { stderr } = run('timeout', ['120', scone, ...words], env());
      assert.match(stderr, /Code: (USAGE|FILE_INVALID|BACKUP_INVALID|AUDIT_LOG_DAMAGED)/);
    });
});

test('what the shell puts together is read, and written, as files are', { skip: missing('bash') }, () => {
  const session = 'name: piped\nversion: "0.3"\n';
  const bash = (line: string) => run('bash', ['-c', line], { ...env(), SCONE: scone, SESSION: session });
  for (const [line, expected] of [
    ['"$SCONE" session check <(printf %s "$SESSION")', session],
    ['printf %s "$SESSION" | "$SCONE" session check /dev/stdin', session],
    ['printf %s "$SESSION" | "$SCONE" session check - -o /dev/stdout', session],
    ['printf %s "$SESSION" | "$SCONE" session check - -o /dev/stdout | cat', session],
    ['printf %s "$SESSION" | "$SCONE" session check - -o /dev/null', ''],
    ['printf %s "$SESSION" | "$SCONE" session check - -o >(cat); wait $!', session],
    [
      'mkfifo ~/p; printf %s "$SESSION" > ~/p & "$SCONE" session check ~/p; wait; cat ~/p & printf %s "$SESSION" | "$SCONE" session check - -o ~/p; wait',
      session + session,
    ],
    [
      'printf %s "$SESSION" > ~/s; ln -s s ~/l; "$SCONE" session check ~/l -o ~/m; ln -s m ~/n; "$SCONE" session check ~/l -o ~/n; test -h ~/n && cat ~/m',
      session,
    ],
  ] as const) {
    const { stdout, stderr } = bash(line);
    assert.deepEqual([stdout, stderr], [expected, ''], line);
  }
});

describe('the state of scone', () => {
  const state = () => join(folder, '.cas', 'config.json');
  const self = () => command('self', 'show-key-hash');
  const list = () => command('cas', 'list');
  beforeEach(() => mkdirSync(join(folder, '.cas'), { mode: 0o700 }));

  for (const name of ['config.json', 'config.json.lock'])
    test(`is no pipe that holds it up: ${name}`, () => {
      assert.equal(run('mkfifo', ['-m', '600', join(folder, '.cas', name)], env()).status, 0);
      const { status, stderr } = run('timeout', ['120', scone, 'self', 'show-key-hash'], env());
      assert.equal(status, 74, stderr);
      assert.match(stderr, /it is not a regular file[\s\S]*Code: STATE_UNUSABLE/);
    });

  test('is in no folder in which others could replace it', () => {
    assert.equal(self().status, 0);
    chmodSync(join(folder, '.cas'), 0o777);
    for (const { status, stderr } of [self(), list()]) {
      assert.equal(status, 74, stderr);
      assert.match(stderr, /others may write to it/);
    }
    // There names stay with whom files belong to.
    chmodSync(join(folder, '.cas'), 0o1777);
    assert.equal(list().status, 0);
  });

  test('is not that of another user, nor in a folder of his', { skip: notRoot }, () => {
    assert.equal(self().status, 0);
    for (const path of [state(), `${state()}.lock`, join(folder, '.cas')]) {
      chownSync(path, ATTACKER, ATTACKER);
      const { status, stderr } = path.endsWith('.lock') ? command('cas', 'set-default', 'x') : list();
      assert.equal(status, 74, stderr);
      assert.match(stderr, new RegExp(`it belongs to user ${ATTACKER}`));
      chownSync(path, 0, 0);
    }
    assert.equal(list().status, 0);
  });
});

describe('what -o names', () => {
  const SCHEMA = /^\{\n/;
  const write = (path: string) => command('session', 'schema', '-o', path);
  const refused = (path: string, why: RegExp) => {
    const { status, stdout, stderr } = write(path);
    assert.deepEqual([status, stdout], [73, ''], stderr);
    assert.match(stderr, /Code: OUTPUT_UNWRITABLE/);
    assert.match(stderr, why);
  };
  /** A folder as /tmp is. */
  const shared = () => {
    const path = file('shared');
    mkdirSync(path);
    chmodSync(path, 0o1777);
    return path;
  };

  test('is a file of its own: private where it is new, and whole in the place of one that was there', () => {
    assert.equal(write(file('new')).status, 0);
    assert.match(readFileSync(file('new'), 'utf8'), SCHEMA);
    assert.equal(statSync(file('new')).mode & 0o777, 0o600);
    writeFileSync(file('old'), 'x'.repeat(1_000_000), { mode: 0o644 });
    const before = statSync(file('old'));
    assert.equal(write(file('old')).status, 0);
    const { mode, ino } = statSync(file('old'));
    assert.deepEqual([mode & 0o777, ino === before.ino], [0o644, false]);
    assert.match(readFileSync(file('old'), 'utf8'), SCHEMA);
    assert.deepEqual(
      readdirSync(folder).filter((name) => name.startsWith('.scone')),
      [],
    );
  });

  test('stays as it is where the command fails', () => {
    writeFileSync(file('old'), 'old');
    assert.notEqual(command('session', 'check', file('none'), '-o', file('old')).status, 0);
    assert.equal(readFileSync(file('old'), 'utf8'), 'old');
  });

  test('is no link in a folder that others may write to', () => {
    const path = join(shared(), 'link');
    symlinkSync(file('victim'), path);
    refused(path, /symbolic link in a folder that others may write to/);
    assert.equal(existsSync(file('victim')), false);
  });

  test('is in no folder of another user that everybody may write to', { skip: notRoot }, () => {
    const path = file('open');
    mkdirSync(path);
    const give = (owner: number, mode: number) => {
      chownSync(path, owner, owner);
      chmodSync(path, mode);
    };
    give(ATTACKER, 0o777);
    refused(join(path, 'new'), new RegExp(`in a folder of user ${ATTACKER} that others may write to`));
    // What is put there beforehand would have what is printed be for everybody.
    writeFileSync(join(path, 'old'), 'old', { mode: 0o644 });
    refused(join(path, 'old'), new RegExp(`in a folder of user ${ATTACKER} that others may write to`));
    assert.deepEqual(readdirSync(path), ['old']);
    assert.equal(readFileSync(join(path, 'old'), 'utf8'), 'old');
    for (const [owner, mode] of [
      [ATTACKER, 0o1777],
      [ATTACKER, 0o755],
      [0, 0o777],
    ] as const) {
      give(owner, mode);
      assert.equal(write(join(path, `new-${owner}-${mode}`)).status, 0, `${owner} ${mode.toString(8)}`);
    }
  });

  test('is nothing that another user has put there', { skip: notRoot }, async () => {
    const path = shared();
    const prepare = (name: string, make: (at: string) => void) => {
      const at = join(path, name);
      make(at);
      assert.equal(run('chown', ['-h', `${ATTACKER}:${ATTACKER}`, at], env()).status, 0);
      return at;
    };
    const his = prepare('file', (at) => writeFileSync(at, 'his', { mode: 0o666 }));
    refused(his, new RegExp(`it belongs to user ${ATTACKER}`));
    assert.equal(readFileSync(his, 'utf8'), 'his');
    refused(
      prepare('link', (at) => symlinkSync(file('victim'), at)),
      new RegExp(`symbolic link .*of user ${ATTACKER}`),
    );
    const folderLink = prepare('folder', (at) => symlinkSync(folder, at));
    refused(join(folderLink, 'victim'), new RegExp(`of user ${ATTACKER} leads to`));
    const fifo = prepare('pipe', (at) => assert.equal(run('mkfifo', [at], env()).status, 0));
    const reader = spawn('cat', [fifo], { stdio: ['ignore', 'pipe', 'ignore'] });
    refused(fifo, new RegExp(`it belongs to user ${ATTACKER}`));
    reader.kill();
    await once(reader, 'exit');
    assert.equal(existsSync(file('victim')), false);
  });
});
