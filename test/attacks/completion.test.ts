import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { executables, missing, run } from '../support/stack.ts';

const { scone } = executables();

/** A user who has attested CASes of these names, and works in an empty folder. */
function userOf(names: readonly string[]) {
  const home = temporaryFolder();
  const work = join(home, 'work');
  mkdirSync(work);
  mkdirSync(join(home, '.cas'), { mode: 0o700 });
  const state = join(home, '.cas', 'config.json');
  const cas_db = Object.fromEntries(names.map((name) => [name, { url: 'https://x/', chain: '' }]));
  writeFileSync(state, JSON.stringify({ cas_db }), { mode: 0o600 });
  const env = {
    ...{ HOME: home, PATH: `${dirname(scone)}:${process.env.PATH}`, TERM: 'dumb', LC_ALL: 'C.UTF-8' },
    WORK: work,
  };
  return { env, work, state: () => JSON.parse(readFileSync(state, 'utf8')) };
}

const shells = {
  bash: { start: 'source <(scone completion bash)', command: 'bash --norc --noprofile -i' },
  zsh: {
    start: 'autoload -U compinit; compinit -D -u; source <(scone completion zsh)',
    command: 'zsh -f -i',
  },
  fish: { start: 'scone completion fish | source', command: 'fish --no-config -i' },
};
const hostile = [
  'evil$(touch made)',
  'evil`touch made`;touch made',
  'evil;touch made #',
  'evil\'x\' "y" & touch made | cat',
  'evil two\\words > made',
  'evil *?[a]{b,c}~!!',
];

describe('a name that a shell would run is put in quoted', () => {
  for (const [shell, { start, command }] of Object.entries(shells))
    for (const name of hostile)
      test(`by ${shell}: ${name}`, { skip: missing(shell, 'script') }, () => {
        const { env, work, state } = userOf([name, 'other']);
        const lines = [start, 'cd $WORK', 'scone cas set-default evi\t', 'exit', ''];
        const { stdout } = run('script', ['-qec', command, '/dev/null'], env, lines.join('\n'));
        assert.deepEqual(readdirSync(work), [], stdout);
        assert.equal(state().default_cas, name, stdout);
      });
});

test('bash goes on with a name that it has quoted', { skip: missing('bash') }, () => {
  const { env } = userOf(['evil two$(x)', 'evil twice']);
  const script = `source <(scone completion bash)
    COMP_LINE='scone cas set-default evil\\ tw' COMP_POINT=31 COMP_WORDS=(scone cas set-default 'evil\\ tw') COMP_CWORD=3
    _scone scone 'evil\\ tw' set-default; printf '%s\\n' "\${COMPREPLY[@]}"`;
  assert.equal(run('bash', ['-c', script], env).stdout, 'evil\\ two\\$\\(x\\)\nevil\\ twice\n');
});

test('a name that stands for a file, an option or another line is not offered', () => {
  const { env } = userOf([':file', '-o', '--json', 'a\nb', 'a\tb', 'a\x1b[2Jb', 'a\u202eb', 'plain']);
  assert.match(run(scone, ['complete', '--', 'cas', 'set-default', ''], env).stdout, /^plain\t.*\n$/);
});
