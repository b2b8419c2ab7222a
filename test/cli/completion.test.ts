import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { before, test } from 'node:test';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { executables, missing, run } from '../support/stack.ts';

let home: string;
let env: Record<string, string>;
before(() => {
  home = temporaryFolder();
  const PATH = `${dirname(executables().scone)}:${process.env.PATH}`;
  // Without the locale, fish finds nothing in a folder with other than ASCII letters in its name.
  env = { HOME: home, PATH, TERM: 'dumb', LC_ALL: 'C.UTF-8' };
  writeFileSync(join(home, 'some-file.yaml'), '');
  writeFileSync(join(home, 'odd name'), '');
  mkdirSync(join(home, 'some.d'));
  mkdirSync(join(home, '.cas'));
  writeState('.cas/config.json', 'cas.example', 'localhost:8081');
  writeState('other.json', 'elsewhere');
});

function writeState(path: string, ...names: string[]): void {
  const cas_db = Object.fromEntries(names.map((name) => [name, { url: `https://${name}/`, chain: '' }]));
  writeFileSync(join(home, path), JSON.stringify({ cas_db }), { mode: 0o600 });
}

/** What the last of the words may become; nothing else is ever printed. */
function complete(...words: string[]): string[] {
  const { status, stdout, stderr } = run(executables().scone, ['complete', '--', ...words], env);
  assert.deepEqual([status, stderr], [0, '']);
  return stdout.split('\n').flatMap((line) => (line === '' ? [] : [line.replace(/\t.*$/, '')]));
}

test('commands, options and values are offered where they fit', () => {
  const expected: [string[], string[]][] = [
    [['c'], ['cas', 'cert', 'completion']],
    [
      ['cas', 'show-'],
      ['show-certificate', 'show-config', 'show-identification'],
    ],
    [['cas', 'nonsense', ''], []],
    [['session', 'create', '--use'], ['--use-env']],
    [
      ['session', 'create', '--use-env', '-'],
      [
        ...['-e', '--use-env', '--name', '--allow-references', '--fail-on-warning', '--json', '--help'],
        ...['--cas', '--identity', '--retries', '--only_for_testing-disable-attestation-verification'],
      ],
    ],
    [['session', 'create', '--', '--use'], [':file']],
    [['up', '--log-level', 'd'], ['debug']],
    [['up', '--log-level=d'], ['--log-level=debug']],
    [
      ['completion', ''],
      ['bash', 'zsh', 'fish'],
    ],
    [['completion', 'bash', ''], []],
    [['session', 'sign', 'x', 'add'], ['add-signature']],
    [['session', 'calculate-hash', '--with-self-as-creator=s'], ['--with-self-as-creator=signer']],
  ];
  for (const [words, candidates] of expected)
    assert.deepEqual(complete(...words).sort(), candidates.sort(), words.join(' '));
});

test('a file is asked for where one is expected, and nowhere else', () => {
  for (const words of [
    ['-c', ''],
    ['-o', 'x'],
    ['--config=x'],
    ['@x'],
    ['session', 'check', ''],
    ['session', 'check', '-e', 'A=b', ''],
    ['cert', 'show-key-hash', 'a'],
    ['up', '--dir', ''],
    ['cas', 'list', '-o', ''],
    ['session', 'create', '--identity', ''],
    ['session', 'encrypt', 'x', '--key='],
    ['session', 'sign', 'x', 'add-signature', ''],
  ])
    assert.deepEqual(complete(...words), [':file'], words.join(' '));
  for (const words of [
    ['session', 'read', ''],
    ['session', 'sign', 'x', 'add-signature', 'x', ''],
    ['otp', 'show', ''],
    ['session', 'check', '-e', ''],
    ['cas', 'attest', ''],
    ['@@x'],
  ])
    assert.deepEqual(complete(...words), [], words.join(' '));
});

