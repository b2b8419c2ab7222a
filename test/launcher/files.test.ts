import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { materialise } from '../../src/launcher/materialise.ts';
import { run, type Stack, startStack } from '../support/stack.ts';
import {
  assertEmpty,
  assertFailed,
  codeFrom,
  fixtures,
  folder,
  launch,
  NOBODY,
  newSharedSecret,
  noOthers,
  noteOf,
  openToOthers,
  type Policy,
  root,
  upload,
} from './support.ts';

let stack: Stack;
before(async () => {
  stack = await startStack();
  openToOthers(stack);
});

/** Values that mean something to a shell, to YAML, to the policy language or to a terminal. */
const odd = {
  hostArgument: '@@1 @@2',
  reference: '$$SCONE::other$$ $$SCONE::',
  hostVariable: '\\@\\@HOME "@@HOME"',
  quotes: `it's "quoted" \\"\\' \``,
  newlines: '\nfirst\r\n\n  last\t\n',
  yaml: '}]\n- {from: /x, to: /y} # &a *a !!b |\n...\n---\nprogram: /bin/false\n',
  shell: '$HOME ${HOME} $(id) `id` ; & | > /dev/null *',
  printf: '%s%n {0} \\n \\x41 \\u0041',
  unicode: '\u00e4\u{1f511}\u202e\u001b[31m\ufeff',
};

/** Launches; gives what the program wrote. */
function succeed(id: string, args: string[] = [], env: NodeJS.ProcessEnv = {}): string {
  const result = stack.launch(id, { args, env });
  assert.deepEqual({ status: result.status, stderr: result.stderr }, { status: 0, stderr: '' });
  return result.stdout;
}

