import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { Failure } from '../../src/errors.ts';
import type { DirectoryToMake, FileToWrite } from '../../src/launcher/assemble.ts';
import { materialise, removeFiles } from '../../src/launcher/materialise.ts';
import { lockFile } from '../../src/platform/libc.ts';
import { writeLetter } from '../fixtures/launcher/materialise.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { fixtures, NOBODY, root, start } from './support.ts';

const scratch = temporaryFolder();
chmodSync(scratch, 0o711);

let folders = 0;
function folder(mode = 0o700): string {
  const path = join(scratch, String(++folders));
  mkdirSync(path);
  chmodSync(path, mode);
  return path;
}

const own = { uid: undefined, gid: undefined };
const [uid, gid] = [process.geteuid?.() ?? 0, process.getegid?.() ?? 0];
/** Somebody else where that is possible. */
const other = root ? { uid: NOBODY, gid: NOBODY } : { uid, gid };
const onlyRoot = { skip: !root && 'only root can give files away' };
const HEX = '0123456789abcdef';

const file = (to: FileToWrite['to'], content: string, more: Partial<FileToWrite> = {}): FileToWrite => ({
  to,
  content: Buffer.from(content),
  mode: 0o600,
  ...own,
  ...more,
});
const directory = (path: string, more: Partial<DirectoryToMake> = {}): DirectoryToMake => ({
  path,
  generation: false,
  mode: 0o700,
  ...own,
  ...more,
});
const write = (files: FileToWrite[], directories: DirectoryToMake[] = []) =>
  materialise({ files, directories });
/** A generation of files. */
const writeGeneration = (path: string, files: Record<string, string>, more: Partial<DirectoryToMake> = {}) =>
  write(
    Object.entries(files).map(([name, content]) => file(`${path}/${name}`, content)),
    [directory(path, { generation: true, ...more })],
  );

/** Everything in a folder, with its owners and modes, as text. Names that are made up are shortened. */
function everything(path: string, within = ''): string[] {
  return readdirSync(join(path, within))
    .flatMap((entry) => {
      const name = join(within, entry);
      const stats = lstatSync(join(path, name));
      const is = [name, stats.mode.toString(8), stats.uid, stats.gid];
      if (stats.isSymbolicLink()) is.push(readlinkSync(join(path, name)));
      if (stats.isFile()) is.push(readFileSync(join(path, name), 'utf8'));
      const line = is.join(' ').replaceAll(/\.[0-9a-f]{16}/g, '.RANDOM');
      return stats.isDirectory() ? [line, ...everything(path, name)] : [line];
    })
    .sort();
}

/** The names in a folder beside those of generations' folders. */
const names = (path: string) => readdirSync(path).filter((name) => !/^\.[^-]+\.[0-9a-f]{16}$/.test(name));

function unwritable(path: string, says: RegExp | string) {
  return (error: unknown) => {
    assert.ok(error instanceof Failure, String(error));
    assert.equal(error.code, 'TARGET_UNWRITABLE');
    const start = `cannot write ${path}: `;
    assert.ok(error.message.startsWith(start), error.message);
    if (typeof says === 'string') assert.equal(error.message, start + says);
    else assert.match(error.message, says);
    assert.equal(error.cause, undefined, 'everything could be put back');
    return true;
  };
}

function startFixture(name: string, ...args: string[]) {
  const script = join(fixtures, name);
  return start(process.execPath, ['--disable-warning=ExperimentalWarning', script, ...args], {});
}

/** Does something as another user, who is nobody in particular. */
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

