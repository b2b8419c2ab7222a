import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  fstatSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Failure } from '../../src/errors.ts';
import { openFolder } from '../../src/launcher/folder.ts';
import { materialise, removeFiles } from '../../src/launcher/materialise.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { fixtures, NOBODY, noOthers, root, start } from './support.ts';

const scratch = temporaryFolder();
chmodSync(scratch, 0o711);

const SOMEBODY = 12345;
const onlyRoot = { skip: !root && 'only root can be led to the files of others' };

let folders = 0;
/** A new folder. */
function folder(owner?: number, mode = 0o755): string {
  const path = join(scratch, String(++folders));
  return folderAt(path, owner, mode);
}
function folderAt(path: string, owner = process.getuid?.() ?? 0, mode = 0o755): string {
  mkdirSync(path);
  lchownSync(path, owner, owner === 0 ? 0 : owner);
  chmodSync(path, mode);
  return path;
}
function link(text: string, path: string, owner = process.getuid?.() ?? 0): void {
  symlinkSync(text, path);
  lchownSync(path, owner, owner);
}

/** Does something as `nobody`. */
function asNobody<Result>(work: () => Result): Result {
  process.setgid?.(NOBODY);
  process.seteuid?.(NOBODY);
  try {
    return work();
  } finally {
    process.seteuid?.(0);
    process.setgid?.(0);
  }
}

function opened(path: string): number {
  const fd = openFolder(path);
  try {
    return fstatSync(fd).ino;
  } finally {
    closeSync(fd);
  }
}
const leadsTo = (path: string, folder: string) => assert.equal(opened(path), statSync(folder).ino);

describe('the way is found by a link', () => {
  test('of the system', () => {
    for (const path of ['/bin', '/var/run', '/proc/self/cwd', '/dev/fd/../..', '/'])
      if (lstatSync(path, { throwIfNoEntry: false })) leadsTo(path, path);
    leadsTo(`/proc/self/root/${scratch}/.`, scratch);
  });

  test('of the launcher’s own user, absolute or not, also to another', () => {
    const path = folder();
    const to = folder();
    link(basename(to), `${scratch}/relative`);
    link(`${scratch}/relative/.`, `${path}/absolute`);
    link('./absolute//', `${path}/again`);
    leadsTo(`${path}/again`, to);
    leadsTo(`${path}/again/../relative`, to);
  });

  test('40 times', () => {
    const path = folder();
    for (let index = 0; index < 41; index++) link(index === 0 ? '.' : String(index - 1), `${path}/${index}`);
    leadsTo(`${path}/39`, path);
    assert.throws(() => opened(`${path}/40`), /^Error: too many symbolic links$/);
    link('loop', `${path}/loop`);
    assert.throws(() => opened(`${path}/loop`), /^Error: too many symbolic links$/);
  });

  test('of a working folder of somebody else, which need not have a path', onlyRoot, () => {
    const path = folder(NOBODY);
    const { ino } = statSync(path);
    const back = process.cwd();
    process.chdir(path);
    try {
      for (const way of ['/proc/self/cwd', '/proc/thread-self/../../cwd/.']) {
        assert.equal(opened(way), ino);
        assert.equal(
          asNobody(() => opened(way)),
          ino,
        );
      }
      rmdirSync(path);
      assert.equal(opened('/proc/self/cwd'), ino);
    } finally {
      process.chdir(back);
    }
  });

  test('of somebody else, by root, among what is all his', onlyRoot, () => {
    const path = folder(NOBODY);
    const release = folderAt(`${folderAt(`${path}/releases`, NOBODY)}/1`, NOBODY);
    link('releases/../releases/1', `${path}/current`, NOBODY);
    leadsTo(`${path}/current`, release);
  });

  test('by an ordinary user where it is his own, or of root', onlyRoot, () => {
    const home = folder(NOBODY, 0o775);
    folderAt(`${home}/to`, NOBODY);
    link('to', `${home}/own`, NOBODY);
    asNobody(() => leadsTo(`${home}/own`, `${home}/to`));
    const path = folder(0, 0o1777);
    link(home, `${path}/of-root`);
    link(`${path}/of-root`, `${path}/own`, NOBODY);
    asNobody(() => leadsTo(`${path}/own/to`, `${home}/to`));
  });

  test('and an ordinary user reaches a folder in one of somebody else', onlyRoot, () => {
    const path = folder(SOMEBODY);
    folderAt(`${path}/run`, NOBODY);
    asNobody(() => leadsTo(`${path}/run`, `${path}/run`));
  });
});

