import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { appendFileSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { ErrorCode } from '../../src/errors.ts';
import { formatKeyHash, publicKeyDigest } from '../../src/policy/key-hash.ts';
import { type Result, run, type Stack, startServer, startStack } from '../support/stack.ts';
import {
  assertEmpty,
  assertFailed,
  closedPort,
  codeFrom,
  fixtures,
  folder,
  launch,
  listen,
  newSharedSecret,
  noteOf,
  type Policy,
  silent,
  start,
  startImpostor,
  totp,
  upload,
  wrongCode,
} from './support.ts';

let stack: Stack;
/** Hash of the key of the stack's CAS. */
let casKey: string;
const cleanUp: (() => unknown)[] = [];
before(async () => {
  stack = await startStack();
  casKey = /^CAS key hash: (.*)$/m.exec(stack.server.output())?.[1] ?? '';
});
after(async () => {
  for (const task of cleanUp.reverse()) await task();
});

/** What the service `id` would do, and a folder in which nothing of it may be seen. */
interface Victim {
  id: string;
  directory: string;
}

async function victim(policy: Policy = {}): Promise<Victim> {
  const directory = folder(stack);
  const id = await upload(stack, {
    command: ['-c', `touch "${directory}/started"`],
    ...policy,
    files: [{ to: `${directory}/out`, content: 'text' }, ...(policy.files ?? [])],
  });
  return { id, directory };
}

const refusedBy = 'CAS sent an attestation/configuration error';
const absent = '/nonexistent/las.sock';

/** Launches a service, and checks that it fails as told and does nothing. */
async function fails(
  { id, directory }: Victim,
  code: ErrorCode,
  says: (string | RegExp)[],
  options: {
    env?: NodeJS.ProcessEnv;
    args?: string[];
    executable?: string;
    oneTimePassword?: string;
    exit?: number;
    port?: string;
    host?: string;
    shows?: string;
  } = {},
): Promise<Result> {
  const { oneTimePassword: password, exit, port, host = 'localhost', shows = id, ...launching } = options;
  const result = await launch(stack, password === undefined ? id : `${id}@${password}`, launching).finished;
  assertFailed(result, code, {
    note: { ...noteOf(stack, shows, port), host },
    ...(exit === undefined ? {} : { exit }),
    says,
    never: password === undefined ? [] : [password],
  });
  assertEmpty(directory);
  return result;
}

describe('SCONE_CONFIG_ID', () => {
  const malformed = 'CONFIG_ID_MALFORMED';
  const code = '123456';
  for (const [id, expected, says] of [
    [undefined, 'CONFIG_ID_MISSING', 'SCONE_CONFIG_ID is not set'],
    ['', 'CONFIG_ID_MISSING', 'SCONE_CONFIG_ID is not set'],
    ['session', malformed, 'there is no / between session and service'],
    [`session@${code}`, malformed, 'there is no /'],
    ['/service', malformed, 'before the last / is not a session name'],
    ['session/', malformed, 'after the last / is not a service name'],
    [`session/@${code}`, malformed, 'after the last / is not a service name'],
    ['/', malformed, 'is not a session name'],
    ['a//b', malformed, 'is not a session name'],
    ['/a/b', malformed, 'is not a session name'],
    ['a b/c', malformed, 'is not a session name'],
    ['a/b c', malformed, 'is not a service name'],
    ['\u00e4/b', malformed, 'is not a session name'],
    ['a/b\n', malformed, 'is not a service name'],
    ['$SESSION/b', malformed, 'is not a session name'],
    [`${'a'.repeat(513)}/b`, malformed, 'is not a session name'],
    [`a/${'b'.repeat(513)}`, malformed, 'is not a service name'],
    [`a/b@${code}@`, malformed, 'more than one @'],
    [`a/b@1@${code}`, malformed, 'more than one @'],
  ] as const)
    test(`${id === undefined ? 'missing' : JSON.stringify(id).slice(0, 40)}`, async () => {
      const result = await launch(stack, id).finished;
      assertFailed(result, expected, { note: undefined, says: [says], never: [code] });
    });

  test('of a session that does not exist', async () => {
    const { directory } = await victim();
    for (const id of ['nobody/main', 'nobody/of/this/name/main', '.../main', '__proto__/constructor'])
      await fails({ id, directory }, 'SESSION_NOT_FOUND', [
        refusedBy,
        `Caused by: Session not found: ${id.slice(0, id.lastIndexOf('/'))}`,
      ]);
  });

  test('of a service that does not exist', async () => {
    const { id, directory } = await victim();
    const session = id.slice(0, -'/main'.length);
    for (const service of ['other', 'Main', 'constructor'])
      await fails({ id: `${session}/${service}`, directory }, 'SERVICE_NOT_FOUND', [
        refusedBy,
        `Caused by: the session ${session} has no service ${service}`,
      ]);
  });
});

describe('settings', () => {
  const key = '3RC5PDLHFctCuXSb5eLC6vPcBxpLaAPthtFWwtNqDHcix5keNM';
  for (const [what, env, code, says] of [
    ['an address with a scheme', { SCONE_CAS_ADDR: 'https://cas' }, 'ADDRESS_MALFORMED', 'SCONE_CAS_ADDR'],
    ['an address with port 0', { SCONE_CAS_ADDR: 'cas:0' }, 'ADDRESS_MALFORMED', 'SCONE_CAS_ADDR'],
    ['an address with port 65536', { SCONE_CAS_ADDR: 'cas:65536' }, 'ADDRESS_MALFORMED', 'SCONE_CAS_ADDR'],
    ['an address with a space', { SCONE_CAS_ADDR: 'a cas' }, 'ADDRESS_MALFORMED', 'SCONE_CAS_ADDR'],
    ['an address like an option', { SCONE_CAS_ADDR: '-cas' }, 'ADDRESS_MALFORMED', 'SCONE_CAS_ADDR'],
    ['a port in words', { SCONE_CAS_ENCLAVE_PORT: 'http' }, 'ADDRESS_MALFORMED', '"http" is not a port'],
    ['a port out of range', { SCONE_CAS_ENCLAVE_PORT: '70000' }, 'ADDRESS_MALFORMED', 'is not a port'],
    [
      'a key that is none',
      { SCONE_CAS_KEY: 'key' },
      'CAS_KEY_MALFORMED',
      'SCONE_CAS_KEY is not a CAS key hash',
    ],
    ['a key in hexadecimal', { SCONE_CAS_KEY: '0'.repeat(64) }, 'CAS_KEY_MALFORMED', 'SCONE_CAS_KEY'],
    ['a key with a wrong letter', { SCONE_CAS_KEY: key.replace('H', 'J') }, 'CAS_KEY_MALFORMED', 'checksum'],
    ['a key that is cut off', { SCONE_CAS_KEY: key.slice(0, -1) }, 'CAS_KEY_MALFORMED', 'checksum'],
    ['a key with a space', { SCONE_CAS_KEY: `${key} ` }, 'CAS_KEY_MALFORMED', 'SCONE_CAS_KEY'],
    [
      'a hash of something else, in the same writing',
      { SCONE_CAS_KEY: '1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2' },
      'CAS_KEY_MALFORMED',
      'it names something else',
    ],
  ] as const)
    test(what, async () => {
      const { id, directory } = await victim();
      const result = await launch(stack, id, { env }).finished;
      assertFailed(result, code, { note: undefined, says: [says] });
      assertEmpty(directory);
    });
});

describe('one-time passwords', () => {
  const protectedBy = (oneTimePassword: string) => victim({ oneTimePassword });

  test('missing', async () => {
    await fails(await protectedBy(newSharedSecret()), 'OTP_MISSING', [
      `Caused by: ${refusedBy}`,
      'Caused by: A One-time Password is required. Please append @CODE to SCONE_CONFIG_ID.',
    ]);
  });

  test('wrong, in every way', async () => {
    const secret = newSharedSecret();
    const now = Date.now();
    const codes = [
      wrongCode(secret),
      // Long past, and long to come.
      totp(secret, Date.now() - 300_000),
      totp(secret, Date.now() + 300_000),
      // The code of another secret.
      totp(newSharedSecret(), Date.now()),
    ].filter((guess) => ![-1, 0, 1, 2].some((step) => guess === totp(secret, now + step * 30_000)));
    // Each for a service of its own, as guesses are throttled.
    for (const oneTimePassword of codes)
      await fails(
        await protectedBy(secret),
        'OTP_INVALID',
        [/Caused by: The given One-time Password is invalid. Please try again.$/m],
        { oneTimePassword },
      );
  });

  test('malformed: nobody is asked, and no guess is counted', async () => {
    const secret = newSharedSecret();
    const { id } = await victim({ oneTimePassword: secret, command: ['-c', 'echo started'] });
    const code = codeFrom(secret);
    for (const malformed of [
      '',
      code.slice(1),
      `0${code}`,
      `${code} `,
      ` ${code}`,
      `${code}\n`,
      `+${code.slice(1)}`,
      'secret',
      '271828'.repeat(100),
      [...code].map((digit) => String.fromCharCode(0x660 + Number(digit))).join(''),
    ])
      assertFailed(await launch(stack, `${id}@${malformed}`).finished, 'CONFIG_ID_MALFORMED', {
        note: undefined,
        says: ['what stands after the @ is not a one-time password, which has six digits'],
        never: malformed === '' ? [] : [malformed],
      });
    assert.equal((await launch(stack, `${id}@${code}`).finished).stdout, 'started\n');
  });

  test('accepted once, and never again', async () => {
    const secret = newSharedSecret();
    const { id } = await victim({ oneTimePassword: secret, command: ['-c', 'echo started'] });
    const other = await protectedBy(secret);
    const oneTimePassword = codeFrom(secret);
    const accepted = await launch(stack, `${id}@${oneTimePassword}`).finished;
    assert.deepEqual(accepted, { status: 0, signal: null, stdout: 'started\n', stderr: '' });
    for (const again of [{ id, directory: folder(stack) }, other])
      await fails(
        again,
        'OTP_USED',
        [
          'A One-time Password was already used within this time-step. Please try again in the next time-step',
        ],
        { oneTimePassword },
      );
  });

  test('accepted from the step before and the step after', async () => {
    for (const step of [-1, 1]) {
      const secret = newSharedSecret();
      const { id } = await victim({ oneTimePassword: secret, command: ['-c', 'echo started'] });
      const now = Date.now();
      const accepted = await launch(stack, `${id}@${totp(secret, now + step * 30_000)}`).finished;
      // A step may have ended meanwhile; then that code is two steps old, or the present one.
      const late = Math.floor(now / 30_000) !== Math.floor(Date.now() / 30_000);
      if (!(late && step === -1)) assert.equal(accepted.stdout, 'started\n', accepted.stderr);
    }
  });

  test('of two launches with the same code at the same time, one starts', async () => {
    const secret = newSharedSecret();
    const { id } = await victim({ oneTimePassword: secret, command: ['-c', 'echo started'] });
    const code = codeFrom(secret);
    const results = await Promise.all([1, 2, 3].map(() => launch(stack, `${id}@${code}`).finished));
    assert.deepEqual(results.map(({ status }) => status).sort(), [0, 77, 77]);
  });

  test('after five wrong ones even a right one has to wait', async () => {
    const secret = newSharedSecret();
    const service = await protectedBy(secret);
    const wrong = wrongCode(secret);
    for (let guess = 1; guess <= 5; guess++)
      await fails(service, 'OTP_INVALID', [], { oneTimePassword: wrong });
    const oneTimePassword = codeFrom(secret);
    await fails(
      service,
      'OTP_THROTTLED',
      [/Too many wrong One-time Passwords. Please try again in \d+ seconds.$/m],
      { oneTimePassword },
    );
    // Guesses at one secret count together: another service that has it gives no more of them.
    await fails(await protectedBy(secret), 'OTP_THROTTLED', [], { oneTimePassword });
    const another = newSharedSecret();
    const { id } = await victim({ oneTimePassword: another, command: ['-c', 'echo started'] });
    assert.equal((await launch(stack, `${id}@${codeFrom(another)}`).finished).stdout, 'started\n');
  });

  test('not looked at, and not spent, where the launcher would not be admitted anyway', async () => {
    const secret = newSharedSecret();
    const oneTimePassword = codeFrom(secret);
    const service = await victim({ oneTimePassword: secret, tolerate: [] });
    for (const code of [oneTimePassword, wrongCode(secret)])
      await fails(service, 'DEBUG_NOT_TOLERATED', [], { oneTimePassword: code });
    const { id } = await victim({ oneTimePassword: secret, command: ['-c', 'echo started'] });
    assert.equal((await launch(stack, `${id}@${oneTimePassword}`).finished).stdout, 'started\n');
  });
});

/** Some answer nothing until the launcher gives up, so all are tried at once. */
describe('a server', { concurrency: 4 }, () => {
  describe('that should be a CAS', { concurrency: 4 }, () => {
    const unreachable = 'CAS_UNREACHABLE';
    /** A launch with the CAS on this port, which must end long before a person loses patience. */
    const at = async (
      port: string,
      code: ErrorCode,
      says: (string | RegExp)[],
      env: NodeJS.ProcessEnv = {},
    ) => {
      const service = await victim({ mode: 'none' });
      const began = Date.now();
      await fails(service, code, says, {
        env: { SCONE_CAS_ENCLAVE_PORT: port, SCONE_LAS_ADDR: absent, ...env },
        port,
      });
      assert.ok(Date.now() - began < 60_000, `it took ${Date.now() - began} ms`);
    };
    const serving = async <Served extends { close(): void }>(server: Promise<Served>): Promise<Served> => {
      const served = await server;
      cleanUp.push(() => served.close());
      return served;
    };

    test('that is down', async () => {
      const port = await closedPort();
      await at(port, unreachable, [`cannot reach the CAS at localhost:${port}: connection refused`]);
    });

    test('whose name does not resolve', async () => {
      const service = await victim({ mode: 'none' });
      await fails(
        service,
        unreachable,
        [/cannot reach the CAS at no-such-host\.invalid:\d+: the host name /],
        {
          env: { SCONE_CAS_ADDR: 'no-such-host.invalid' },
          host: 'no-such-host.invalid',
        },
      );
    });

    test('at an IPv6 address where none is', async () => {
      const service = await victim({ mode: 'none' });
      const port = await closedPort();
      await fails(service, unreachable, [`cannot reach the CAS at [::1]:${port}: `], {
        env: { SCONE_CAS_ADDR: `[::1]:${port}` },
        host: '::1',
        port,
      });
    });

    test('that accepts and says nothing', async () => {
      const { port } = await serving(silent());
      await at(port, unreachable, ['no answer in time']);
    });

    test('that hangs up at once', async () => {
      const { port } = await serving(listen(createServer((socket) => socket.destroy())));
      await at(port, unreachable, [`cannot reach the CAS at localhost:${port}: `]);
    });

    test('that is a plain HTTP server', async () => {
      const { port } = await serving(listen(createHttpServer((_, response) => response.end())));
      await at(port, unreachable, [`cannot reach the CAS at localhost:${port}: `]);
    });

    test('that talks before TLS does', async () => {
      const { port } = await serving(listen(createServer((socket) => socket.write('220 mail ESMTP\r\n'))));
      await at(port, unreachable, [`cannot reach the CAS at localhost:${port}: `]);
    });

    test('that is a TLS server of another protocol', async () => {
      const impostor = await serving(startImpostor({ protocols: ['h2', 'http/1.1'] }));
      const service = await victim({ mode: 'none' });
      const result = await launch(stack, service.id, {
        env: { SCONE_CAS_ENCLAVE_PORT: impostor.port, SCONE_LAS_ADDR: absent },
      }).finished;
      // OpenSSL servers end such a handshake; others go on without a protocol.
      const code = result.status === 76 ? 'CAS_PROTOCOL' : unreachable;
      assertFailed(result, code, { note: noteOf(stack, service.id, impostor.port) });
      assert.equal(impostor.received().length, 0);
      assertEmpty(service.directory);
    });

    test('that is a TLS server of no protocol', async () => {
      const impostor = await serving(startImpostor({ protocols: [] }));
      await at(impostor.port, 'CAS_PROTOCOL', ['gave an answer that cannot be understood']);
      assert.equal(impostor.received().length, 0);
    });

    test('on whose port for people the launcher comes', async () => {
      const service = await victim({ mode: 'none' });
      const port = stack.env.SCONE_CAS_API_PORT ?? '';
      const env = { SCONE_CAS_ENCLAVE_PORT: port };
      const result = await launch(stack, service.id, { env }).finished;
      const code = result.status === 76 ? 'CAS_PROTOCOL' : unreachable;
      assertFailed(result, code, { note: noteOf(stack, service.id, port) });
    });

    for (const [what, answer, code, says] of [
      ['that never answers', undefined, unreachable, 'no answer in time'],
      ['that hangs up in place of an answer', Buffer.alloc(0), unreachable, 'closed before an answer came'],
      [
        'that announces more than there can be',
        Buffer.from('ffffffff00', 'hex'),
        'CAS_PROTOCOL',
        'is announced',
      ],
      ['that announces nothing', Buffer.from('00000000', 'hex'), 'CAS_PROTOCOL', 'is announced'],
      ['that hangs up within an answer', Buffer.from('0000000a7b7d', 'hex'), unreachable, 'closed before'],
      ['that answers no JSON', framed('{"configuration":'), 'CAS_PROTOCOL', 'a message is not JSON'],
      [
        'that answers something else',
        framed('{"configuration":{}}'),
        'CAS_PROTOCOL',
        'at configuration.command',
      ],
      ['that answers a list', framed('[]'), 'CAS_PROTOCOL', 'cannot be understood'],
      ['that answers null', framed('null'), 'CAS_PROTOCOL', 'cannot be understood'],
      [
        'that sends another secret than asked for in its mistake',
        framed('{"configuration":{"command":"VALUE"}}'),
        'CAS_PROTOCOL',
        'at configuration.command',
      ],
    ] as const)
      test(`${what}, with the right key`, async () => {
        const impostor = await serving(startImpostor(answer ? { answer } : {}));
        await at(impostor.port, code, [says], { SCONE_CAS_KEY: keyHash(impostor.certificate) });
        assert.ok(impostor.received().length > 0);
      });

    test('that refuses with control characters: they do not reach the terminal', async () => {
      const refusal = {
        code: 'no_such_code',
        messages: ['\u001b[2Jred\r\nline', 'inner\u0007'],
        hint: 'a\u009bb',
      };
      const impostor = await serving(startImpostor({ answer: framed(JSON.stringify({ refusal })) }));
      const service = await victim({ mode: 'none' });
      const result = await launch(stack, service.id, {
        env: {
          SCONE_CAS_ENCLAVE_PORT: impostor.port,
          SCONE_LAS_ADDR: absent,
          SCONE_CAS_KEY: keyHash(impostor.certificate),
        },
      }).finished;
      assertFailed(result, 'INTERNAL', { note: noteOf(stack, service.id, impostor.port) });
      assert.doesNotMatch(result.stderr.replaceAll('\n', ''), /[\x00-\x1f\x7f-\x9f]/);
      assertEmpty(service.directory);
    });

    /** The sources of the key that is expected, each with that of the stack's CAS, while an impostor answers. */
    const sources: [what: string, says: string, set: (port: string) => Promise<NodeJS.ProcessEnv>][] = [
      [
        'SCONE_CAS_KEY',
        '(by SCONE_CAS_KEY)',
        async () => ({ SCONE_CAS_KEY: casKey, SCONE_LAS_ADDR: absent }),
      ],
      [
        'the LAS',
        '(by the LAS)',
        async (port) => {
          const las = await startLas('--cas', `localhost:${port}=${casKey}`);
          return { SCONE_LAS_ADDR: las };
        },
      ],
      [
        "the user's state",
        '(by `scone cas attest`)',
        async (port) => ({ SCONE_LAS_ADDR: absent, SCONE_CLI_CONFIG: stateFor(port) }),
      ],
      [
        "the user's state in the home folder",
        '(by `scone cas attest`)',
        async (port) => {
          const home = folder(stack);
          mkdirSync(join(home, '.cas'));
          const state = readFileSync(stateFor(port));
          writeFileSync(join(home, '.cas/config.json'), state, { mode: 0o600 });
          return { SCONE_LAS_ADDR: absent, HOME: home };
        },
      ],
      [
        'SCONE_CAS_KEY, which goes before the LAS and the state',
        '(by SCONE_CAS_KEY)',
        async (port) => {
          const impostors = await startLas('--cas', `localhost:${port}=${casKey}`);
          return { SCONE_CAS_KEY: casKey, SCONE_LAS_ADDR: impostors, SCONE_CLI_CONFIG: stateFor(port) };
        },
      ],
    ];
    for (const [what, says, set] of sources)
      test(`that has another key than the one pinned by ${what}: nothing is sent to it`, async () => {
        const impostor = await serving(startImpostor());
        const service = await victim();
        const result = await launch(stack, service.id, {
          env: { SCONE_CAS_ENCLAVE_PORT: impostor.port, ...(await set(impostor.port)) },
        }).finished;
        assertFailed(result, 'CAS_KEY_MISMATCH', {
          note: noteOf(stack, service.id, impostor.port),
          says: [
            `the CAS at localhost:${impostor.port} has the key ${keyHash(impostor.certificate)}, but ${casKey} is pinned ${says}`,
          ],
        });
        assert.equal(impostor.received().length, 0);
        assertEmpty(service.directory);
      });

    test('whose key nobody knows: nothing is sent to it', async () => {
      const impostor = await serving(startImpostor());
      await at(impostor.port, 'CAS_KEY_UNKNOWN', [
        `no key is known for the CAS at localhost:${impostor.port}, so it cannot be told from an impostor`,
        'Caused by: cannot reach the LAS at',
        'Hint: Run `scone cas attest localhost`',
      ]);
      assert.equal(impostor.received().length, 0);
    });

    test('whose pinned key is in a file that others may read, or that is damaged', async () => {
      const { port } = await serving(startImpostor());
      for (const [content, mode, code] of [
        ['{"cas_db": {}}', 0o644, 'STATE_UNUSABLE'],
        ['{"identity": "PRIVATE KEY", ', 0o600, 'FILE_INVALID'],
        ['{"cas_db": "PRIVATE KEY"}', 0o600, 'FILE_INVALID'],
      ] as const) {
        const state = join(folder(stack), 'config.json');
        writeFileSync(state, content, { mode });
        const service = await victim({ mode: 'none' });
        const { stderr } = await fails(service, code, [state], {
          env: { SCONE_CAS_ENCLAVE_PORT: port, SCONE_LAS_ADDR: absent, SCONE_CLI_CONFIG: state },
          port,
        });
        assert.ok(!stderr.includes('PRIVATE KEY'));
      }
    });
  });

  describe('that should be a LAS', { concurrency: 4 }, () => {
    const needed = 'the service needs Evidence about the launcher, and none came';
    const greeting = JSON.stringify({ casKey: null, nonce: Buffer.alloc(32).toString('base64') });
    /** What is wrong with it, a server in its place, and what is said of it. */
    const cases: [
      what: string,
      start: ((path: string) => Promise<{ close(): void }>) | undefined,
      ErrorCode,
      string,
      name?: string,
    ][] = [
      [
        'is where no socket can be',
        undefined,
        'LAS_UNREACHABLE',
        'a socket path has at most 107 bytes',
        'x'.repeat(108),
      ],
      ['is down', undefined, 'LAS_UNREACHABLE', 'no such file or directory'],
      [
        'has left its socket behind',
        async (path) => {
          writeFileSync(path, '');
          return { close() {} };
        },
        'LAS_UNREACHABLE',
        'connection refused',
      ],
      [
        'hangs up',
        (path) =>
          listen(
            createServer((socket) => socket.end()),
            path,
          ),
        'LAS_UNREACHABLE',
        'closed before an answer came',
      ],
      [
        'talks something else',
        (path) =>
          listen(
            createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')),
            path,
          ),
        'LAS_PROTOCOL',
        'is announced',
      ],
      [
        'answers something else',
        (path) =>
          listen(
            createServer((socket) => socket.end(framed('{"casKey":1}'))),
            path,
          ),
        'LAS_PROTOCOL',
        'cannot be understood',
      ],
      [
        'hangs up when asked for Evidence',
        (path) =>
          listen(
            createServer((socket) => socket.end(framed(greeting))),
            path,
          ),
        'LAS_UNREACHABLE',
        'closed before an answer came',
      ],
    ];
    for (const [what, serve, code, says, name = 'las.sock'] of cases)
      test(`that ${what}: the cause names it where Evidence is needed, and only there`, async () => {
        const path = join(folder(stack), name);
        const server = await serve?.(path);
        const env = { SCONE_LAS_ADDR: path, SCONE_CAS_KEY: casKey };
        await fails(
          await victim(),
          code,
          [`Caused by: ${refusedBy}`, `Caused by: ${needed}`, `the LAS at ${path}`, says],
          { env },
        );
        const without = await upload(stack, { mode: 'none', command: ['-c', 'echo started'] });
        for (const more of [{}, { SCONE_CAS_KEY: '' }]) {
          // Without SCONE_CAS_KEY it is the user's own state that knows the CAS.
          const result = await launch(stack, without, { env: { ...env, ...more } }).finished;
          assert.deepEqual(result, { status: 0, signal: null, stdout: 'started\n', stderr: '' });
        }
        server?.close();
      });

    test('that accepts and says nothing: the cause names it', async () => {
      const path = join(folder(stack), 'las.sock');
      const server = await silent(path);
      cleanUp.push(() => server.close());
      const env = { SCONE_LAS_ADDR: path, SCONE_CAS_KEY: casKey };
      await fails(await victim(), 'LAS_UNREACHABLE', [`cannot reach the LAS at ${path}: no answer in time`], {
        env,
      });
    });

    test('that accepts and says nothing does not matter where no Evidence is needed', async () => {
      const path = join(folder(stack), 'las.sock');
      const server = await silent(path);
      cleanUp.push(() => server.close());
      const without = await upload(stack, { mode: 'none', command: ['-c', 'echo started'] });
      const env = { SCONE_LAS_ADDR: path, SCONE_CAS_KEY: casKey };
      assert.equal((await launch(stack, without, { env }).finished).stdout, 'started\n');
    });

    test('that knows another key of the CAS does not matter where SCONE_CAS_KEY is given', async () => {
      const { certificate, close } = await startImpostor();
      close();
      const port = stack.env.SCONE_CAS_ENCLAVE_PORT ?? '';
      const las = await startLas('--cas', `localhost:${port}=${keyHash(certificate)}`);
      const without = await upload(stack, { mode: 'none', command: ['-c', 'echo started'] });
      const env = { SCONE_LAS_ADDR: las, SCONE_CAS_KEY: casKey };
      assert.equal((await launch(stack, without, { env }).finished).stdout, 'started\n');
    });

    test('that nobody trusts', async () => {
      const las = await startLas();
      await fails(
        await victim(),
        'PLATFORM_UNTRUSTED',
        [refusedBy, /Caused by: the LAS key [0-9a-f]{64} is not trusted\n/],
        // This LAS has to hash the executable first.
        { env: { SCONE_LAS_ADDR: las, SCONE_START_TIMEOUT: '1h' } },
      );
    });

    test('that refuses: its own reason is shown', async () => {
      for (const variable of ['LD_LIBRARY_PATH', 'LD_PRELOAD', 'OPENSSL_CONF'])
        await fails(
          await victim(),
          'PROCESS_PRELOADED',
          [needed, /Caused by: process \d+ was started with /, `with ${variable}, which loads code into it`],
          { env: { [variable]: '' } },
        );
    });
  });
});

describe('the launcher', () => {
  test('that is another one: the message names both measurements', async () => {
    const executable = join(folder(stack), 'envcas');
    copyFileSync(stack.envcas, executable);
    appendFileSync(executable, '\n');
    const actual = run(executable, [], { SCONE_HASH: '1' }).stdout.trim();
    assert.match(actual, /^[0-9a-f]{64}$/);
    const { envcasMeasurement: expected } = stack;
    await fails(
      await victim(),
      'MEASUREMENT_UNEXPECTED',
      [
        `Caused by: ${refusedBy}`,
        `Caused by: Unexpected enclave measurement (MRENCLAVE, ${actual}) - Expected ${expected}\n`,
      ],
      { executable },
    );
    // It is the measurement alone that was missing.
    const id = await upload(stack, { measurement: actual, command: ['-c', 'echo started'] });
    assert.equal((await launch(stack, id, { executable }).finished).stdout, 'started\n');
  });

  test('that is vouched for by software alone, without tolerate: debug-mode', async () => {
    for (const tolerate of [[], ['hyperthreading', 'outdated-tcb']])
      await fails(await victim({ tolerate }), 'DEBUG_NOT_TOLERATED', [
        `Caused by: ${refusedBy}`,
        'Caused by: the Evidence is vouched for by software alone (debug)',
        "Hint: In order to ignore this error, add `tolerate: [debug-mode]` to the session's `security.attestation` config.",
      ]);
  });

  test('that fails on several counts: all are named', async () => {
    const policy = { tolerate: [], measurement: '0'.repeat(64) };
    const service = await victim(policy);
    const result = await launch(stack, service.id).finished;
    const { stderr } = result;
    assert.equal(result.status, 77);
    assert.match(stderr, /Unexpected enclave measurement \(MRENCLAVE, [0-9a-f]{64}\) - Expected 0{64}\n/);
    assert.match(stderr, /vouched for by software alone/);
    assertEmpty(service.directory);
  });
});

describe('the program', () => {
  const fixture = (name: string) => join(fixtures, name);
  const cases: [what: string, (directory: string) => Policy, ErrorCode, (string | RegExp)[]][] = [
    ['missing', () => ({ program: '/nonexistent' }), 'PROGRAM_MISSING', ['there is no program /nonexistent']],
    [
      'in a folder that is none',
      () => ({ program: '/etc/passwd/program' }),
      'PROGRAM_MISSING',
      ['there is no program /etc/passwd/program'],
    ],
    [
      'not executable',
      () => ({ program: fixture('not-executable.sh') }),
      'PROGRAM_NOT_EXECUTABLE',
      [`cannot execute ${fixture('not-executable.sh')}: permission denied`],
    ],
    ['a directory', () => ({ program: '/usr/bin' }), 'PROGRAM_NOT_EXECUTABLE', ['it is not a file']],
    ['a device', () => ({ program: '/dev/null' }), 'PROGRAM_NOT_EXECUTABLE', ['it is not a file']],
    [
      'a script without #!',
      () => ({ program: fixture('no-shebang') }),
      'PROGRAM_NOT_EXECUTABLE',
      ['not an executable format (a script needs a #! line)'],
    ],
    [
      'a script whose interpreter is missing',
      () => ({ program: fixture('no-interpreter.sh') }),
      'PROGRAM_NOT_EXECUTABLE',
      [`cannot execute ${fixture('no-interpreter.sh')}: the interpreter it names does not exist`],
    ],
    [
      'given a working directory that does not exist',
      (d) => ({ pwd: `${d}/missing` }),
      'WORKING_DIRECTORY',
      [/cannot change to the working directory .*\/missing: no such file or directory/],
    ],
    [
      'given a file for a working directory',
      () => ({ pwd: '/etc/passwd' }),
      'WORKING_DIRECTORY',
      ['cannot change to the working directory /etc/passwd: a part of the path is not a directory'],
    ],
    [
      'given a file in a folder that does not exist',
      (d) => ({ files: [{ to: `${d}/missing/out`, content: 'x' }] }),
      'TARGET_UNWRITABLE',
      [/cannot write .*\/missing\/out: no such file or directory/],
    ],
    [
      'given a file in a folder that nobody may write',
      () => ({ files: [{ to: '/proc/self/out', content: 'x' }] }),
      'TARGET_UNWRITABLE',
      ['cannot write /proc/self/out: '],
    ],
    [
      'given a NUL byte in an argument, by a secret',
      () => ({ command: ['-c', 'x$$SCONE::nul$$'] }),
      'NUL_BYTE',
      ['argument 2 holds a NUL byte'],
    ],
    [
      'given a NUL byte in a variable, by a secret',
      () => ({ environment: { NAME: '$$SCONE::nul$$' } }),
      'NUL_BYTE',
      ['the variable NAME holds a NUL byte'],
    ],
  ];
  for (const [what, policy, code, says] of cases)
    test(what, async () => {
      const directory = folder(stack);
      const secrets = { nul: { kind: 'ascii', value: 'SEC\0RET' } } as const;
      const { id } = await victim({ secrets, ...policy(directory) });
      const { stderr } = await fails({ id, directory }, code, says, {
        env: { MARKER: join(directory, 'started') },
      });
      assert.doesNotMatch(stderr, /SEC|RET/);
    });
});

describe('closed or full standard error', () => {
  for (const [what, redirection] of [
    ['closed', '2>&-'],
    ['full', '2>/dev/full'],
    ['all closed', '<&- >&- 2>&-'],
  ] as const) {
    test(`${what}: the exit status still tells`, async () => {
      const { id, directory } = await victim({ tolerate: [] });
      const env = { ...stack.env, SCONE_CONFIG_ID: id };
      const script = `exec "$0" ${redirection}`;
      const options = { env, stdio: ['ignore', 'pipe', 'pipe'] as ['ignore', 'pipe', 'pipe'] };
      const result = await start('/bin/sh', ['-c', script, stack.envcas], options).finished;
      assert.deepEqual(result, { status: 77, signal: null, stdout: '', stderr: '' });
      assertEmpty(directory);
    });

    test(`${what}: a launch that succeeds does not need it`, async () => {
      const directory = folder(stack);
      const id = await upload(stack, {
        command: ['-c', `cp "${directory}/out" "${directory}/copy"`],
        files: [{ to: `${directory}/out`, content: 'text' }],
      });
      const env = { ...stack.env, SCONE_CONFIG_ID: id };
      const { status } = run('/bin/sh', ['-c', `exec "$0" ${redirection}`, stack.envcas], env);
      assert.equal(status, 0);
      // Nothing but its content: a released file must not become somebody's standard error.
      assert.equal(readFileSync(`${directory}/copy`, 'utf8'), 'text');
    });
  }
});

/** A LAS of its own key, which no CAS trusts. Gives its socket. */
async function startLas(...options: string[]): Promise<string> {
  const directory = folder(stack);
  const socket = join(directory, 'las.sock');
  const scone = join(stack.envcas, '../scone');
  await startServer(
    scone,
    ['las', 'serve', '--dir', directory, '--socket', socket, ...options],
    /LAS ready/,
    { env: stack.env },
  );
  return socket;
}

/** What the user remembers of the stack's CAS, changed so that it is the one at this port. */
function stateFor(port: string): string {
  const state = JSON.parse(readFileSync(join(stack.env.HOME ?? '', '.cas/config.json'), 'utf8'));
  for (const entry of Object.values<{ enclave: string }>(state.cas_db)) entry.enclave = `localhost:${port}`;
  const path = join(folder(stack), 'config.json');
  writeFileSync(path, JSON.stringify(state), { mode: 0o600 });
  return path;
}

function keyHash(certificate: string): string {
  return formatKeyHash(publicKeyDigest(new X509Certificate(certificate).publicKey));
}

/** A message as both protocols send it: its length in four bytes, and JSON. */
function framed(json: string): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(Buffer.byteLength(json));
  return Buffer.concat([head, Buffer.from(json)]);
}