describe('owner and mode', () => {
  test('are those that were asked for, whatever the umask is', () => {
    for (const umask of [0, 0o777]) {
      const path = folder();
      const before = process.umask(umask);
      try {
        write(
          [
            file(`${path}/plain`, 'a'),
            file(`${path}/given`, 'b', { mode: 0o644, ...other }),
            file(`${path}/group`, 'c', { mode: 0o640, uid: undefined, gid: other.gid }),
            file(`${path}/made/in`, 'd'),
            file(`${path}/set/deep/in`, 'e', { mode: 0o440 }),
            file({ fd: 7 }, 'f'),
          ],
          [
            directory(`${path}/made`, { mode: 0o1777, ...other }),
            directory(`${path}/made/within`, { mode: 0o510 }),
            directory(`${path}/set`, { generation: true, mode: 0o550, ...other }),
          ],
        );
      } finally {
        process.umask(before);
      }
      assert.deepEqual(everything(path), [
        `.set.RANDOM 40550 ${other.uid} ${other.gid}`,
        `.set.RANDOM/deep 40550 ${other.uid} ${other.gid}`,
        `.set.RANDOM/deep/in 100440 ${uid} ${gid} e`,
        `given 100644 ${other.uid} ${other.gid} b`,
        `group 100640 ${uid} ${other.gid} c`,
        `made 41777 ${other.uid} ${other.gid}`,
        `made/in 100600 ${uid} ${gid} d`,
        `made/within 40510 ${uid} ${gid}`,
        `plain 100600 ${uid} ${gid} a`,
        `set 120777 ${uid} ${gid} .set.RANDOM`,
      ]);
    }
  });

  test('are there from the first moment that a name is', async () => {
    const path = folder(0o755);
    const paths = ['file', 'folder', 'set/', 'set/deep', 'set/deep/in'].map((name) => `${path}/${name}`);
    const watcher = startFixture('watch-owners.ts', path, ...paths);
    await watcher.seen(/watching/);
    const before = process.umask(0);
    for (let round = 0; round < 200; round++) {
      const { undo } = write(
        [
          file(`${path}/file`, String(round), { mode: 0o644, ...other }),
          file(`${path}/set/deep/in`, String(round), { mode: 0o640, ...other }),
        ],
        [
          directory(`${path}/folder`, { mode: 0o751, ...other }),
          directory(`${path}/set`, { generation: true, mode: 0o711, ...other }),
        ],
      );
      if (round % 3 === 2) assert.equal(undo(), undefined);
      else if (round % 3 === 0) rmSync(`${path}/folder`, { recursive: true });
    }
    process.umask(before);
    writeFileSync(`${path}/stop`, '');
    const { stdout, stderr } = await watcher.finished;
    assert.deepEqual(
      JSON.parse(stdout.split('\n')[1] ?? stderr),
      ['100644', '40751', '40711', '40711', '100640']
        .map((mode, index) => `${paths[index]} ${mode} ${other.uid} ${other.gid}`)
        .sort(),
    );
  });

  test('of others cannot be given by who is not root, and nothing is left', onlyRoot, () => {
    const path = folder(0o777);
    for (const [files, directories, at] of [
      [[file(`${path}/a`, 'a'), file(`${path}/b`, 'b', { uid: 1 })], [], 'b'],
      [[file(`${path}/a`, 'a', { gid: 1 })], [], 'a'],
      [[file(`${path}/a/b`, 'a')], [directory(`${path}/a`), directory(`${path}/c`, { uid: 1 })], 'c'],
      [[file(`${path}/a/b`, 'a')], [directory(`${path}/a`, { generation: true, uid: 1 })], 'a'],
    ] as [FileToWrite[], DirectoryToMake[], string][])
      assert.throws(
        () => asNobody(() => write(files, directories)),
        unwritable(join(path, at), /user 65534 cannot give it to user (1|65534) and group (1|65534)$/),
      );
    assert.deepEqual(readdirSync(path), []);
  });
});

