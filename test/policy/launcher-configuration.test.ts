import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import * as v from 'valibot';
import { parseLauncherConfiguration } from '../../src/policy/launcher-configuration.ts';
import { InvalidText } from '../../src/policy/problem.ts';
import { launcherConfiguration } from '../../src/policy/schema/launcher.ts';
import { parseSession } from '../../src/policy/session.ts';
import { problemsOf, sessionText } from './support.ts';

test('it names a program, and which file is written where, under either spelling', () => {
  assert.deepEqual(parseLauncherConfiguration('program: /bin/true'), {
    program: '/bin/true',
    injection_files: [],
  });
  for (const key of ['injection_files', 'injected_file'])
    assert.deepEqual(
      parseLauncherConfiguration(`program: /bin/a b\n${key}:\n  - from: /x\n    to: /run/x\n`),
      { program: '/bin/a b', injection_files: [{ from: '/x', to: '/run/x' }] },
    );
  assert.deepEqual(
    parseLauncherConfiguration(
      'program: /p\ninjected_file: [{from: b, to: /b}]\ninjection_files: [{from: b, to: /a}]',
    ).injection_files,
    [
      { from: 'b', to: '/a' },
      { from: 'b', to: '/b' },
    ],
  );
});

test('a path that holds a secret is refused', () => {
  for (const written of [
    'program: /bin/$$SCONE::p$$',
    'program: /bin/$$PALAEMON::p$$',
    'program: /p\npwd: /$$SCONE::d$$',
    'program: /p\ndirectories: [{path: /$$SCONE::d$$}]',
    'program: /p\ninjection_files: [{from: /x, to: /$$SCONE::d$$/x}]',
  ])
    assert.match(problemsOf(() => parseLauncherConfiguration(written)).join(), /a path holds no secret/);
});

const refused: [what: string, text: string, problem: RegExp][] = [
  ['nothing', '', /^1:1 /],
  ['a text', 'hello', /^1:1 expected a mapping/],
  ['no program', 'injection_files: []', /^1:1 program: the key "program" is missing/],
  [
    'an unknown key',
    'program: /p\nprogramm: /q',
    /^2:\d+ programm: unknown key "programm", expected one of:/,
  ],
  [
    'an unknown key of a file',
    'program: /p\ninjection_files: [{from: a, to: /a, perm: 1}]',
    /^2:43 injection_files\[0\]\.perm: unknown key "perm", expected one of: from, to, mode, owner, group$/,
  ],
  ['a file without `to`', 'program: /p\ninjection_files:\n- from: a', /^3:\d+ .*"to" is missing/],
  ['files that are no list', 'program: /p\ninjection_files: {a: b}', /^2:\d+ .*expected a list/],
  ['an empty program', 'program:', /^1:1 program: expected a text/],
  ['a relative program', 'program: bin/p', /^1:10 program: expected the absolute path of a file/],
  ['a folder as program', 'program: /bin/', /^1:10 program: expected the absolute path of a file/],
  ['the root as program', 'program: /', /^1:10 program: expected the absolute path of a file/],
  ['a NUL in the program', 'program: "/bin/\\0x"', /^1:10 program: expected the absolute path of a file/],
  [
    'a relative target',
    'program: /p\ninjection_files: [{from: a, to: b}]',
    /^2:\d+ injection_files\[0\]\.to: expected the absolute path of a file/,
  ],
  [
    'two files to one target',
    'program: /p\ninjection_files: [{from: a, to: /b}]\ninjected_file: [{from: c, to: /b}]',
    /^3:31 injected_file\[0\]\.to: two files are written to \/b/,
  ],
  ['a duplicate key', 'program: /p\nprogram: /q', /^2:1 .*twice/],
  ['YAML that does not parse', 'program: [', /^1:\d+ /],
];
for (const [what, text, problem] of refused)
  test(`${what} is refused`, () => {
    assert.match(problemsOf(() => parseLauncherConfiguration(text))[0] ?? '', problem);
  });

test('a path that is not absolute is told with its own place', () => {
  const text = 'injection_files: []\nprogram: bin/p';
  assert.match(problemsOf(() => parseLauncherConfiguration(text))[0] ?? '', /^2:10 program: /);
});

/** The configuration with a program and these lines, which begin at line 2. */
const withProgram = (...lines: string[]) => ['program: /p', ...lines].join('\n');
const file = (rest: string) => withProgram(`injection_files: [{from: a, to: /a, ${rest}}]`);
const folder = (rest: string) => withProgram(`directories: [{path: /run/d, ${rest}}]`);
const supervise = (rest: string) => withProgram(`supervise: {${rest}}`);