describe('a file', () => {
  for (const umask of ['0777', '0022', '0000'])
    test(`has mode 0600 and belongs to the caller, also under umask ${umask}`, async () => {
      const directory = folder(stack);
      const to = `${directory}/out`;
      const id = await upload(stack, { program: '/bin/true', files: [{ to, content: 'text' }] });
      const env = { ...stack.env, SCONE_CONFIG_ID: id };
      const result = run('/bin/sh', ['-c', `umask ${umask}; exec "$0"`, stack.envcas], env);
      assert.deepEqual(result, { status: 0, signal: null, stdout: '', stderr: '' });
      const { mode, uid, gid, nlink } = lstatSync(to);
      assert.deepEqual(
        { mode: mode.toString(8), uid, gid, nlink },
        { mode: '100600', uid: process.getuid?.(), gid: process.getgid?.(), nlink: 1 },
      );
      assert.equal(readFileSync(to, 'utf8'), 'text');
      assert.deepEqual(readdirSync(directory), ['out']);
    });

  test('belongs to the caller where that is another user than the one of the LAS', {
    skip: noOthers,
  }, async () => {
    const directory = folder(stack);
    chmodSync(directory, 0o777);
    const id = await upload(stack, {
      command: ['-c', `cat "${directory}/out"; id -u`],
      files: [{ to: `${directory}/out`, content: 'text\n' }],
    });
    const result = await launch(stack, id, { uid: NOBODY, env: { HOME: '/nonexistent' } }).finished;
    assert.deepEqual(result, { status: 0, signal: null, stdout: `text\n${NOBODY}\n`, stderr: '' });
    const { mode, uid, gid } = lstatSync(`${directory}/out`);
    assert.deepEqual({ mode: mode.toString(8), uid, gid }, { mode: '100600', uid: NOBODY, gid: NOBODY });
  });

  for (const spelling of ['injection_files', 'injected_file'] as const)
    test(`can be asked for under ${spelling}`, async () => {
      const directory = folder(stack);
      const files = ['one', 'two', 'three'].map((name) => ({ to: `${directory}/${name}`, content: name }));
      const id = await upload(stack, {
        spelling,
        files,
        command: ['-c', `cd "${directory}" && cat one two three`],
      });
      assert.equal(succeed(id), 'onetwothree');
      assert.deepEqual(readdirSync(directory).sort(), ['one', 'three', 'two']);
    });

  test('can be asked for under both at once, and one source can have two targets', async () => {
    const directory = folder(stack);
    const id = await upload(stack, {
      config: [
        'program: /bin/true',
        `injection_files: [{from: /a, to: ${directory}/a1}, {from: /a, to: ${directory}/a2}]`,
        `injected_file: [{from: /b, to: ${directory}/b}]`,
      ].join('\n'),
      files: [
        { from: '/a', to: '', content: 'A' },
        { from: '/b', to: '', content: 'B' },
        { from: '/unused', to: '', content: 'not written' },
      ],
    });
    succeed(id);
    const found = readdirSync(directory).sort();
    assert.deepEqual(
      found.map((name) => [name, readFileSync(join(directory, name), 'utf8')]),
      [
        ['a1', 'A'],
        ['a2', 'A'],
        ['b', 'B'],
      ],
    );
  });

  test('is written with what surrounds a secret, or empty, or large', async () => {
    const directory = folder(stack);
    const large = 'line with \u00e4\n'.repeat(100_000);
    const contents = { empty: '', text: '\n a\tb \n\n', around: '<$$SCONE::s$$$$SCONE::s$$>$', large };
    const id = await upload(stack, {
      program: '/bin/true',
      files: Object.entries(contents).map(([name, content]) => ({ to: `${directory}/${name}`, content })),
      secrets: { s: { kind: 'ascii', value: 'xy' } },
    });
    succeed(id);
    for (const [name, content] of Object.entries({ ...contents, around: '<xyxy>$' }))
      assert.ok(readFileSync(join(directory, name)).equals(Buffer.from(content)), name);
  });

  test('holds a binary secret byte for byte', async () => {
    const directory = folder(stack);
    const every = Buffer.from(Array.from({ length: 512 }, (_, index) => index % 256)).toString('hex');
    const id = await upload(stack, {
      program: '/usr/bin/env',
      command: ['-0'],
      environment: { MADE: '$$SCONE::made:hex$$', MADE64: '$$SCONE::made:base64$$' },
      files: Object.entries({
        every: '$$SCONE::every$$',
        made: '$$SCONE::made$$',
        bin: '$$SCONE::made:bin$$',
        between: 'a\n$$SCONE::made$$\nb$$SCONE::every:bin$$',
        large: '$$SCONE::large$$',
        hash: '$$SCONE::large:hex$$',
      }).map(([name, content]) => ({ to: `${directory}/${name}`, content })),
      secrets: {
        every: { kind: 'binary', value: every },
        made: { kind: 'binary', size: 1000 },
        large: { kind: 'binary', size: 1024 * 1024 },
      },
    });
    const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
    const variables = Object.fromEntries(
      succeed(id)
        .split('\0')
        .map((variable) => variable.split(/=(.*)/s, 2)),
    );
    const made = Buffer.from(variables.MADE, 'hex');
    const read = (name: string) => readFileSync(join(directory, name));
    assert.equal(made.length, 1000);
    assert.deepEqual(Buffer.from(variables.MADE64, 'base64'), made);
    assert.equal(read('every').toString('hex'), every);
    assert.equal(sha256(read('made')), sha256(made));
    assert.equal(sha256(read('bin')), sha256(made));
    const between = Buffer.concat([Buffer.from('a\n'), made, Buffer.from('\nb'), Buffer.from(every, 'hex')]);
    assert.equal(sha256(read('between')), sha256(between));
    assert.equal(read('large').length, 1024 * 1024);
    assert.equal(sha256(read('large')), sha256(Buffer.from(read('hash').toString(), 'hex')));
    // Another launch gives the program the same bytes.
    succeed(id);
    assert.equal(sha256(read('made')), sha256(made));
  });
});

describe('the name of a file', () => {
  for (const [what, name, options] of [
    ['can be as long as a name can be', 'x'.repeat(255), {}],
    ['can be as long as a name can be, also in other letters', '\u00e4'.repeat(127), {}],
    ['can have any letter', ' \t"\'\\*\u{1f511}-', {}],
    ['can begin with a dot or a dash', '.-', {}],
  ] as const)
    test(what, options, async () => {
      const directory = folder(stack);
      const files = [{ to: `${directory}/${name}`, content: 'text' }];
      assert.equal(succeed(await upload(stack, { command: ['-c', 'echo started'], files })), 'started\n');
      assert.deepEqual(readdirSync(directory), [name]);
    });
});