/** What is on the way to `conf` in a folder, and why root must not go there. */
const lures: [
  what: string,
  owner: number,
  mode: number,
  put: (app: string, victim: string) => void,
  says: string,
][] = [
  [
    'a link',
    NOBODY,
    0o755,
    (app, victim) => link(victim, `${app}/conf`, NOBODY),
    'the symbolic link APP/conf of user 65534 leads to the folder / of user 0',
  ],
  [
    'a link that climbs up',
    NOBODY,
    0o755,
    (app, victim) => link(`../${basename(victim)}`, `${app}/conf`, NOBODY),
    'the symbolic link APP/conf of user 65534 leads to the folder SCRATCH of user 0',
  ],
  [
    'a link that climbs up from a folder',
    NOBODY,
    0o755,
    (app, victim) => {
      folderAt(`${app}/deep`, NOBODY);
      link(`deep/../../${basename(victim)}`, `${app}/conf`, NOBODY);
    },
    'the folder APP of user 65534 leads to the folder SCRATCH of user 0',
  ],
  [
    'a link by way of /proc',
    NOBODY,
    0o755,
    (app, victim) => link(`/proc/self/root${victim}`, `${app}/conf`, NOBODY),
    'the symbolic link APP/conf of user 65534 leads to the folder / of user 0',
  ],
  [
    'a link of root that was moved there',
    NOBODY,
    0o755,
    (app, victim) => link(victim, `${app}/conf`, 0),
    'the folder APP of user 65534 leads to the symbolic link APP/conf of user 0',
  ],
  [
    'a link of a third user',
    NOBODY,
    0o755,
    (app, victim) => link(victim, `${app}/conf`, SOMEBODY),
    'the folder APP of user 65534 leads to the symbolic link APP/conf of user 12345',
  ],
  [
    'a link in a folder for all',
    0,
    0o1777,
    (app, victim) => link(`../${basename(victim)}`, `${app}/conf`, NOBODY),
    'the symbolic link APP/conf of user 65534 leads to the folder SCRATCH of user 0',
  ],
  [
    'a link to just that folder for all',
    0,
    0o1777,
    (app) => link('.', `${app}/conf`, NOBODY),
    'the symbolic link APP/conf of user 65534 leads to the folder APP of user 0',
  ],
  ...[0o1777, 0o775].map(
    (mode) =>
      [
        `a link of root in a folder with mode ${mode.toString(8)}`,
        0,
        mode,
        (app: string, victim: string) => link(victim, `${app}/conf`, 0),
        'others may write to the folder APP, so that the symbolic link APP/conf may be of their making',
      ] as (typeof lures)[number],
  ),
  [
    'a folder of root that was moved there',
    NOBODY,
    0o755,
    (app) => folderAt(`${app}/conf`, 0),
    'the folder APP of user 65534 leads to the folder APP/conf of user 0',
  ],
];

/** All that root does to targets in a folder. */
const targets = (path: string) => {
  const file = (to: string, content: string) => {
    return { to: `${path}/${to}`, content: Buffer.from(content), mode: 0o644, uid: NOBODY, gid: NOBODY };
  };
  const directory = (name: string, generation: boolean) => {
    return { path: `${path}/${name}`, generation, mode: 0o755, uid: NOBODY, gid: NOBODY };
  };
  return {
    'a new file': { files: [file('new', 'new')], directories: [] },
    'another file': { files: [file('old', 'new')], directories: [] },
    'the same file': { files: [file('same', 'same')], directories: [] },
    'a folder': { files: [], directories: [directory('made', false)] },
    'a folder that is there': { files: [], directories: [directory('there', false)] },
    'a generation': { files: [file('set/a', 'new')], directories: [directory('set', true)] },
    'a new generation': { files: [file('fresh/a', 'new')], directories: [directory('fresh', true)] },
  };
};

const HEX = '0123456789abcdef';

/** Something of root that has whatever could be replaced or removed. */
function makeVictim(): string {
  const path = folder(0);
  for (const name of ['old', 'same', '.keep']) writeFileSync(`${path}/${name}`, name);
  lchownSync(`${path}/same`, NOBODY, NOBODY);
  for (const name of ['there', `.envcas-${HEX}`, `.set.${HEX}`]) {
    folderAt(`${path}/${name}`);
    writeFileSync(`${path}/${name}/a`, 'old');
  }
  symlinkSync(`.set.${HEX}`, `${path}/set`);
  return path;
}

/** Everything in a folder, as text. */
function everything(path: string): string {
  const lines = readdirSync(path, { recursive: true, encoding: 'utf8' }).map((name) => {
    const stats = lstatSync(join(path, name));
    const { mode, uid, gid, ino, ctimeMs } = stats;
    const content = stats.isSymbolicLink()
      ? readlinkSync(join(path, name))
      : stats.isFile() && readFileSync(join(path, name), 'utf8');
    return [name, mode, uid, gid, ino, ctimeMs, content].join(' ');
  });
  return [...lines.sort(), statSync(path).mtimeMs].join('\n');
}