describe('each key takes what it is for', () => {
  const digest = 'Ab'.repeat(32);
  const a = { from: 'a', to: '/a' };
  const accepted: [text: string, expected: object][] = [
    [withProgram(`sha256: ${digest}`), { sha256: [digest.toLowerCase()] }],
    [withProgram(`sha256: [${digest}]`), { sha256: [digest.toLowerCase()] }],
    [withProgram('user: postgres', 'group: ssl-cert'), { user: 'postgres', group: 'ssl-cert' }],
    [withProgram('user: 0', 'group: 65534'), { user: '0', group: '65534' }],
    [withProgram('user: 4294967294'), { user: '4294967294' }],
    [withProgram('user: machine$'), { user: 'machine$' }],
    [withProgram('umask: 0027'), { umask: 0o27 }],
    [withProgram('umask: 777'), { umask: 0o777 }],
    [withProgram('pwd: /'), { pwd: '/' }],
    [withProgram('pwd: /srv/www'), { pwd: '/srv/www' }],
    [withProgram('pwd: /srv/www/'), { pwd: '/srv/www/' }],
    [folder('mode: 1777'), { directories: [{ path: '/run/d', mode: 0o1777 }] }],
    [folder('mode: 0750, owner: u'), { directories: [{ path: '/run/d', mode: 0o750, owner: 'u' }] }],
    [folder('generation: true'), { directories: [{ path: '/run/d', generation: true }] }],
    [
      withProgram('directories: [{path: /run/..d/.e}, {path: /run/...}]'),
      { directories: [{ path: '/run/..d/.e' }, { path: '/run/...' }] },
    ],
    // As chmod(1) reads them, with quotes and without.
    ...['640', '0640', '0o640', '"640"', '"0640"', '00640'].map((written): [string, object] => [
      file(`mode: ${written}`),
      { injection_files: [{ ...a, mode: 0o640 }] },
    ]),
    [file('mode: "000"'), { injection_files: [{ ...a, mode: 0 }] }],
    [file('owner: 33, group: www-data'), { injection_files: [{ ...a, owner: '33', group: 'www-data' }] }],
    [
      withProgram('injection_files: [{from: a, to: {fd: 3}}, {from: b, to: {fd: "1023"}}]'),
      {
        injection_files: [
          { from: 'a', to: { fd: 3 } },
          { from: 'b', to: { fd: 1023 } },
        ],
      },
    ],
    [supervise(''), { supervise: {} }],
    [supervise('on_change: restart'), { supervise: { on_change: 'restart' } }],
    [supervise('on_change: files'), { supervise: { on_change: 'files' } }],
    [supervise('on_change: {signal: SIGHUP}'), { supervise: { on_change: { signal: 'SIGHUP' } } }],
    [
      supervise('on_change: {command: [/bin/kill, -HUP, ""]}'),
      { supervise: { on_change: { command: ['/bin/kill', '-HUP', ''] } } },
    ],
    [
      supervise('kill_signal: SIGINT, kill_timeout: 1 min, splay: 24h, debounce: 50ms'),
      { supervise: { kill_signal: 'SIGINT', kill_timeout: '1 min', splay: '24h', debounce: '50ms' } },
    ],
    [supervise('remove_files: true, redact: False'), { supervise: { remove_files: true, redact: false } }],
  ];
  for (const [text, expected] of accepted)
    test(text.slice(text.indexOf('\n') + 1), () => {
      const found = parseLauncherConfiguration(text);
      assert.deepEqual(found, { program: '/p', injection_files: [], ...expected });
      // It is handed on in this form, and read again.
      assert.deepEqual(v.parse(launcherConfiguration, JSON.parse(JSON.stringify(found))), found);
    });
});