describe('in the place of a file', () => {
  const cases: [what: string, prepare: (to: string, other: string) => void, other: string | undefined][] = [
    ['an older file is replaced', (to) => writeFileSync(to, 'old', { mode: 0o644 }), undefined],
    [
      'a file that nobody may write is replaced',
      (to) => writeFileSync(to, 'old', { mode: 0o444 }),
      undefined,
    ],
    [
      'a symbolic link is replaced, and the file that it names is left alone',
      (to, other) => {
        writeFileSync(other, 'other');
        symlinkSync(other, to);
      },
      'other',
    ],
    [
      'a symbolic link to nothing is replaced, not followed',
      (to, other) => symlinkSync(other, to),
      undefined,
    ],
    ['a symbolic link to a folder is replaced', (to) => symlinkSync(join(to, '..'), to), undefined],
    [
      'another name of an older file keeps its content and its mode',
      (to, other) => {
        writeFileSync(other, 'other', { mode: 0o644 });
        linkSync(other, to);
      },
      'other',
    ],
  ];
  for (const [what, prepare, expected] of cases)
    test(what, async () => {
      const directory = folder(stack);
      const [to, other] = [`${directory}/out`, `${directory}/other`];
      prepare(to, other);
      const before = existsSync(other) ? statSync(other).mode : undefined;
      succeed(await upload(stack, { program: '/bin/true', files: [{ to, content: 'new' }] }));
      assert.equal(lstatSync(to).isFile(), true);
      assert.equal(lstatSync(to).mode & 0o777, 0o600);
      assert.equal(readFileSync(to, 'utf8'), 'new');
      assert.equal(existsSync(other) ? readFileSync(other, 'utf8') : undefined, expected);
      assert.equal(existsSync(other) ? statSync(other).mode : undefined, before);
      assert.deepEqual(readdirSync(directory).sort(), expected === undefined ? ['out'] : ['other', 'out']);
    });

  test('what a program reads while the next launch writes is one whole version', async () => {
    const directory = folder(stack);
    const content = '$$SCONE::s$$\n'.repeat(20_000);
    const policy: Policy = {
      program: '/bin/true',
      files: [{ to: `${directory}/out`, content }],
    };
    const ids = await Promise.all(
      ['a', 'b'].map((letter) =>
        upload(stack, { ...policy, secrets: { s: { kind: 'ascii', value: letter.repeat(50) } } }),
      ),
    );
    const seen = new Set<string>();
    const launches = [...ids, ...ids, ...ids].map((id) => launch(stack, id).finished);
    let going = true;
    const reading = (async () => {
      while (going) {
        try {
          const text = readFileSync(`${directory}/out`, 'utf8');
          assert.equal(text, `${text.slice(0, 50)}\n`.repeat(20_000));
          seen.add(text[0] ?? '');
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
        }
        await new Promise(setImmediate);
      }
    })();
    for (const { status, stderr } of await Promise.all(launches)) assert.equal(status, 0, stderr);
    going = false;
    await reading;
    assert.ok(seen.size > 0);
    assert.deepEqual(readdirSync(directory), ['out']);
  });
});