describe('what is there already as it should be', () => {
  test('is not touched, and counts as no change', () => {
    const path = folder();
    const again = () =>
      write(
        [file(`${path}/a`, 'a', { mode: 0o640 }), file(`${path}/made/b`, 'b'), file(`${path}/set/c`, 'c')],
        [directory(`${path}/made`), directory(`${path}/set`, { generation: true, mode: 0o500 })],
      );
    assert.equal(again().changed, true);
    const inodes = () =>
      ['a', 'made', 'made/b', 'set', 'set/', 'set/c'].map((name) => {
        const { ino, ctimeMs } = lstatSync(`${path}/${name}`);
        return [ino, ctimeMs];
      });
    const before = inodes();
    const { changed, undo } = again();
    assert.equal(changed, false);
    assert.deepEqual(inodes(), before);
    assert.equal(undo(), undefined);
    assert.deepEqual(inodes(), before);
  });

  test('is a file of its own', () => {
    const path = folder();
    writeFileSync(`${path}/other`, 'a', { mode: 0o600 });
    for (const link of ['symlink', 'link']) {
      rmSync(`${path}/a`, { force: true });
      spawnSync('ln', [...(link === 'symlink' ? ['-s'] : []), `${path}/other`, `${path}/a`]);
      assert.equal(write([file(`${path}/a`, 'a')]).changed, true, link);
      assert.equal(lstatSync(`${path}/a`).isFile(), true);
      assert.notEqual(lstatSync(`${path}/a`).ino, lstatSync(`${path}/other`).ino);
    }
  });

  for (const [what, spoil] of [
    ['content', (path) => writeFileSync(path, 'b')],
    ['length', (path) => writeFileSync(path, 'aa')],
    ['mode', (path) => chmodSync(path, 0o604)],
    ['owner', (path) => root && chownSync(path, NOBODY, gid)],
    ['group', (path) => root && chownSync(path, uid, NOBODY)],
  ] as [string, (path: string) => void][])
    test(`has the same ${what}`, {
      skip: (what === 'owner' || what === 'group') && onlyRoot.skip,
    }, () => {
      const path = folder();
      const asWanted = () =>
        write(
          [file(`${path}/a`, 'a'), file(`${path}/set/b`, 'a')],
          [directory(`${path}/set`, { generation: true })],
        );
      asWanted();
      const wanted = everything(path);
      for (const name of ['a', 'set/b']) {
        spoil(join(path, name));
        assert.equal(asWanted().changed, true, name);
        assert.deepEqual(everything(path), wanted);
        assert.equal(asWanted().changed, false, name);
      }
    });

  for (const [what, spoil] of [
    ['a file more', (set) => writeFileSync(`${set}/more`, '')],
    ['a folder more', (set) => mkdirSync(`${set}/more`)],
    ['a file less', (set) => rmSync(`${set}/deep/two`)],
    ['a link for a file', (set) => spawnSync('ln', ['-sf', '../one', `${set}/deep/two`])],
    [
      'a folder for a file',
      (set) => {
        rmSync(`${set}/one`);
        mkdirSync(`${set}/one`);
      },
    ],
    ['another mode of a folder', (set) => chmodSync(`${set}/deep`, 0o755)],
    ['another mode of all', (set) => chmodSync(`${set}/`, 0o755)],
  ] as [string, (set: string) => void][])
    test(`is no generation with ${what}`, () => {
      const path = folder();
      const set = `${path}/set`;
      const again = () => writeGeneration(set, { one: 'same', 'deep/two': 'same' });
      again();
      const wanted = everything(path);
      spoil(set);
      const spoilt = everything(path);
      const { changed, undo } = again();
      assert.equal(changed, true);
      assert.deepEqual(everything(path), wanted);
      if (what !== 'a link for a file') {
        assert.equal(undo(), undefined);
        assert.deepEqual(everything(path), spoilt);
      }
    });
});

