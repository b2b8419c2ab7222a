import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { before, describe, test } from 'node:test';
import { openToOthers } from './launcher/support.ts';
import { temporaryFolder } from './support/leave-nothing.ts';
import { dba, missingPostgres, programs } from './support/postgres.ts';
import { missing, run, type Server, type Stack, startServer, startStack } from './support/stack.ts';

const example = resolve(import.meta.dirname, '../examples/psql');

describe('examples/psql', { skip: missing('/usr/bin/psql') || missingPostgres }, () => {
  const folder = temporaryFolder();
  const data = join(folder, 'data');
  let stack: Stack | undefined;
  let server: Server | undefined;
  before(async () => {
    const idOf = (option: string) => Number(execFileSync('id', [option, dba], { encoding: 'utf8' }));
    const [uid, gid] = [idOf('-u'), idOf('-g')];
    chownSync(folder, uid, gid);
    const options = { uid, gid, cwd: folder, env: { PATH: process.env.PATH ?? '', LC_ALL: 'C' } };
    execFileSync(join(programs, 'initdb'), ['-D', data, '-U', dba, '--auth=peer', '--no-sync'], {
      ...options,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    // As the README asks for it. The log holds every statement, so that one with a password in it would be found.
    writeFileSync(join(data, 'pg_hba.conf'), 'local all shop scram-sha-256\nlocal all all peer\n');
    const settings = ['listen_addresses=', 'fsync=off', 'log_statement=all', 'log_min_duration_statement=0'];
    server = await startServer(
      join(programs, 'postgres'),
      ['-D', data, '-k', folder, ...settings.flatMap((setting) => ['-c', setting])],
      /ready to accept connections/,
      options,
    );
    stack = await startStack();
    openToOthers(stack);
  });

  test('psql logs in with a password that is in no file, argument or variable', async () => {
    assert.ok(stack && server);
    const [, commands = '', printed = ''] =
      /```sh\n([\s\S]*?)```[\s\S]*?```\n([\s\S]*?)```/.exec(
        readFileSync(join(example, 'README.md'), 'utf8'),
      ) ?? [];
    const script = commands
      .replace('SESSION=shop-$RANDOM', 'SESSION=shop')
      .replace('DBA=postgres', `DBA=${dba}`)
      .replace('PGHOST=/run/postgresql', `PGHOST='${folder}'`);
    const PATH = `${dirname(stack.envcas)}:${process.env.PATH}`;
    const { stdout, stderr } = run('bash', ['-c', script], { ...stack.env, PATH });
    const masked = (text: string) =>
      text.replace(/^[0-9a-f]{64}$/m, 'HASH').replace(/\/postgresql\/\d+\//, '/postgresql/15/');
    assert.equal(masked(stdout), masked(printed), stderr);

    const psql = spawn(stack.envcas, [], {
      env: { ...stack.env, SCONE_CONFIG_ID: 'shop/psql' },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const exit = once(psql, 'exit');
    try {
      psql.stdin.write('SELECT current_user;\n');
      await once(psql.stdout, 'data');
      const [, password = ''] =
        /^\*:\*:\*:shop:([0-9a-f]{64})\n$/.exec(readFileSync(`/proc/${psql.pid}/fd/3`, 'utf8')) ?? [];
      assert.ok(password);
      for (const open of ['cmdline', 'environ'])
        assert.ok(!readFileSync(`/proc/${psql.pid}/${open}`).includes(password), open);
      assert.match(server.output(), /LOG: +statement: SELECT current_user/);
      assert.ok(!server.output().includes(password));
      assert.ok(filesWith('SCRAM-SHA-256', folder).length > 0);
      assert.deepEqual(filesWith(password, folder, dirname(stack.files)), []);
    } finally {
      psql.stdin.end();
    }
    assert.deepEqual(await exit, [0, null]);
  });

  test('without the password, the server lets nobody in', () => {
    const { status, stderr } = run(
      '/usr/bin/psql',
      ['--no-psqlrc', '--no-password', '-h', folder, '-U', 'shop', 'postgres'],
      { PATH: process.env.PATH },
    );
    assert.equal(status, 2);
    assert.match(stderr, /no password supplied/);
  });
});

function filesWith(text: string, ...folders: string[]): string[] {
  const { stdout } = spawnSync('grep', ['-rlF', '-f', '-', '--devices=skip', ...folders], {
    input: text,
    encoding: 'utf8',
  });
  return stdout.split('\n').filter(Boolean);
}