describe('a launch that fails leaves no file, and starts no program:', () => {
  type Failing = (directory: string) => Policy & {
    code: Parameters<typeof assertFailed>[1];
    says?: string;
    prepare?: () => void;
    /** What was there before, and stays. */
    left?: string[];
    args?: string[];
  };
  const cases: [what: string, failing: Failing][] = [
    [
      'the folder of the second target does not exist',
      (d) => ({
        files: [{ to: `${d}/missing/out2`, content: 'b' }],
        code: 'TARGET_UNWRITABLE',
        says: `cannot write ${d}/missing/out2: no such file or directory`,
      }),
    ],
    [
      'the second target is a directory',
      (d) => ({
        files: [{ to: `${d}/directory`, content: 'b' }],
        prepare: () => mkdirSync(`${d}/directory`),
        left: ['directory'],
        code: 'TARGET_UNWRITABLE',
        says: `cannot write ${d}/directory: there is something that is neither a file nor a symbolic link`,
      }),
    ],
    [
      'the second target is a named pipe',
      (d) => ({
        files: [{ to: `${d}/pipe`, content: 'b' }],
        prepare: () => run('mkfifo', [`${d}/pipe`], stack.env),
        left: ['pipe'],
        code: 'TARGET_UNWRITABLE',
        says: `cannot write ${d}/pipe: there is something that is neither a file nor a symbolic link`,
      }),
    ],
    [
      'the folder of the second target is a file',
      (d) => ({
        files: [{ to: `${d}/file/out2`, content: 'b' }],
        prepare: () => writeFileSync(`${d}/file`, ''),
        left: ['file'],
        code: 'TARGET_UNWRITABLE',
        says: 'a part of the path is not a directory',
      }),
    ],
    [
      'the folder of the second target is the first target',
      (d) => ({ files: [{ to: `${d}/out1/out2`, content: 'b' }], code: 'TARGET_UNWRITABLE' }),
    ],
    [
      'the name of the second target is too long',
      (d) => ({
        files: [{ to: `${d}/${'x'.repeat(256)}`, content: 'b' }],
        code: 'TARGET_UNWRITABLE',
        says: 'the name is too long',
      }),
    ],
    [
      'the name of the second target is too long only in bytes',
      (d) => ({
        files: [{ to: `${d}/${'\u00e4'.repeat(130)}`, content: 'b' }],
        code: 'TARGET_UNWRITABLE',
        says: 'the name is too long',
      }),
    ],
    ['the program is missing', () => ({ program: '/nonexistent/program', code: 'PROGRAM_MISSING' })],
    [
      'the program is not executable',
      () => ({ program: join(fixtures, 'not-executable.sh'), code: 'PROGRAM_NOT_EXECUTABLE' }),
    ],
    [
      'the program has no format that the kernel knows, which shows only when it is started',
      () => ({ program: join(fixtures, 'no-shebang'), code: 'PROGRAM_NOT_EXECUTABLE' }),
    ],
    [
      'the interpreter of the program is missing, which shows only when it is started',
      () => ({ program: join(fixtures, 'no-interpreter.sh'), code: 'PROGRAM_NOT_EXECUTABLE' }),
    ],
    ['the working directory is missing', (d) => ({ pwd: `${d}/missing`, code: 'WORKING_DIRECTORY' })],
    ['the working directory is a file', () => ({ pwd: '/etc/passwd', code: 'WORKING_DIRECTORY' })],
    [
      'one variable is larger than the kernel takes, which shows only when the program is started',
      () => ({
        environment: { LARGE: 'x'.repeat(200_000) },
        code: 'ARGUMENTS_TOO_LARGE',
        says: 'with so many bytes of arguments and environment (E2BIG)',
      }),
    ],
    [
      'the arguments together are larger than the kernel takes',
      () => ({
        command: Array.from({ length: 30 }, () => '$$SCONE::large$$'),
        secrets: { large: { kind: 'ascii', size: 100_000 } },
        code: 'ARGUMENTS_TOO_LARGE',
        says: 'with so many bytes of arguments and environment (E2BIG)',
      }),
    ],
    ['a host argument is missing', () => ({ command: ['@@1'], code: 'HOST_ARGUMENT_MISSING' })],
    [
      'a template on the host is missing',
      (d) => ({
        files: [{ from: `${d}/template`, to: `${d}/out2`, content: null }],
        code: 'FILE_UNREADABLE',
        says: `cannot read the injection file ${d}/template: no such file or directory`,
      }),
    ],
    [
      'a template on the host is a directory',
      (d) => ({
        files: [{ from: d, to: `${d}/out2`, content: null }],
        code: 'FILE_UNREADABLE',
        says: 'it is a directory',
      }),
    ],
  ];
  for (const [what, failing] of cases)
    test(what, async () => {
      const directory = folder(stack);
      const { code, says = '', prepare, left = [], ...policy } = failing(directory);
      prepare?.();
      const id = await upload(stack, {
        command: ['-c', `touch "${directory}/started"`],
        ...policy,
        files: [{ to: `${directory}/out1`, content: 'a' }, ...(policy.files ?? [])],
      });
      const result = stack.launch(id, { env: { MARKER: `${directory}/started` } });
      assertFailed(result, code, { note: noteOf(stack, id), says: [says] });
      assert.deepEqual(readdirSync(directory), left);
    });

  test('the folder of the second target may not be written', { skip: root && noOthers }, async () => {
    const [open, closed] = [folder(stack), folder(stack)];
    chmodSync(open, 0o777);
    chmodSync(closed, 0o555);
    const id = await upload(stack, {
      command: ['-c', `touch ${open}/started`],
      files: [
        { to: `${open}/out1`, content: 'a' },
        { to: `${closed}/out2`, content: 'b' },
      ],
    });
    // Root may write everywhere, so there the launcher is somebody else.
    const result = await launch(stack, id, root ? { uid: NOBODY, env: { HOME: '/nonexistent' } } : {})
      .finished;
    assertFailed(result, 'TARGET_UNWRITABLE', {
      note: noteOf(stack, id),
      says: [`cannot write ${closed}/out2: permission denied`],
    });
    assertEmpty(open);
    assertEmpty(closed);
  });

  for (const [what, folderMode, mode] of [
    ['where only owners may replace, as in /tmp', 0o1777, 0o644],
    ['where everybody may replace', 0o777, 0o644],
    ['where everybody may replace, and it cannot be read', 0o777, 0o600],
  ] as const)
    test(`the second target belongs to somebody else, in a folder ${what}`, {
      skip: noOthers,
    }, async () => {
      const directory = folder(stack);
      chmodSync(directory, folderMode);
      writeFileSync(`${directory}/out2`, 'of root', { mode });
      const id = await upload(stack, {
        command: ['-c', `touch "${directory}/started"`],
        files: ['out1', 'out2'].map((name) => ({ to: `${directory}/${name}`, content: 'new' })),
      });
      const result = await launch(stack, id, { uid: NOBODY, env: { HOME: '/nonexistent' } }).finished;
      assertFailed(result, 'TARGET_UNWRITABLE', {
        note: noteOf(stack, id),
        says: [`cannot write ${directory}/out2: a file of another user is there`],
      });
      assert.deepEqual(readdirSync(directory), ['out2']);
      assert.equal(readFileSync(`${directory}/out2`, 'utf8'), 'of root');
      assert.equal(statSync(`${directory}/out2`).mode & 0o777, mode);
    });

  test('a write fails half way', async () => {
    // By a limit on the size of files, as it also would on a full disk.
    const directory = folder(stack);
    const id = await upload(stack, {
      command: ['-c', `touch "${directory}/started"`],
      files: [
        { to: `${directory}/out1`, content: 'a' },
        { to: `${directory}/out2`, content: 'b'.repeat(100_000) },
      ],
    });
    const env = { ...stack.env, SCONE_CONFIG_ID: id };
    const result = run('/bin/bash', ['-c', 'ulimit -f 20; exec "$0"', stack.envcas], env);
    assertFailed(result, 'TARGET_UNWRITABLE', { note: noteOf(stack, id) });
    assertEmpty(directory);
  });
});