describe('a generation', () => {
  test('is swapped whole, and leaves one folder', () => {
    const path = folder();
    const set = `${path}/set`;
    const one = writeGeneration(set, { a: '1', 'b/c/d': '1', 'b/e': '1' });
    assert.match(readlinkSync(set), /^\.set\.[0-9a-f]{16}$/);
    const first = everything(path);
    writeGeneration(set, { a: '2' });
    const second = everything(path);
    assert.equal(second.length, 3);
    const third = writeGeneration(set, {});
    assert.equal(everything(path).length, 2, 'the empty one');
    assert.equal(third.undo(), undefined);
    assert.deepEqual(everything(path), second);
    assert.equal(one.undo(), undefined);
    assert.deepEqual(readdirSync(path), []);
    assert.equal(first.length, 7);
  });

  test('can replace a link to something else, which is left alone and can be put back', () => {
    const path = folder();
    mkdirSync(`${path}/else`);
    writeFileSync(`${path}/else/a`, 'else');
    for (const text of ['else', `${path}/else`, 'nowhere', `.set.${HEX}`, '/']) {
      symlinkSync(text, `${path}/set`);
      const { undo } = writeGeneration(`${path}/set`, { a: 'new' });
      assert.equal(readFileSync(`${path}/set/a`, 'utf8'), 'new');
      assert.equal(readFileSync(`${path}/else/a`, 'utf8'), 'else');
      assert.equal(undo(), undefined);
      assert.equal(readlinkSync(`${path}/set`), text);
      rmSync(`${path}/set`);
      assert.deepEqual(readdirSync(path), ['else']);
    }
  });

  test('replaces nothing but a link', () => {
    const path = folder();
    mkdirSync(`${path}/folder`);
    writeFileSync(`${path}/file`, '');
    for (const name of ['folder', 'file'])
      assert.throws(
        () => writeGeneration(`${path}/${name}`, { a: '' }),
        unwritable(`${path}/${name}`, 'there is something that is not a symbolic link'),
      );
    assert.deepEqual(readdirSync(path), ['file', 'folder']);
  });

  test(
    'of a user who has put links into it lets root neither read nor remove anything else',
    onlyRoot,
    () => {
      const path = folder(0o711);
      const outside = folder();
      writeFileSync(`${outside}/precious`, 'precious');
      writeGeneration(`${path}/set`, { 'deep/a': '1', b: '1' }, other);
      rmSync(`${path}/set/deep`, { recursive: true });
      rmSync(`${path}/set/b`);
      symlinkSync(outside, `${path}/set/deep`);
      symlinkSync(`${outside}/precious`, `${path}/set/b`);
      const { undo } = writeGeneration(`${path}/set`, { 'deep/a': '2', b: '2' }, other);
      assert.equal(readFileSync(`${path}/set/deep/a`, 'utf8'), '2');
      assert.equal(undo(), undefined);
      assert.deepEqual(readdirSync(`${path}/set`), []);
      assert.equal(readFileSync(`${outside}/precious`, 'utf8'), 'precious');
    },
  );

  test('with a mode that keeps its owner from writing can be replaced', onlyRoot, () => {
    const path = folder(0o777);
    for (const content of ['1', '2', '3'])
      asNobody(() =>
        write(
          [file(`${path}/set/deep/a`, content)],
          [
            directory(`${path}/set`, { generation: true, mode: 0o500 }),
            directory(`${path}/made`, { mode: 0o500 }),
          ],
        ),
      );
    assert.deepEqual(everything(path), [
      `.set.RANDOM 40500 ${NOBODY} ${NOBODY}`,
      `.set.RANDOM/deep 40500 ${NOBODY} ${NOBODY}`,
      `.set.RANDOM/deep/a 100600 ${NOBODY} ${NOBODY} 3`,
      `made 40500 ${NOBODY} ${NOBODY}`,
      `set 120777 ${NOBODY} ${NOBODY} .set.RANDOM`,
    ]);
  });

  test('of another user is not replaced', onlyRoot, () => {
    const path = folder(0o777);
    writeGeneration(`${path}/set`, { a: '1' }, { mode: 0o755 });
    assert.throws(
      () => asNobody(() => writeGeneration(`${path}/set`, { a: '2' })),
      unwritable(`${path}/set`, /a folder of another user is there|permission denied/),
    );
    assert.equal(readdirSync(path).length, 2);
  });
});