describe('root is not led elsewhere by', onlyRoot, () => {
  for (const [what, owner, mode, put, says] of lures)
    test(what, () => {
      const victim = makeVictim();
      const unchanged = everything(victim);
      const app = folder(owner, mode);
      put(app, victim);
      const why = says.replaceAll('APP', app).replaceAll('SCRATCH', scratch);
      for (const [to, target] of Object.entries(targets(`${app}/conf`))) {
        const path = target.directories[0]?.path ?? target.files[0]?.to;
        assert.throws(
          () => materialise(target),
          (error) => {
            assert.ok(error instanceof Failure, String(error));
            assert.equal(error.code, 'TARGET_UNWRITABLE');
            assert.equal(error.message, `cannot write ${path}: ${why}`);
            return true;
          },
          to,
        );
        const removed = removeFiles(target);
        if (target.files.length > 0) assert.equal(removed instanceof Error && removed.message, why, to);
      }
      assert.equal(everything(victim), unchanged);
    });

  test('who puts a link there between writing and putting back', () => {
    const victim = makeVictim();
    const app = folder(NOBODY);
    for (const target of Object.values(targets(`${app}/conf`))) {
      folderAt(`${app}/conf`, NOBODY);
      writeFileSync(`${app}/conf/old`, 'older');
      const { changed, undo } = materialise(target);
      rmSync(`${app}/conf`, { recursive: true });
      link(victim, `${app}/conf`, NOBODY);
      const unchanged = everything(victim);
      const failed = undo();
      assert.equal(failed instanceof Error, changed);
      assert.equal(everything(victim), unchanged);
      rmSync(`${app}/conf`);
    }
  });

  test('who puts links there at any instant', { skip: noOthers }, async () => {
    const victim = makeVictim();
    const unchanged = everything(victim);
    const app = folder(NOBODY);
    const conf = folderAt(`${app}/conf`, NOBODY);
    const lure = start(
      process.execPath,
      [
        '--disable-warning=ExperimentalWarning',
        join(fixtures, 'lure.ts'),
        app,
        'conf',
        victim,
        `../${basename(victim)}`,
      ],
      {},
    );
    await lure.seen(/luring/);
    let [written, refused] = [0, 0];
    for (let round = 0; round < 500 || written === 0 || refused === 0; round++) {
      assert.ok(round < 50_000, `${written} were written and ${refused} refused`);
      for (const target of Object.values(targets(conf)))
        try {
          const { undo } = materialise(target);
          written++;
          if (round % 3 === 0) undo();
          else removeFiles(target);
        } catch (error) {
          assert.ok(error instanceof Failure && error.code === 'TARGET_UNWRITABLE', String(error));
          if (error.message.includes('leads to')) refused++;
        }
      assert.equal(everything(victim), unchanged);
    }
    writeFileSync(`${app}/stop`, '');
    const { status, stderr } = await lure.finished;
    assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  });
});

test('an ordinary user is not led elsewhere by links of others', onlyRoot, () => {
  const home = folder(NOBODY, 0o700);
  for (const [owner, mode] of [
    [SOMEBODY, 0o755],
    [0, 0o1777],
  ] as const) {
    const app = folder(owner, mode);
    for (const text of [home, `../${basename(home)}`, 'sub/../..']) {
      if (text.startsWith('sub')) folderAt(`${app}/sub`, SOMEBODY);
      link(text, `${app}/conf`, SOMEBODY);
      assert.throws(
        () => asNobody(() => materialise(targets(`${app}/conf`)['a new file'])),
        /(the symbolic link|the folder) .* of user 12345 leads to the folder .* of user (0|65534)$/,
      );
      rmSync(`${app}/conf`);
    }
  }
  assert.deepEqual(readdirSync(home), []);
});

describe('a file whose group is not asked for has the real one', onlyRoot, () => {
  const groups = process.getgroups?.() ?? [];
  before(() => process.setgroups?.([SOMEBODY]));
  after(() => process.setgroups?.(groups));
  for (const user of [0, NOBODY])
    test(`of user ${user}`, () => {
      const path = folder(user);
      const own = { mode: 0o640, uid: undefined, gid: undefined };
      process.setgid?.(SOMEBODY);
      process.setegid?.(1);
      process.seteuid?.(user);
      try {
        const again = () =>
          materialise({
            files: ['file', 'set/file'].map((to) => ({
              to: `${path}/${to}`,
              content: Buffer.from('x'),
              ...own,
            })),
            directories: ['made', 'set'].map((name) => ({
              path: `${path}/${name}`,
              generation: name === 'set',
              ...own,
              mode: 0o750,
            })),
          }).changed;
        assert.equal(again(), true);
        assert.equal(again(), false);
        for (const name of ['file', 'made', 'set/', 'set/file'])
          assert.equal(lstatSync(`${path}/${name}`).gid, SOMEBODY, name);
      } finally {
        process.seteuid?.(0);
        process.setgid?.(0);
      }
    });
});

test('a launcher that cannot be looked at goes through /proc as well', { skip: noOthers }, () => {
  const path = folder(NOBODY, 0o700);
  const script = `
    import { makeNonDumpable } from '${import.meta.dirname}/../../src/platform/libc.ts';
    import { materialise } from '${import.meta.dirname}/../../src/launcher/materialise.ts';
    const file = { content: Buffer.from('x'), mode: 0o600, uid: undefined, gid: undefined };
    makeNonDumpable();
    materialise({ files: [{ to: '/proc/self/cwd/file', ...file }], directories: [] });`;
  const args = ['--disable-warning=ExperimentalWarning', '--input-type=module', '--eval', script];
  const { stderr } = spawnSync(process.execPath, args, { cwd: path, uid: NOBODY, gid: NOBODY });
  assert.equal(stderr.toString(), '');
  assert.deepEqual(readdirSync(path), ['file']);
});