describe('what was in the place of a file is put back when the program does not start:', () => {
  /** Shows only when the program is started, after all files are in their places. */
  const tooLarge = { environment: { LARGE: 'x'.repeat(200_000) } };
  const attempt = async (directory: string, names: string[]) => {
    const files = names.map((name) => ({ to: `${directory}/${name}`, content: 'new' }));
    const id = await upload(stack, { ...tooLarge, files });
    assertFailed(stack.launch(id), 'ARGUMENTS_TOO_LARGE', { note: noteOf(stack, id) });
  };

  test('a file with its content and mode', async () => {
    const directory = folder(stack);
    writeFileSync(`${directory}/out2`, 'old');
    chmodSync(`${directory}/out2`, 0o640);
    await attempt(directory, ['out1', 'out2', 'out3']);
    assert.deepEqual(readdirSync(directory), ['out2']);
    assert.equal(readFileSync(`${directory}/out2`, 'utf8'), 'old');
    assert.equal(statSync(`${directory}/out2`).mode & 0o7777, 0o640);
  });

  test("a file of somebody else with its owner, where root is the launcher's user", {
    skip: !root && 'only root can make a file of somebody else',
  }, async () => {
    const directory = folder(stack);
    writeFileSync(`${directory}/out2`, 'of nobody', { mode: 0o600 });
    chownSync(`${directory}/out2`, NOBODY, NOBODY);
    await attempt(directory, ['out1', 'out2', 'out3']);
    assert.deepEqual(readdirSync(directory), ['out2']);
    assert.equal(readFileSync(`${directory}/out2`, 'utf8'), 'of nobody');
    const { uid, gid, mode } = statSync(`${directory}/out2`);
    assert.deepEqual({ uid, gid, mode: mode & 0o777 }, { uid: NOBODY, gid: NOBODY, mode: 0o600 });
  });

  test('a symbolic link', async () => {
    const directory = folder(stack);
    symlinkSync('nowhere', `${directory}/out2`);
    await attempt(directory, ['out1', 'out2', 'out3']);
    assert.deepEqual(readdirSync(directory), ['out2']);
    assert.equal(readlinkSync(`${directory}/out2`), 'nowhere');
  });
});