describe('nothing is changed', () => {
  /** Beside things that could be changed before. */
  const attempt = (path: string, name: string, says: RegExp | string) => {
    writeFileSync(`${path}/old`, 'old');
    const before = everything(path);
    const modified = statSync(path).mtimeMs;
    assert.throws(
      () =>
        write(
          [
            file(`${path}/old`, 'new'),
            file(`${path}/new`, 'new'),
            file(`${path}/made/new`, ''),
            file(`${path}/${name}`, ''),
          ],
          [directory(`${path}/made`), directory(`${path}/set`, { generation: true })],
        ),
      unwritable(`${path}/${name}`, says),
    );
    assert.deepEqual(everything(path), before);
    return statSync(path).mtimeMs === modified;
  };
  const neither = 'there is something that is neither a file nor a symbolic link';

  test('where a target is a folder, and nothing was written', () => {
    const path = folder();
    mkdirSync(`${path}/target`);
    assert.ok(attempt(path, 'target', neither));
  });
  test('where a target is a named pipe', () => {
    const path = folder();
    spawnSync('mkfifo', [`${path}/target`]);
    assert.ok(attempt(path, 'target', neither));
  });
  test('where a target is a socket', async () => {
    const path = folder();
    const server = createServer();
    await new Promise<void>((resolve) => {
      server.listen(`${path}/target`, resolve);
    });
    try {
      assert.ok(attempt(path, 'target', neither));
    } finally {
      server.close();
    }
  });
  test('where a target is a device', onlyRoot, (t) => {
    const path = folder();
    if (spawnSync('mknod', [`${path}/target`, 'c', '1', '3']).status !== 0) return t.skip('none can be made');
    assert.ok(attempt(path, 'target', neither));
  });
  test('where a folder of a target is missing', () => {
    attempt(folder(), 'missing/target', 'no such file or directory');
  });
  test('where a folder of a target is a file', () => {
    const path = folder();
    writeFileSync(`${path}/file`, '');
    attempt(path, 'file/target', 'a part of the path is not a directory');
  });
  for (const [what, put] of [
    ['a file', (path) => writeFileSync(path, '')],
    ['a link to a folder', (path) => symlinkSync('..', path)],
  ] as [string, (path: string) => void][])
    test(`where ${what} is in the place of a folder`, () => {
      const path = folder();
      put(`${path}/folder`);
      assert.throws(
        () => write([file(`${path}/a`, '')], [directory(`${path}/made`), directory(`${path}/folder`)]),
        unwritable(`${path}/folder`, 'there is something that is not a folder'),
      );
      assert.deepEqual(readdirSync(path), ['folder']);
    });
  test('where the folder of a folder is neither there nor listed before', () => {
    const path = folder();
    assert.throws(
      () => write([file(`${path}/a`, '')], [directory(`${path}/x`), directory(`${path}/y/z`)]),
      unwritable(`${path}/y/z`, 'no such file or directory'),
    );
    assert.deepEqual(readdirSync(path), []);
  });
  test('where a file lies within a file of its generation', () => {
    const path = folder();
    const files = { a: '', 'a/b': '' };
    for (const order of [files, Object.fromEntries(Object.entries(files).reverse())])
      assert.throws(() => writeGeneration(`${path}/set`, order), unwritable(`${path}/set`, /./));
    assert.deepEqual(readdirSync(path), []);
  });

  describe('on a file system', onlyRoot, () => {
    const path = folder();
    let mounted = false;
    before(() => {
      mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', path]).status === 0;
    });
    const large = 'x'.repeat(30_000);
    const attemptAll = (says: string, at: string) => {
      const before = everything(path);
      assert.throws(
        () =>
          write(
            [file(`${path}/a`, 'new'), file(`${path}/made/b`, large), file(`${path}/set/c`, large)],
            [directory(`${path}/made`), directory(`${path}/set`, { generation: true })],
          ),
        unwritable(`${path}/${at}`, says),
      );
      assert.deepEqual(everything(path), before);
    };
    test('that is full', (t) => {
      if (!mounted) return t.skip('no file system can be mounted here');
      writeFileSync(`${path}/a`, 'old');
      writeGeneration(`${path}/set`, { c: 'old' });
      attemptAll('no space left on the device', 'set');
    });
    test('that is read-only', (t) => {
      if (!mounted) return t.skip('no file system can be mounted here');
      writeFileSync(`${path}/.envcas-${HEX}`, 'left behind');
      assert.equal(spawnSync('mount', ['-o', 'remount,ro', path]).status, 0);
      attemptAll('the file system is read-only', 'made');
    });
  });

  test('in a folder that the user may not write to', onlyRoot, () => {
    const [open, closed] = [folder(0o777), folder(0o755)];
    assert.throws(
      () => asNobody(() => write([file(`${open}/a`, ''), file(`${closed}/b`, '')])),
      unwritable(`${closed}/b`, 'permission denied'),
    );
    assert.deepEqual([...readdirSync(open), ...readdirSync(closed)], []);
  });
  test('and a folder that may be written to, but not listed, is enough', onlyRoot, () => {
    const path = folder(0o733);
    asNobody(() => writeGeneration(`${path}/set`, { a: '1' }));
    asNobody(() => writeGeneration(`${path}/set`, { a: '2' }));
    assert.equal(readdirSync(path).length, 2);
  });
});

