import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import type { AddressInfo, Socket } from 'node:net';
import { connect, createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { cannotSeeMappedFiles } from '../../src/platform/process.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import {
  executables,
  missing,
  type Result,
  run,
  type Server,
  startCas,
  startServer,
} from '../support/stack.ts';
import { until } from '../support/until.ts';
import { sha256 } from './host.ts';

/** What packaging/install.sh installs, as an ordinary user starts it. Root alone can try this. */
const root = resolve(import.meta.dirname, '../..');
const NOBODY = 65534;
const group = `envcas-test-${process.pid}`;
const directory = temporaryFolder();
chmodSync(directory, 0o755);
const path = (...names: string[]) => join(directory, ...names);
const mark = path('marks', 'code-has-run');
const socket = (name: string) => path('run', `${name}.sock`);
const plain = { PATH: process.env.PATH ?? '', HOME: path('home') };

const cannot = (() => {
  if (process.getuid?.() !== 0) return 'only root can install';
  const absent = missing(
    'groupadd',
    'groupdel',
    'gpasswd',
    'getent',
    'setpriv',
    'unshare',
    'findmnt',
    'chroot',
  );
  if (absent) return absent;
  if (cannotSeeMappedFiles()) return 'root may not look at what is mapped here (CAP_CHECKPOINT_RESTORE)';
  const options = execFileSync('findmnt', ['-no', 'OPTIONS', '-T', directory], { encoding: 'utf8' });
  if (/\b(nosuid|noexec)\b/.test(options)) return `${directory} is mounted nosuid or noexec`;
  return /[\s:]/.test(directory) && `what lies in ${directory} cannot be named in LD_PRELOAD (ld.so(8))`;
})();
const withCompiler = { skip: missing('cc') };
const withUserNamespaces = {
  skip:
    missing('cc') ||
    (cannot === false &&
      spawnSync('setpriv', [...asNobody(), 'unshare', '--user', '--map-root-user', '--mount', 'true'])
        .status !== 0 &&
      'this user can make no user namespace'),
};