describe('folders and generations', () => {
  test('are made as they are described, swapped when something changes, and cleared of what was left behind', async () => {
    const directory = folder(stack);
    const config = [
      'program: /bin/sh',
      'directories:',
      `  - {path: ${directory}/made, mode: "0750"}`,
      `  - {path: ${directory}/made/set, generation: true, mode: "0500"}`,
      'injection_files:',
      `  - {from: /one, to: ${directory}/made/set/one, mode: "0440"}`,
      `  - {from: /two, to: ${directory}/made/set/deep/two}`,
    ].join('\n');
    const launchWith = async (content: string) => {
      const id = await upload(stack, {
        config,
        command: ['-c', `cd "${directory}/made/set" && cat one deep/two`],
        files: ['/one', '/two'].map((from) => ({ from, to: '', content })),
      });
      assert.equal(succeed(id), content + content);
      return readlinkSync(`${directory}/made/set`);
    };
    const first = await launchWith('a');
    mkdirSync(`${directory}/made/.envcas-0123456789abcdef/deep`, { recursive: true });
    assert.equal(await launchWith('a'), first);
    const second = await launchWith('b');
    assert.notEqual(second, first);
    assert.deepEqual(readdirSync(`${directory}/made`).sort(), [second, 'set']);
    const modes = ['', 'set/', 'set/one', 'set/deep', 'set/deep/two'].map((name) =>
      lstatSync(`${directory}/made/${name}`).mode.toString(8),
    );
    assert.deepEqual(modes, ['40750', '40500', '100440', '40500', '100600']);
  });

  test('of a program that does not start are as before', async () => {
    const directory = folder(stack);
    const config = JSON.stringify({
      program: '/bin/true',
      directories: [{ path: `${directory}/made` }, { path: `${directory}/made/set`, generation: true }],
      injection_files: [{ from: '/one', to: `${directory}/made/set/one` }],
    });
    const files = [{ from: '/one', to: '', content: 'new' }];
    const id = await upload(stack, { config, files, environment: { LARGE: 'x'.repeat(200_000) } });
    assertFailed(stack.launch(id), 'ARGUMENTS_TOO_LARGE', { note: noteOf(stack, id) });
    assertEmpty(directory);
  });
});

describe('what a secret contains is never looked at again', () => {
  const other = { other: { kind: 'ascii', value: 'OTHER SECRET' } } as const;
  for (const [what, value] of Object.entries(odd))
    test(what, async () => {
      const directory = folder(stack);
      const environment = { VALUE: '<$$SCONE::odd$$>', '\\@\\@HOST': null };
      const id = await upload(stack, {
        command: [
          '-c',
          'printf %s\\\\0 "$VALUE" "$HOST" "$0" "$@"',
          '<$$SCONE::odd$$>',
          '$$SCONE::odd$$',
          '@@1',
        ],
        environment,
        files: [{ to: `${directory}/out`, content: 'a: "$$SCONE::odd$$"\n' }],
        secrets: { odd: { kind: 'ascii', value }, ...other },
      });
      const stdout = succeed(id, [value], { HOST: value });
      assert.deepEqual(stdout.split('\0'), [`<${value}>`, value, `<${value}>`, value, value, '']);
      assert.equal(readFileSync(`${directory}/out`, 'utf8'), `a: "${value}"\n`);
    });

  test('not in a template on the host either', async () => {
    const directory = folder(stack);
    const template = `${directory}/template`;
    const names = Object.keys(odd);
    writeFileSync(template, names.map((name) => `$$SCONE::${name}$$\0`).join(''));
    const id = await upload(stack, {
      program: '/bin/true',
      files: [{ from: template, to: `${directory}/out`, content: null }],
      secrets: {
        ...Object.fromEntries(Object.entries(odd).map(([name, value]) => [name, { kind: 'ascii', value }])),
        ...other,
      },
    });
    succeed(id, ['HOST ARGUMENT']);
    assert.equal(
      readFileSync(`${directory}/out`, 'utf8'),
      Object.values(odd)
        .map((value) => `${value}\0`)
        .join(''),
    );
  });
});