describe('undo', () => {
  test('puts back files, links, folders and generations', () => {
    const path = folder();
    writeFileSync(`${path}/old`, 'old', { mode: 0o644 });
    if (root) chownSync(`${path}/old`, NOBODY, NOBODY);
    symlinkSync('nowhere', `${path}/link`);
    mkdirSync(`${path}/there`, { mode: 0o755 });
    writeGeneration(`${path}/set`, { a: 'old', 'deep/b': 'old' }, { mode: 0o750, ...other });
    writeFileSync(`${path}/set/more`, 'of the program', { mode: 0o604 });
    const before = everything(path);
    const { changed, undo } = write(
      ['old', 'link', 'new', 'there/new', 'made/within/new', 'set/a', 'fresh/a'].map((name) =>
        file(`${path}/${name}`, 'new'),
      ),
      [
        ...['there', 'made', 'made/within'].map((name) => directory(`${path}/${name}`)),
        ...['set', 'fresh'].map((name) => directory(`${path}/${name}`, { generation: true })),
      ],
    );
    assert.equal(changed, true);
    assert.deepEqual(names(path), ['fresh', 'link', 'made', 'new', 'old', 'set', 'there']);
    for (const name of ['old', 'link', 'new', 'there/new', 'made/within/new', 'set/a', 'fresh/a'])
      assert.equal(readFileSync(`${path}/${name}`, 'utf8'), 'new');
    assert.equal(undo(), undefined);
    assert.deepEqual(everything(path), before);
    assert.equal(undo(), undefined, 'a second time nothing is done');
    assert.deepEqual(everything(path), before);
  });
});

test('removeFiles removes files and generations, and nothing else', () => {
  const path = folder();
  const files = ['a', 'b', 'made/c', 'set/d', 'set/deep/e'].map((name) => file(`${path}/${name}`, 'x'));
  const directories = [
    directory(`${path}/made`),
    directory(`${path}/set`, { generation: true, mode: 0o500 }),
  ];
  write([...files, file(`${path}/other`, 'y'), file({ fd: 5 }, 'z')], directories);
  rmSync(`${path}/a`);
  mkdirSync(`${path}/a`);
  const bare = files.map((it) => ({ ...it, content: Buffer.alloc(0) }));
  assert.match(String(removeFiles({ files: bare, directories })), /EISDIR/);
  assert.deepEqual(readdirSync(path), ['a', 'made', 'other']);
  assert.deepEqual(readdirSync(`${path}/made`), []);
  rmSync(`${path}/a`, { recursive: true });
  assert.equal(removeFiles({ files: bare, directories }), undefined);
});

describe('what not even its owner may read by its mode', () => {
  /** As an ordinary user, whom modes bind. */
  const asUser = root ? asNobody : <Result>(work: () => Result) => work();
  const place = () => {
    const path = folder();
    if (root) chownSync(path, NOBODY, NOBODY);
    return path;
  };

  for (const [fileMode, folderMode] of [
    [0o200, 0o700],
    [0, 0o500],
    [0o600, 0o300],
    [0, 0],
  ] as const)
    test(`is replaced and put back: ${fileMode.toString(8)} in ${folderMode.toString(8)}`, () => {
      const path = place();
      const launch = (content: string) =>
        write(
          ['file', 'set/one', 'set/deep/two'].map((name) =>
            file(`${path}/${name}`, content, { mode: fileMode }),
          ),
          [directory(`${path}/set`, { generation: true, mode: folderMode })],
        );
      // Root sees all of it.
      const look = () => (root ? everything(path) : names(path));
      asUser(() => launch('old'));
      const before = look();
      assert.equal(asUser(() => launch('old')).changed, false);
      const { changed, undo } = asUser(() => launch('new'));
      assert.equal(changed, true);
      assert.equal(readdirSync(path).length, 3);
      assert.equal(asUser(undo), undefined);
      assert.deepEqual(look(), before);
    });

  test('is removed where it was left behind', () => {
    const path = place();
    asUser(() => {
      for (const name of [`.envcas-${HEX}`, `.set.${HEX}`]) {
        mkdirSync(`${path}/${name}/deep`, { recursive: true });
        for (const within of ['/deep', '']) chmodSync(`${path}/${name}${within}`, 0);
      }
      writeGeneration(`${path}/set`, { a: 'a' });
    });
    assert.deepEqual(names(path), ['set']);
  });
});