describe('each key refuses the rest, and says where and what is expected', () => {
  const digest = 'ab'.repeat(32);
  const octal = 'expected an octal mode without special bits, such as 0640';
  const folderPath =
    'expected the absolute path of a folder, without ., .. and doubled slashes, and none at its end';
  const onChange = 'expected restart, files, {signal: NAME} or {command: [PROGRAM, …]}';
  const someDuration = 'expected a duration of at most a day, such as 10s';
  const someone = 'expected the name or number of a user or group';
  const signals =
    'expected one of SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGKILL, found another text';
  const rejected: [text: string, problem: string][] = [
    [withProgram(`sha256: ${digest}0`), '2:9 sha256: expected 64 hexadecimal digits'],
    [withProgram(`sha256: [${digest}, x]`), '2:76 sha256[1]: expected 64 hexadecimal digits'],
    [withProgram('sha256: []'), '2:9 sha256: no program has one of no digests; leave sha256 out'],
    [withProgram('user: "a b"'), `2:7 user: ${someone}`],
    [withProgram('user: -1'), `2:7 user: ${someone}`],
    [withProgram('user: 007'), `2:7 user: ${someone}`],
    [withProgram('user: [a]'), '2:7 user: expected a text, found a list'],
    [withProgram('group: 4294967295'), '2:8 group: there is no such number'],
    [withProgram('group: $$SCONE::g$$'), `2:8 group: ${someone}`],
    [withProgram('umask: 0088'), '2:8 umask: expected an octal umask, such as 0027'],
    [withProgram('umask: 1777'), '2:8 umask: expected an octal umask, such as 0027'],
    [withProgram('pwd: srv'), '2:6 pwd: expected the absolute path of a folder'],
    [
      folder('mode: 2755'),
      '2:36 directories[0].mode: expected an octal mode without setuid and setgid bits, such as 0750',
    ],
    [folder('generation: yes'), '2:42 directories[0].generation: expected true or false'],
    [
      folder('generation: true, files: []'),
      '2:55 directories[0].files: unknown key "files", expected one of: path, mode, owner, group, generation',
    ],
    [withProgram('directories: [{mode: 0700}]'), '2:15 directories[0].path: the key "path" is missing'],
    ...['/run/d/', '/', 'run', '//run', '/run//d', '/run/./d', '/run/..', '/run/../d', '/run/.'].map(
      (path): [string, string] => [
        withProgram(`directories: [{path: ${path}}]`),
        `2:22 directories[0].path: ${folderPath}`,
      ],
    ),
    [
      withProgram(`directories: [${'{path: /a},'.repeat(257)}]`),
      '2:14 directories: expected at most 256 folders',
    ],
    // Setuid, setgid and sticky bits, and what is no octal number.
    ...[
      '4755',
      '2640',
      '1640',
      '04755',
      '0o4755',
      '64',
      '6400',
      '0x1a0',
      '648',
      'rw-r-----',
      '-640',
      '""',
    ].map((mode): [string, string] => [file(`mode: ${mode}`), `2:43 injection_files[0].mode: ${octal}`]),
    [file('mode: {}'), '2:37 injection_files[0].mode: expected a text, found a mapping'],
    [file('owner: a:b'), `2:44 injection_files[0].owner: ${someone}`],
    [file('group: ""'), `2:44 injection_files[0].group: ${someone}`],
    ...['0', '2', '1024', '-3', '3.5', 'x'].map((fd): [string, string] => [
      withProgram(`injection_files: [{from: a, to: {fd: ${fd}}}]`),
      '2:38 injection_files[0].to.fd: expected a whole number from 3 to 1023',
    ]),
    [
      withProgram('injection_files: [{from: a, to: {FD: 3}}]'),
      '2:29 injection_files[0].to.fd: the key "fd" is missing',
    ],
    [
      withProgram('injection_files: [{from: a, to: {fd: 3}}, {from: b, to: {fd: 3}}]'),
      '2:53 injection_files[1].to: two files are written to descriptor 3',
    ],
    [
      withProgram('injection_files: [{from: a, to: /x/y}, {from: b, to: /x//y}]'),
      '2:54 injection_files[1].to: two files are written to /x/y',
    ],
    [supervise('on_change: restrat'), `2:24 supervise.on_change: ${onChange}, found another text`],
    [supervise('on_change: SIGHUP'), `2:24 supervise.on_change: ${onChange}, found another text`],
    [supervise('on_change: {signal: HUP}'), `2:33 supervise.on_change.signal: ${signals}`],
    [supervise('on_change: {signal: SIGSTOP}'), `2:33 supervise.on_change.signal: ${signals}`],
    [supervise('on_change: {signl: SIGHUP}'), '2:13 supervise.on_change.signal: the key "signal" is missing'],
    [
      supervise('on_change: {command: /bin/x}'),
      '2:34 supervise.on_change.command: expected a list, found another text',
    ],
    ...['[]', '[x]', '["", /x]'].map((command): [string, string] => [
      supervise(`on_change: {command: ${command}}`),
      '2:34 supervise.on_change.command: expected the absolute path of a program, and its arguments',
    ]),
    [
      supervise('on_change: {command: [/x, $$SCONE::a$$]}'),
      '2:39 supervise.on_change.command[1]: a command here holds no secret, since everybody can see it',
    ],
    [
      supervise('on_change: {command: [/x, "\\0"]}'),
      '2:39 supervise.on_change.command[1]: an argument holds no NUL byte',
    ],
    [
      supervise('on_change: {command: [/x], signal: SIGHUP}'),
      '2:48 supervise.on_change.signal: unknown key "signal", expected one of: command, sha256',
    ],
    [supervise('kill_signal: 15'), `2:26 supervise.kill_signal: ${signals}`],
    ...['10', '25h', '0s', '-1s', '', 'soon', '1y'].map((duration): [string, string] => [
      supervise(`kill_timeout: "${duration}"`),
      `2:27 supervise.kill_timeout: ${someDuration}`,
    ]),
    [supervise('splay: 2 days'), `2:20 supervise.splay: ${someDuration}`],
    [supervise('debounce: 100'), `2:23 supervise.debounce: ${someDuration}`],
    [supervise('remove_files: 1'), '2:27 supervise.remove_files: expected true or false'],
    [supervise('redact: on'), '2:21 supervise.redact: expected true or false'],
    [
      withProgram('supervise: true'),
      '2:12 supervise: expected a mapping of keys to values, found another text',
    ],
    [
      supervise('onchange: files'),
      '2:23 supervise.onchange: unknown key "onchange", expected one of: on_change, kill_signal, kill_timeout, splay, debounce, remove_files, redact',
    ],
  ];
  for (const [text, problem] of rejected)
    test(text.slice(text.indexOf('\n') + 1, 100), () => {
      assert.ok(
        problemsOf(() => parseLauncherConfiguration(text)).includes(problem),
        problemsOf(() => parseLauncherConfiguration(text)).join('\n'),
      );
    });
  test('a misspelled word is guessed', () => {
    for (const [text, guess] of [
      [supervise('on_change: restrat'), 'restart'],
      [supervise('kill_signal: SIGTRM'), 'SIGTERM'],
      [supervise('on_change: {signl: SIGHUP}'), 'signal'],
      [withProgram('supervize: {}'), 'supervise'],
    ] as const)
      assert.throws(
        () => parseLauncherConfiguration(text),
        (error) =>
          error instanceof InvalidText && error.problems.some(({ suggestion }) => suggestion === guess),
        text,
      );
  });
});