test('what cannot be put back keeps nothing else from being put back', () => {
  const directory = folder(stack);
  const other = join(directory, 'other');
  mkdirSync(other);
  const own = { mode: 0o600, uid: undefined, gid: undefined };
  const files = [join(directory, 'first'), join(other, 'second')].map((to) => ({
    ...own,
    to,
    content: Buffer.from('secret'),
  }));
  const { undo } = materialise({ files, directories: [] });
  rmSync(other, { recursive: true });
  writeFileSync(other, 'in the way');
  assert.match(String(undo()), /ENOTDIR/);
  assert.deepEqual(readdirSync(directory), ['other']);
});

describe('an injection file given by path only', () => {
  const secrets = {
    one: { kind: 'ascii', value: 'FIRST' },
    two: { kind: 'ascii', value: 'SECOND' },
    key: { kind: 'binary', value: '00ff80c3' },
  } as const;

  test('is read from the file system and filled in, whatever bytes it has', async () => {
    const directory = folder(stack);
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
    const template = Buffer.concat([
      bytes,
      Buffer.from('$$SCONE::one$$|$$SCONE::key$$|$$SCONE::key:hex$$'),
      bytes,
    ]);
    writeFileSync(`${directory}/template`, template);
    const id = await upload(stack, {
      program: '/bin/true',
      files: [{ from: `${directory}/template`, to: `${directory}/out`, content: null }],
      secrets,
    });
    succeed(id);
    const filled = [bytes, 'FIRST|', Buffer.from('00ff80c3', 'hex'), '|00ff80c3', bytes];
    assert.deepEqual(
      readFileSync(`${directory}/out`),
      Buffer.concat(filled.map((part) => (typeof part === 'string' ? Buffer.from(part) : part))),
    );
    assert.deepEqual(readFileSync(`${directory}/template`), template);
  });

  test('has the secrets of provide_secrets', async () => {
    const directory = folder(stack);
    writeFileSync(`${directory}/template`, '$$SCONE::two$$');
    const files = [{ from: `${directory}/template`, to: `${directory}/out`, content: null }];
    succeed(await upload(stack, { program: '/bin/true', files, secrets, provide: ['two', 'key'] }));
    assert.equal(readFileSync(`${directory}/out`, 'utf8'), 'SECOND');
  });

  for (const [what, content, provide, says] of [
    ['no secret outside of provide_secrets', '$$SCONE::one$$', ['two'], 'there is no secret one'],
    ['no secret where provide_secrets is empty', '$$SCONE::one$$', [], 'there is no secret one'],
    ['no key of one-time passwords', '$$SCONE::otp$$', undefined, 'there is no secret otp'],
    ['no secret that does not exist', 'a$$SCONE::three$$', undefined, 'there is no secret three'],
    ['no format that does not exist', '$$SCONE::one:hex$$', undefined, 'there is no secret one:hex'],
    ['no reference that is not closed', 'a\n$$SCONE::one', undefined, 'a $$SCONE:: reference is not closed'],
  ] as const)
    test(`has ${what}`, async () => {
      const directory = folder(stack);
      const otp = newSharedSecret();
      writeFileSync(`${directory}/template`, content);
      const id = await upload(stack, {
        command: ['-c', `touch "${directory}/started"`],
        files: [
          { to: `${directory}/out1`, content: '$$SCONE::one$$' },
          { from: `${directory}/template`, to: `${directory}/out2`, content: null },
        ],
        oneTimePassword: '$$SCONE::otp$$',
        secrets: { ...secrets, otp: { kind: 'ascii', value: otp } },
        ...(provide && { provide: [...provide] }),
      });
      const code = codeFrom(otp);
      assertFailed(stack.launch(`${id}@${code}`), 'TEMPLATE_INVALID', {
        note: noteOf(stack, id),
        says: [`${directory}/template: ${says}`],
        never: [code, 'FIRST'],
      });
      assert.deepEqual(readdirSync(directory), ['template']);
      rmSync(directory, { recursive: true });
    });
});