describe('leftovers', () => {
  const temporary = `.envcas-${HEX}`;
  const generation = `.set.${HEX}`;
  const both = [temporary, generation];
  /** A launch that leaves everything as it is. */
  const launch = (path: string) => {
    writeGeneration(`${path}/set`, { a: 'a' }, root ? other : {});
    return readdirSync(path).filter((name) => name !== 'set' && name !== readlinkSync(`${path}/set`));
  };

  test('are removed with all that is in them', () => {
    const path = folder();
    const outside = folder();
    writeFileSync(`${outside}/precious`, '');
    const leave = () => {
      for (const name of both) {
        mkdirSync(`${path}/${name}/deep/deeper`, { recursive: true });
        writeFileSync(`${path}/${name}/deep/secret`, 'x', { mode: 0 });
        symlinkSync(outside, `${path}/${name}/link`);
        symlinkSync(`${outside}/precious`, `${path}/${name}/deep/link`);
        spawnSync('mkfifo', [`${path}/${name}/pipe`]);
        chmodSync(`${path}/${name}/deep`, 0o500);
        chmodSync(`${path}/${name}`, 0o500);
      }
    };
    leave();
    assert.deepEqual(launch(path), []);
    leave();
    if (root) chownSync(`${path}/${generation}`, NOBODY, NOBODY);
    assert.deepEqual(launch(path), [], 'also where nothing else is to be done');
    writeFileSync(`${path}/${temporary}`, 'a file');
    assert.deepEqual(launch(path), []);
    assert.deepEqual(readdirSync(outside), ['precious']);
  });

  for (const [what, put] of [
    ['is a link', (path) => symlinkSync('..', path)],
    ['is a named pipe', (path) => spawnSync('mkfifo', [path])],
    [
      'is of somebody else',
      (path) => {
        mkdirSync(path);
        if (root) chownSync(path, 1, 1);
      },
    ],
  ] as [string, (path: string) => void][])
    test(`are not what ${what}`, { skip: what === 'is of somebody else' && onlyRoot.skip }, () => {
      const path = folder();
      for (const name of both) put(`${path}/${name}`);
      assert.deepEqual(launch(path), both);
    });

  test('are not what has other names', () => {
    const path = folder();
    const others = [
      '.envcas-',
      '.envcas-x',
      `.envcas-${HEX}0`,
      `.other.${HEX}`,
      '.set.bak',
      '.set.d',
      `set.${HEX}`,
    ];
    for (const name of others) mkdirSync(`${path}/${name}`);
    assert.deepEqual(launch(path), others.sort());
  });

  test('are not what a launch holds', () => {
    const path = folder();
    const held = both.map((name) => {
      mkdirSync(`${path}/${name}`);
      const fd = openSync(`${path}/${name}`, 'r');
      assert.ok(lockFile(fd, 0));
      return fd;
    });
    assert.deepEqual(launch(path), both);
    for (const fd of held) closeSync(fd);
    assert.deepEqual(launch(path), []);
  });

  const whole = (path: string) => {
    const text = readFileSync(path, 'utf8');
    assert.ok(text.length === 50_000 && text === (text[0] ?? '').repeat(50_000), `${path} is whole`);
    return text[0];
  };

  test('of launches that were killed at any instant are removed by the next one, and all targets are whole', async () => {
    const path = folder();
    let left = 0;
    for (let round = 0; round < 60; round++) {
      const killed = startFixture('materialise.ts', path, '1000000', 'undo');
      await killed.seen(/writing/);
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 30));
      killed.child.kill('SIGKILL');
      const { signal, stderr } = await killed.finished;
      assert.equal(signal, 'SIGKILL', stderr);
      for (const name of ['file', 'folder/file']) if (existsSync(`${path}/${name}`)) whole(`${path}/${name}`);
      if (lstatSync(`${path}/current`, { throwIfNoEntry: false }))
        assert.equal(whole(`${path}/current/one`), whole(`${path}/current/deep/two`));
      if (readdirSync(path, { recursive: true, encoding: 'utf8' }).some((name) => name.includes('.envcas-')))
        left++;
    }
    assert.ok(left > 0, 'some were killed while they were writing');
    writeLetter(path, 'z');
    assert.deepEqual(names(path), ['current', 'file', 'folder']);
    assert.deepEqual(readdirSync(`${path}/folder`), ['file']);
    assert.equal(readdirSync(path).length, 4);
  });

  test('are not what another launch is just working on', async () => {
    const path = folder();
    const launches = [1, 2, 3].map(() => startFixture('materialise.ts', path, '300'));
    for (const { finished } of launches) {
      const { status, stderr } = await finished;
      assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
    }
    for (const name of ['file', 'folder/file', 'current/one', 'current/deep/two']) whole(`${path}/${name}`);
    writeLetter(path, 'z');
    assert.deepEqual(
      readdirSync(path).filter((name) => !name.startsWith('made-')),
      [readlinkSync(`${path}/current`), 'current', 'file', 'folder'],
    );
  });
});