describe('what contradicts itself is refused', () => {
  const generation = 'directories: [{path: /run/g, generation: true}]';
  const contradictory: [text: string, problem: string][] = [
    ...['/run/g/./x', '/run/g/x/../y', '/run/g//x', '/run//g/x', '/run/./g/x', '/run/h/../g/x'].map(
      (to): [string, string] => [
        withProgram(generation, `injection_files: [{from: a, to: ${to}}]`),
        '3:33 injection_files[0].to: a path within a generation has no ., .. or doubled slashes',
      ],
    ),
    [
      withProgram(generation, 'injection_files: [{from: a, to: /run/g}]'),
      '2:22 directories[0].path: /run/g is there twice, or a file as well',
    ],
    [
      withProgram('directories: [{path: /d}, {path: /d, generation: true}]'),
      '2:34 directories[1].path: /d is there twice, or a file as well',
    ],
    [
      withProgram('directories: [{path: /d/e}, {path: /d, generation: true}]'),
      '2:22 directories[0].path: folders within a generation are made by themselves',
    ],
    [
      withProgram('directories: [{path: /d, generation: true}, {path: /d/e, generation: true}]'),
      '2:52 directories[1].path: folders within a generation are made by themselves',
    ],
  ];
  for (const [text, problem] of contradictory)
    test(text.slice(text.indexOf('\n') + 1), () => {
      assert.deepEqual(
        problemsOf(() => parseLauncherConfiguration(text)),
        [problem],
      );
    });
  test('and what only looks like it is not', () => {
    for (const text of [
      withProgram(generation, 'injection_files: [{from: a, to: /run/g/h/x}, {from: a, to: /run/gx//y}]'),
      withProgram('directories: [{path: /d}, {path: /d/e}, {path: /d/e/f, generation: true}, {path: /d/ex}]'),
    ])
      parseLauncherConfiguration(text);
  });
});

test('a session is warned of what has no effect', () => {
  const warnings = (...lines: string[]) =>
    parseSession(
      sessionText(
        'services: [{name: s, image_name: i, one_time_password_shared_secret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ}]',
        'images:',
        '- name: i',
        '  injection_files:',
        '  - {path: /a, content: a}',
        '  - path: /etc/envcas/config.yaml',
        '    content: |',
        ...withProgram(...lines)
          .split('\n')
          .map((line) => `      ${line}`),
      ),
    ).warnings.map(({ line, message }) => `${line} ${message}`);
  const files = 'injection_files: [{from: /a, to: /run/a}, {from: /a, to: {fd: 3}}]';
  assert.deepEqual(warnings(files, 'supervise: {on_change: restart, remove_files: true}'), []);
  assert.deepEqual(warnings(files, 'directories: [{path: /run/g, generation: true}]'), [
    '10 in this file, no file is written to the generation /run/g',
  ]);
  assert.deepEqual(warnings('supervise: {on_change: files, remove_files: true}'), [
    '10 in this file, there are no files for `remove_files` to remove',
    '10 in this file, `on_change` is about files, and none is written',
  ]);
  assert.deepEqual(warnings(files, 'supervise: {on_change: {signal: SIGHUP}}'), [
    '10 in this file, a descriptor keeps what it held when the program was started, unless `on_change` is restart',
  ]);
});