describe('/etc/envcas/config.yaml given by path only', () => {
  const folderPath = '/etc/envcas';
  const path = `${folderPath}/config.yaml`;
  let made = false;
  const remove = () => {
    if (made) rmSync(folderPath, { recursive: true, force: true });
    made = false;
  };
  before(() => {
    try {
      mkdirSync(folderPath, { mode: 0o755 });
      made = true;
      process.once('exit', remove);
    } catch {
      // Not root, or there is one, which stays as it is.
    }
  });
  after(remove);
  const need = (t: { skip(message: string): void }) => {
    if (!made) t.skip(`${folderPath} cannot be made here, or exists already`);
    return made;
  };

  test('is read from the file system', async (t) => {
    if (!need(t)) return;
    const directory = folder(stack);
    writeFileSync(
      path,
      [
        'program: /bin/sh # a comment',
        'injected_file:',
        `  - from: /text\n    to: ${directory}/text`,
        `injection_files: [{from: /more, to: ${directory}/more}]`,
      ].join('\n'),
    );
    const id = await upload(stack, {
      config: null,
      command: ['-c', 'echo started'],
      files: [
        { from: '/text', to: '', content: 'text' },
        { from: '/more', to: '', content: 'more' },
      ],
    });
    assert.equal(succeed(id), 'started\n');
    assert.deepEqual(readdirSync(directory).sort(), ['more', 'text']);
  });

  for (const [what, content, code, says] of [
    ['missing', undefined, 'FILE_UNREADABLE', `${path}: no such file`],
    ['no YAML', 'program: [', 'LAUNCHER_CONFIG_INVALID', 'config.yaml is not valid'],
    ['without a program', 'injection_files: []', 'LAUNCHER_CONFIG_INVALID', '"program" is missing'],
    ['with an unknown key', 'program: /bin/sh\nfiles: []', 'LAUNCHER_CONFIG_INVALID', 'unknown key "files"'],
    ['with a relative program', 'program: sh', 'LAUNCHER_CONFIG_INVALID', 'absolute path'],
    [
      'with a relative target',
      'program: /bin/sh\ninjection_files: [{from: /text, to: out}]',
      'LAUNCHER_CONFIG_INVALID',
      'absolute path',
    ],
    [
      'about a file that is not injected',
      'program: /bin/sh\ninjection_files: [{from: /other, to: /tmp/never}]',
      'FILE_NOT_INJECTED',
      '`from: /other` is none of the injected files',
    ],
    ['with an unknown secret', 'program: /bin/$$SCONE::x$$', 'TEMPLATE_INVALID', 'there is no secret x'],
    ['with a secret in a path', 'program: /bin/$$SCONE::key$$', 'LAUNCHER_CONFIG_INVALID', 'holds no secret'],
  ] as const)
    test(`${what} is an error, and nothing is done`, async (t) => {
      // That there is none can be tried wherever there is none.
      if ((content !== undefined || existsSync(path)) && !need(t)) return;
      const directory = folder(stack);
      if (content === undefined) rmSync(path, { force: true });
      else writeFileSync(path, content);
      const id = await upload(stack, {
        config: null,
        command: ['-c', `touch "${directory}/started"`],
        files: [{ from: '/text', to: '', content: 'text' }],
        secrets: { key: { kind: 'binary', value: '610062' } },
      });
      assertFailed(stack.launch(id), code, { note: noteOf(stack, id), says: [says] });
      assertEmpty(directory);
      assert.equal(existsSync('/tmp/never'), false);
    });
});