function asNobody(): string[] {
  return [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'];
}

let gid = 0;
let cas: Server;
let las: Record<'strict' | 'roots' | 'open' | 'containers', Server>;
let settings: Record<string, string>;
const installed = path('prefix/bin/envcas');
/** The same program, not setgid. */
const copy = path('copy/envcas');

function install(): string {
  return execFileSync('sh', [join(root, 'packaging/install.sh'), '--group', group], {
    encoding: 'utf8',
    env: { ...plain, PREFIX: path('prefix'), UNITDIR: path('units'), CONFDIR: path('configuration') },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

/** A LAS with no more capabilities than its unit gives it. */
async function startLas(name: string, ...args: string[]): Promise<Server> {
  const unit = readFileSync(path('units/envcas-las.service'), 'utf8');
  const capabilities = /^CapabilityBoundingSet=(.*)$/m.exec(unit)?.[1]?.split(' ') ?? [];
  const bounds = ['-all', ...capabilities.map((it) => `+${it.replace(/^CAP_/, '').toLowerCase()}`)].join(',');
  const serve = [path('prefix/bin/scone'), 'las', 'serve', '--dir', path('las'), '--socket', socket(name)];
  return startServer(
    'setpriv',
    [`--bounding-set=${bounds}`, '--no-new-privs', ...serve, ...args],
    /LAS key \(platform\): (\w+)/,
    { env: plain },
  );
}

function scone(args: string[], input?: string): string {
  const { status, stdout, stderr } = run(path('prefix/bin/scone'), args, { ...plain, ...settings }, input);
  assert.equal(status, 0, stderr);
  return stdout;
}

before(async () => {
  if (cannot) return;
  executables();
  for (const name of ['home', 'run', 'copy', 'evil', 'marks', 'files', 'box']) mkdirSync(path(name));
  for (const name of ['evil', 'marks', 'files']) chownSync(path(name), NOBODY, NOBODY);
  install();
  gid = statSync(installed).gid;
  copyFileSync(installed, copy);
  chmodSync(copy, 0o755);
  const both = ['--require', 'secure-execution', '--require', 'root-owned-code'];
  las = {
    strict: await startLas('strict', ...both),
    roots: await startLas('roots', '--require', 'root-owned-code'),
    open: await startLas('open'),
    containers: await startLas('containers', '--containers', ...both.slice(0, 2)),
  };
  const trusted = ['--trusted-platform', las.strict.match[1] ?? ''];
  const options = [...trusted, '--las', socket('open'), '--log-level', 'info'];
  const running = await startCas(path('prefix/bin/scone'), path('cas'), options, plain);
  cas = running.server;
  settings = { ...running.settings, SCONE_CAS_ADDR: '127.0.0.1' };
  const attestation = [
    '--only_for_testing-trust-any',
    '--only_for_testing-debug',
    '--only_for_testing-ignore-signer',
  ];
  scone(['cas', 'attest', '127.0.0.1', ...attestation, '-C', '-G', '-S']);
  for (const [name, require] of [
    ['anything', []],
    ['secure', ['secure-execution', 'root-owned-code']],
  ] as const)
    scone(
      ['session', 'create', '-'],
      JSON.stringify({
        name,
        version: '0.3.10',
        security: { attestation: { tolerate: ['debug-mode'], require } },
        services: [
          {
            name: 's',
            image_name: 'i',
            command: ['envcas', '/proc/self/status', '/proc/self/cgroup', path('files/secret')],
            attestation: { mrenclave: sha256(installed) },
          },
        ],
        images: [
          {
            name: 'i',
            injection_files: [
              {
                path: '/etc/envcas/config.yaml',
                content: `{program: /bin/cat, injection_files: [{from: /secret, to: ${path('files/secret')}}]}`,
              },
              { path: '/secret', content: 'released: $$SCONE::token:hex$$\n' },
            ],
          },
        ],
        secrets: [{ name: 'token', kind: 'binary' }],
      }),
    );
});

after(() => {
  if (gid) execFileSync('groupdel', [group]);
});

interface How {
  program?: string;
  socket?: string;
  session?: string;
  env?: Record<string, string>;
  /** What runs the launcher in place of an ordinary user's shell. */
  wrapper?: string[];
}

/** Starts a launcher as an ordinary user. */
function launch(
  where: string,
  { program = installed, session = 'secure', env = {}, wrapper }: How = {},
): Result {
  rmSync(mark, { force: true });
  rmSync(path('files/secret'), { force: true });
  const [command = '', ...args] = [...(wrapper ?? ['setpriv', ...asNobody()])];
  // The variables are for the launcher alone.
  const set = Object.entries({ ...settings, SCONE_LAS_ADDR: where, SCONE_CONFIG_ID: `${session}/s`, ...env });
  return run(command, [...args, 'env', '-i', ...set.map((pair) => pair.join('=')), program], plain);
}

function released({ status, stdout, stderr }: Result): string {
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^released: [0-9a-f]{40}$/m);
  return stdout;
}

/** @param reason of the LAS or CAS, or a part of it */
function refused({ status, stdout, stderr }: Result, reason: RegExp): void {
  assert.equal(status, 77, stderr);
  assert.match(stderr, reason);
  assert.doesNotMatch(stdout, /released/);
}

/** Passes bytes on to the CAS, so that connections can be cut while it runs. */
async function startRelay(to: number) {
  const open = new Set<Socket>();
  const server = createServer((from) => {
    const onward = connect(to, '127.0.0.1');
    for (const socket of [from, onward]) open.add(socket.on('error', () => {}));
    from.pipe(onward).pipe(from);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cut = () => {
    for (const socket of open) socket.destroy();
    open.clear();
  };
  return {
    port: (server.address() as AddressInfo).port,
    cut,
    close() {
      cut();
      server.close();
    },
  };
}

const NOT_SECURE = /does not run as an executable that root has installed setgid/;
const CHANGEABLE = /has code in it from files that not only root can write/;
const PRELOADED = /was started with LD_\w+, which loads code into it/;
const ELSEWHERE = /sees other files than the LAS/;

describe('what packaging/install.sh installs', { skip: cannot }, () => {
  it('is setgid with a group of its own, and stays so when it is installed again', () => {
    for (const again of [false, true]) {
      if (again) assert.match(install(), new RegExp(`The group ${group} is there`));
      const now = statSync(installed);
      assert.deepEqual([now.mode & 0o7777, now.uid, now.gid], [0o2755, 0, gid]);
    }
    assert.notEqual(gid, 0);
    assert.equal(statSync(path('prefix/bin/scone')).mode & 0o7777, 0o755);
    const unit = readFileSync(path('units/envcas-las.service'), 'utf8');
    assert.match(unit, new RegExp(`^ExecStart=${path('prefix/bin/scone')} las serve `, 'm'));
    assert.doesNotMatch(unit, /@\w+@/);
    if (!missing('systemd-analyze')) {
      const { status, stderr } = run('systemd-analyze', ['verify', path('units/envcas-las.service')], plain);
      assert.equal(status, 0, stderr);
    }
  });

  it('is refused a group that somebody is in, and a place that a unit cannot name', () => {
    const attempt = (env: Record<string, string>, ...args: string[]) =>
      run('sh', [join(root, 'packaging/install.sh'), ...args], { ...plain, PREFIX: path('other'), ...env });
    for (const prefix of ['relative', `${path('a b')}`, '/a|b'])
      assert.equal(attempt({ PREFIX: prefix }, '--group', group).status, 1);
    assert.equal(attempt({}, '--grouped', group).status, 64);
    execFileSync('gpasswd', ['--add', 'root', group], { stdio: 'ignore' });
    try {
      assert.match(attempt({}, '--group', group).stderr, /has members \(root\)/);
    } finally {
      execFileSync('gpasswd', ['--delete', 'root', group], { stdio: 'ignore' });
    }
    const primary = execFileSync('id', ['-gn', `${NOBODY}`], { encoding: 'utf8' }).trim();
    assert.match(
      attempt({}, '--group', primary).stderr,
      new RegExp(`${primary} is the primary group of a user`),
    );
    mkdirSync(path('loose/inner'), { recursive: true });
    chmodSync(path('loose'), 0o777);
    for (const folder of [
      { PREFIX: path('loose/inner') },
      { UNITDIR: path('loose/inner') },
      { CONFDIR: path('loose') },
    ])
      assert.match(attempt(folder, '--group', group).stderr, /others than root may write to .*loose/);
    chownSync(path('loose'), NOBODY, NOBODY);
    assert.match(
      attempt({ PREFIX: path('loose/inner') }, '--group', group).stderr,
      /loose belongs to another user than root/,
    );
    assert.match(attempt({}, '--group', 'root').stderr, /root is one of the system's own \(gid 0\)/);
    assert.equal(existsSync(path('other')), false);
  });

  it('can be put into a folder that stands for the whole system meanwhile', () => {
    const env = {
      ...plain,
      DESTDIR: path('stage'),
      PREFIX: '/opt/envcas',
      UNITDIR: '/usr/lib/systemd/system',
    };
    const careful = ['-c', 'umask 077 && exec sh "$@"', 'sh', join(root, 'packaging/install.sh')];
    const { status, stderr } = run('sh', [...careful, '--group', group], env);
    assert.equal(status, 0, stderr);
    assert.equal(statSync(path('stage/opt/envcas/bin/envcas')).mode & 0o7777, 0o2755);
    for (const folder of ['opt', 'opt/envcas', 'usr/lib', 'usr/lib/systemd/system'])
      assert.equal(statSync(path('stage', folder)).mode & 0o7777, 0o755, folder);
    const unit = readFileSync(path('stage/usr/lib/systemd/system/envcas-las.service'), 'utf8');
    assert.match(unit, /^ExecStart=\/opt\/envcas\/bin\/scone las serve /m);
    rmSync(path('stage'), { recursive: true });
  });

  it('starts as a LAS where no core may be dumped, and not where it is to look at code and has no right to', async () => {
    mkdirSync(path('own'));
    chownSync(path('own'), NOBODY, NOBODY);
    const serve = (...demand: string[]) => {
      const las = [
        path('prefix/bin/scone'),
        'las',
        'serve',
        '--dir',
        path('own'),
        '--socket',
        path('own/sock'),
      ];
      const command = ['setpriv', ...asNobody(), ...las, ...demand];
      return startServer('sh', ['-c', 'ulimit -c 0 && exec "$@"', 'sh', ...command], /^LAS ready/m, {
        env: plain,
      });
    };
    for (const demand of [['--containers'], ['--require', 'root-owned-code']])
      await assert.rejects(
        serve(...demand),
        /ended with 77: [\s\S]*cannot see which files[\s\S]*Code: PROCESSES_UNSEEN/,
      );
    assert.equal(await (await serve()).stop(), 0);
  });

  it('knows its own hash and its environment', () => {
    const env = { SCONE_HASH: '1', SCONE_CONFIG_ID: '', SCONE_LAS_ADDR: '' };
    assert.equal(launch('', { env }).stdout.trim(), sha256(installed));
  });
});

describe('a launcher that is installed setgid', { skip: cannot }, () => {
  it('is given what a policy that requires both properties releases, by a LAS that requires them', async () => {
    const stdout = released(launch(socket('strict')));
    // The CAS logs by which control group the process is known on its host.
    const groups = stdout.match(/^\d+:[^:]*:\/.+$/gm) ?? [];
    const [first] = groups.filter((line) => line.startsWith('0:')).concat(groups);
    const line = () => /^\{.*"msg":"released".*$/m.exec(cas.output())?.[0] ?? '';
    await until(line, 'the release in the log');
    assert.equal((JSON.parse(line()) as { cgroup?: string }).cgroup, first?.split(':').slice(2).join(':'));
  });

  it('is what `scone session explain` asks for', () => {
    const explained = scone(['session', 'explain', 'secure/s']);
    assert.match(explained, /^ +secure-execution: it runs as an executable that root has installed setgid/m);
    assert.match(explained, /^ +root-owned-code: nobody but root can write/m);
    assert.doesNotMatch(scone(['session', 'explain', 'anything/s']), /secure-execution|root-owned-code/);
  });

  it('leaves no trace of its group in the program and its files', () => {
    const stdout = released(launch(socket('strict')));
    assert.match(stdout, /^Gid:(\t65534){4}$/m);
    assert.match(stdout, /^Groups:\s*$/m);
    assert.equal(statSync(path('files/secret')).gid, NOBODY);
  });

  it('is vouched for again when its session changes, and starts the program without its group', async () => {
    const groups = path('files/groups');
    const session = (value: string) =>
      JSON.stringify({
        name: 'supervised',
        version: '0.3.10',
        security: { attestation: { tolerate: ['debug-mode'], require: ['secure-execution'] } },
        services: [
          {
            name: 's',
            image_name: 'i',
            command: [
              'envcas',
              '-c',
              `printenv VALUE >> "${groups}"; grep ^Gid: /proc/self/status >> "${groups}"; exec sleep 100000`,
            ],
            environment: { VALUE: value },
            attestation: { mrenclave: sha256(installed) },
          },
        ],
        images: [
          {
            name: 'i',
            injection_files: [
              {
                path: '/etc/envcas/config.yaml',
                content: '{program: /bin/sh, supervise: {on_change: restart}}',
              },
            ],
          },
        ],
      });
    const written = (text: string) =>
      until(() => existsSync(groups) && readFileSync(groups, 'utf8').includes(text), text);
    const ids = 'Gid:\t65534\t65534\t65534\t65534\n';
    scone(['session', 'create', '-'], session('first'));
    const env = { ...settings, SCONE_LAS_ADDR: socket('strict'), SCONE_CONFIG_ID: 'supervised/s' };
    const launcher = spawn('setpriv', [...asNobody(), installed], { env, stdio: 'ignore' });
    try {
      await written(`first\n${ids}`);
      writeFileSync(path('supervised.json'), session('second'));
      scone(['session', 'update', path('supervised.json')]);
      await written(`second\n${ids}`);
    } finally {
      const ended = once(launcher, 'exit');
      launcher.kill('SIGTERM');
      await ended;
    }
  });

  it('is given it by a LAS that requires nothing too', () => {
    released(launch(socket('open')));
  });

  it('cannot be looked at by a LAS of its own user', async () => {
    mkdirSync(path('files/las'));
    chownSync(path('files/las'), NOBODY, NOBODY);
    const args = ['las', 'serve', '--dir', path('files/las'), '--socket', path('files/las/sock')];
    const server = await startServer(
      'setpriv',
      [...asNobody(), path('prefix/bin/scone'), ...args],
      /LAS key/,
      {
        env: plain,
      },
    );
    try {
      refused(launch(path('files/las/sock')), /cannot be looked at: permission denied/);
      // Its key is not trusted; that it vouches is what counts.
      refused(launch(path('files/las/sock'), { program: copy }), /the LAS key \w+ is not trusted/);
    } finally {
      await server.stop();
    }
  });

  it('is vouched for again when it comes back to its CAS', async () => {
    const session = (greeting: string) =>
      JSON.stringify({
        name: 'returning',
        version: '0.3.10',
        security: { attestation: { tolerate: ['debug-mode'], require: ['secure-execution'] } },
        services: [
          {
            name: 's',
            image_name: 'i',
            command: ['envcas', '-c', `echo ${greeting}; exec sleep 100000`],
            attestation: { mrenclave: sha256(installed) },
          },
        ],
        images: [
          {
            name: 'i',
            injection_files: [
              { path: '/etc/envcas/config.yaml', content: '{program: /bin/sh, supervise: {}}' },
            ],
          },
        ],
      });
    scone(['session', 'create', '-'], session('before'));
    const relay = await startRelay(Number(settings.SCONE_CAS_ENCLAVE_PORT));
    const set = {
      ...settings,
      SCONE_CAS_ENCLAVE_PORT: String(relay.port),
      SCONE_LAS_ADDR: socket('strict'),
      SCONE_CONFIG_ID: 'returning/s',
    };
    const child = spawn('setpriv', [...asNobody(), installed], {
      env: set,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const says = async () => String((await once(child.stdout, 'data'))[0]);
    try {
      assert.equal(await says(), 'before\n');
      relay.cut();
      scone(['session', 'update', '-'], session('after'));
      assert.equal(await says(), 'after\n');
      scone(['session', 'update', '-'], session('later'));
      assert.equal(await says(), 'later\n');
    } finally {
      child.kill('SIGTERM');
      await once(child, 'exit');
      relay.close();
    }
  });

  it('is looked into by no other process of its user', withCompiler, async () => {
    const look = path('copy/look');
    execFileSync('cc', ['-o', look, join(root, 'test/fixtures/las/c/look.c')]);
    const silent = createServer().listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const env = {
      SCONE_CONFIG_ID: 'some/service',
      SCONE_CAS_ADDR: `127.0.0.1:${(silent.address() as AddressInfo).port}`,
      SCONE_LAS_ADDR: path('none.sock'),
    };
    const waiting: ChildProcess[] = [];
    const looked = async (program: string, isReady: (child: ChildProcess) => Promise<unknown>) => {
      const child = spawn('setpriv', [...asNobody(), program], {
        env: { ...plain, ...env },
        stdio: ['pipe', 'pipe', 'ignore'],
      });
      waiting.push(child);
      await isReady(child);
      return run('setpriv', [...asNobody(), look, String(child.pid)], plain).stdout.trim();
    };
    const asks = () => once(silent, 'connection');
    const answers = ({ stdin, stdout }: ChildProcess) => {
      stdin?.write('\n');
      return once(stdout ?? silent, 'data');
    };
    try {
      assert.equal(await looked(installed, asks), '');
      // Yama lets nobody do the others.
      assert.match(await looked('cat', answers), /^(mem\nenviron|environ)/);
    } finally {
      for (const child of waiting) child.kill('SIGKILL');
      silent.close();
    }
  });
});

describe('a launcher that is not installed setgid', { skip: cannot }, () => {
  it('is refused by a LAS that requires secure-execution', () => {
    refused(launch(socket('strict'), { program: copy, session: 'anything' }), NOT_SECURE);
  });

  it('is refused by a policy that requires it', () => {
    refused(launch(socket('roots'), { program: copy }), /the property secure-execution, which the policy/);
    released(launch(socket('roots'), { program: copy, session: 'anything' }));
  });

  it('is refused where its file is not of root alone', () => {
    const own = path('evil/envcas');
    copyFileSync(copy, own);
    const change = (mode: number, uid: number, gid: number) => {
      chownSync(own, uid, gid);
      chmodSync(own, mode);
    };
    change(0o755, NOBODY, NOBODY);
    refused(launch(socket('roots'), { program: own, session: 'anything' }), CHANGEABLE);
    change(0o775, 0, NOBODY);
    refused(launch(socket('roots'), { program: own, session: 'anything' }), CHANGEABLE);
    change(0o2755, NOBODY, gid);
    refused(launch(socket('strict'), { program: own, session: 'anything' }), NOT_SECURE);
    change(0o2755, 0, NOBODY);
    refused(launch(socket('strict'), { program: own, session: 'anything' }), NOT_SECURE);
    change(0o2775, 0, gid);
    refused(launch(socket('strict'), { program: own, session: 'anything' }), NOT_SECURE);
    change(0o2755, 0, gid);
    released(launch(socket('strict'), { program: own }));
  });

  it('is refused where its user has the group otherwise', () => {
    const wrapper = ['setpriv', `--reuid=${NOBODY}`, `--regid=${gid}`, '--clear-groups'];
    refused(launch(socket('strict'), { wrapper, session: 'anything' }), NOT_SECURE);
  });
});

describe('a library that clears up after itself', { skip: cannot || withCompiler.skip }, () => {
  const library = (name: string) => path('evil', name);
  before(() => {
    const compile = (name: string, ...args: string[]) => {
      const source = join(root, 'test/fixtures/las/c/preloaded.c');
      const define = `-DMARK=${JSON.stringify(mark)}`;
      execFileSync('cc', ['-shared', '-fPIC', define, ...args, '-o', library(name), source]);
      chownSync(library(name), NOBODY, NOBODY);
    };
    const versions = `-Wl,--version-script=${join(root, 'test/fixtures/las/c/versions.map')}`;
    compile('visible.so');
    compile('hidden.so', '-DHIDDEN');
    mkdirSync(library('path'));
    compile('path/libdl.so.2', '-DHIDDEN', '-Wl,-soname,libdl.so.2', versions);
  });
  const ways = {
    LD_PRELOAD: library('hidden.so'),
    LD_AUDIT: library('visible.so'),
    LD_LIBRARY_PATH: library('path'),
  };
  for (const [variable, value] of Object.entries(ways)) {
    const env = { [variable]: value };
    it(`runs in an ordinary launcher by ${variable}, which a LAS does not see`, () => {
      released(launch(socket('open'), { program: copy, session: 'anything', env }));
      assert.equal(existsSync(mark), true);
      released(launch(socket('roots'), { program: copy, session: 'anything', env }));
      assert.equal(existsSync(mark), true);
    });

    it(`is refused there by a LAS that requires secure-execution`, () => {
      refused(launch(socket('strict'), { program: copy, session: 'anything', env }), NOT_SECURE);
      assert.equal(existsSync(mark), true);
    });

    it(`does not run by ${variable} in a launcher that is installed setgid`, () => {
      const hash = launch('', { env: { ...env, SCONE_HASH: '1', SCONE_CONFIG_ID: '', SCONE_LAS_ADDR: '' } });
      assert.equal(hash.stdout.trim(), sha256(installed));
      assert.equal(existsSync(mark), false);
      refused(launch(socket('strict'), { env }), PRELOADED);
      assert.equal(existsSync(mark), false);
    });
  }

  it('is seen by root-owned-code as long as it is there', () => {
    const env = { LD_PRELOAD: library('visible.so') };
    refused(launch(socket('roots'), { program: copy, session: 'anything', env }), CHANGEABLE);
    assert.equal(existsSync(mark), true);
  });

  describe('in a user namespace, by /etc/ld.so.preload', withUserNamespaces, () => {
    it('is refused, though a LAS vouches for containers', () => {
      mkdirSync(library('etc'));
      writeFileSync(library('etc/ld.so.preload'), library('hidden.so'));
      const script = `mount --bind ${library('etc')} /etc && exec "$@"`;
      const namespaces = ['unshare', '--user', '--map-root-user', '--mount', '--'];
      const wrapper = ['setpriv', ...asNobody(), ...namespaces, 'sh', '-c', script, 'sh'];
      for (const where of ['open', 'containers'])
        for (const program of [copy, installed]) {
          refused(launch(socket(where), { program, session: 'anything', wrapper }), ELSEWHERE);
          assert.equal(existsSync(mark), true);
        }
    });
  });
});

const withContainers = {
  skip:
    cannot ||
    (spawnSync('unshare', ['--mount', '--pid', '--fork', 'true']).status !== 0 &&
      'root can make no namespace'),
};
describe('a container', withContainers, () => {
  /** Runs a launcher where root has made other namespaces, in a root folder of its own. */
  function contained(where: string, program: string, more = ':'): Result {
    const box = path('box');
    const mounts = ['/usr', '/bin', '/lib', '/lib64', '/dev', path('prefix'), path('copy'), path('files')]
      .filter((name) => existsSync(name))
      .map((name) => `mkdir -p "${box}${name}"; mount --rbind "${name}" "${box}${name}"`);
    const script = [
      'set -e',
      `mount -t tmpfs box "${box}"`,
      `chmod 755 ${box}`,
      ...mounts,
      // The folder of the LAS's socket, under another name.
      `mkdir -p "${box}/proc" "${box}/etc" "${box}/las"; mount --bind "${path('run')}" "${box}/las"`,
      `mount -t proc proc "${box}/proc"`,
      `cd "${box}"`,
      more,
      'exec "$@"',
    ].join('\n');
    const as = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'];
    const namespaces = ['--mount', '--pid', '--fork', '--propagation', 'private'];
    const inside = ['chroot', path('box'), 'setpriv', ...as];
    const wrapper = ['unshare', ...namespaces, 'sh', '-c', script, 'sh', ...inside];
    return launch(`/las/${where}.sock`, { program, session: 'anything', wrapper });
  }

  it('is vouched for through a socket that is mounted there, by a LAS that is told to', () => {
    released(contained('containers', installed));
    refused(contained('strict', installed), ELSEWHERE);
    refused(contained('open', installed), ELSEWHERE);
  });

  it('is not vouched for without what the LAS requires', () => {
    refused(contained('containers', copy), NOT_SECURE);
  });

  it('is not vouched for where code in it is not of root alone', withCompiler, async () => {
    const library = path('files/preloaded.so');
    const source = join(root, 'test/fixtures/las/c/preloaded.c');
    execFileSync('cc', ['-shared', '-fPIC', `-DMARK=${JSON.stringify('/none')}`, '-o', library, source]);
    chownSync(library, NOBODY, NOBODY);
    refused(contained('containers', installed, `echo ${library} > etc/ld.so.preload`), CHANGEABLE);
  });
});