test('the names of attested CASes are those of the state file in use', () => {
  const all = ['cas.example', 'localhost:8081'];
  assert.deepEqual(complete('cas', 'set-default', ''), all);
  assert.deepEqual(complete('session', 'read', 'x', '-c', 'ca'), ['cas.example']);
  assert.deepEqual(complete('session', 'read', '--cas=lo'), ['--cas=localhost:8081']);
  assert.deepEqual(complete('cas', 'set-default', 'x', ''), []);
  assert.deepEqual(complete('-c', join(home, 'other.json'), 'cas', 'show-certificate', ''), ['elsewhere']);
  const broken = join(home, 'broken.json');
  writeFileSync(broken, '{"identity": "PRIVATE', { mode: 0o600 });
  assert.deepEqual(complete('-c', broken, 'cas', 'show-certificate', ''), []);
});

test('what is left out is not offered', () => {
  const offered = [
    ...complete(''),
    ...complete('cas', ''),
    ...complete('las', ''),
    ...complete('cas', 'attest', '-'),
  ];
  assert.ok(offered.includes('session') && offered.includes('attest') && offered.includes('--mrenclave'));
  for (const name of ['fspf', 'gcc', 'probe', '--software-key-hash', 'complete'])
    assert.equal(offered.includes(name), false, name);
});

const cases: [string, string][] = [
  ['scone cas set-d', 'scone cas set-default'],
  ['scone cas set-default loc', 'scone cas set-default localhost:8081'],
  ['scone session read --cas=cas', 'scone session read --cas=cas.example'],
  ['scone session check some-', 'scone session check some-file.yaml'],
  ['scone --config=some-', 'scone --config=some-file.yaml'],
  ['scone @some-', 'scone @some-file.yaml'],
  ['scone up --log-level=w', 'scone up --log-level=warn'],
  ['scone cas set-default localhost:80', 'scone cas set-default localhost:8081'],
];

/** Types lines in a shell at a terminal, with a tab after each of them, and gives the lines as they are then. */
function type(shell: string, start: string): string[] {
  const [toStart, toEnd] = ['\x01', '\x05'];
  const lines = cases.map(([typed]) => `${typed}\t${toStart}echo '[${toEnd}]'\n`);
  const input = ['cd ~', start, ...lines.map((line) => line.trimEnd()), 'exit', ''].join('\n');
  const { stdout } = run('script', ['-qec', shell, '/dev/null'], env, input);
  return [...stdout.matchAll(/^(?:\x1b\S*\r)?\[(scone [^\]]*)\]\r?$/gm)].map(([, line = '']) => line.trim());
}

test('bash completes what is typed', { skip: missing('bash', 'script') }, () => {
  assert.deepEqual(
    type('bash --norc --noprofile -i', 'source <(scone completion bash)'),
    cases.map(([, completed]) => completed),
  );
});

test('zsh completes what is typed', { skip: missing('zsh', 'script') }, () => {
  assert.deepEqual(
    type('zsh -f -i', 'autoload -U compinit; compinit -D -u; source <(scone completion zsh)'),
    cases.map(([, completed]) => completed),
  );
});

test('fish completes what is typed', { skip: missing('fish') }, () => {
  for (const [typed, completed] of cases) {
    const line = `scone completion fish | source; cd ~; complete -C '${typed}'`;
    const { stdout, stderr } = run('fish', ['-c', line], env);
    assert.equal(stdout.replace(/\t.*/, '').trim(), completed.split(' ').at(-1), stderr);
  }
});

test('in bash, a cursor within a word counts, and so do names with a space', {
  skip: missing('bash'),
}, () => {
  const script = `
    compopt() { echo "compopt $*"; }
    source <(scone completion bash)
    COMP_LINE='scone  cas set-dXYZ more' COMP_POINT=16 COMP_WORDS=(scone cas set-dXYZ more) COMP_CWORD=2
    _scone scone set-d cas; echo "\${COMPREPLY[@]}"
    cd ~; COMP_LINE='scone @odd' COMP_POINT=10 COMP_WORDS=(scone @odd) COMP_CWORD=1
    _scone scone @odd scone; echo "\${COMPREPLY[@]}"
    COMP_LINE='scone @some.' COMP_POINT=12 COMP_WORDS=(scone @some.) COMP_CWORD=1
    _scone scone @some. scone; echo "\${COMPREPLY[@]}"`;
  const { stdout } = run('bash', ['-c', script], env);
  assert.equal(stdout, 'set-default\n@odd\\ name\ncompopt -o nospace\n@some.d/\n');
});
