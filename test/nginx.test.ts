import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { openToOthers } from './launcher/support.ts';
import { freePort } from './support/port.ts';
import { rest } from './support/rest.ts';
import { executables, missing, nameless, ownName, run, type Stack, startStack } from './support/stack.ts';
import { until } from './support/until.ts';

const example = resolve(import.meta.dirname, '../examples/nginx');
const execute = promisify(execFile);
const runAs = process.getuid?.() === 0 ? 'www-data' : ownName;

const skip = missing('/usr/sbin/nginx', '/usr/bin/curl', 'openssl') || nameless;

describe('examples/nginx', { skip }, () => {
  let stack: Stack;
  before(async () => {
    stack = await startStack();
    openToOthers(stack);
  });

  test('the commands of its README print what it says', async () => {
    const [, commands = '', printed = ''] =
      /```sh\n([\s\S]*?)```[\s\S]*?```\n([\s\S]*?)```/.exec(
        readFileSync(join(example, 'README.md'), 'utf8'),
      ) ?? [];
    const directory = join(stack.files, 'readme');
    const script = commands
      .replace('RUN_AS=www-data', `RUN_AS=${runAs}`)
      .replace('DIR=/run/web', `DIR='${directory}'`)
      .replace('PORT=8443', `PORT=${await freePort()}`);
    const { stdout, stderr } = run('bash', ['-c', script], {
      ...stack.env,
      PATH: `${dirname(stack.envcas)}:${process.env.PATH}`,
    });
    const present = stdout.replaceAll(directory, '/run/web').replaceAll(`- ${runAs} /`, '- www-data /');
    const masked = (text: string) =>
      text
        .replace(/^[0-9a-f]{64}$/gm, 'HASH')
        .replace(/^serial=.*/gm, 'SERIAL')
        .replace(/^\d+$/gm, 'PID');
    assert.equal(masked(present), masked(printed), stderr);
    const [serial, nextSerial] = stdout.match(/^serial=.*/gm) ?? [];
    assert.notEqual(serial, nextSerial);
    const [pid, nextPid] = stdout.match(/^\d+$/gm) ?? [];
    assert.equal(pid, nextPid);
  });

  test('new certificates are served by the same process, and no connection fails meanwhile', async () => {
    const port = await freePort();
    const directory = join(stack.files, 'web');
    const policy = (greeting: string) =>
      readFileSync(join(example, 'session.yaml'), 'utf8').replace('It works', greeting);
    const variables = Object.entries({
      SESSION: 'web',
      MRENCLAVE: stack.envcasMeasurement,
      DIR: directory,
      RUN_AS: runAs,
      PORT: String(port),
    }).flatMap(([name, value]) => ['-e', `${name}=${value}`]);
    stack.create(policy('version 1'), ...variables);

    const { scone } = executables();
    const supervisor = spawn(stack.envcas, [], {
      env: { ...stack.env, SCONE_CONFIG_ID: 'web/nginx' },
      stdio: ['ignore', 'inherit', 'pipe'],
    });
    const exit = once(supervisor, 'exit');
    let said = '';
    supervisor.stderr.on('data', (chunk) => {
      said += chunk;
    });
    const pidFile = join(directory, 'nginx.pid');
    await until(() => {
      assert.equal(supervisor.exitCode, null, said);
      return existsSync(pidFile) && readFileSync(pidFile).length > 0;
    }, pidFile);
    const master = readFileSync(pidFile, 'utf8').trim();
    const parent = /^PPid:\t(\d+)$/m.exec(readFileSync(`/proc/${master}/status`, 'utf8'))?.[1];
    assert.equal(parent, String(supervisor.pid));

    const key = statSync(join(directory, 'live/server.key'));
    assert.equal(key.mode.toString(8), '100400');
    assert.equal(key.uid, Number(run('id', ['-u', runAs], process.env).stdout));

    // Of the first version: who trusts it goes on doing so.
    const authority = join(stack.files, 'ca.pem');
    const { body } = await rest(stack).get('/v1/values/session=web,secret=ca');
    writeFileSync(authority, body.value);
    const curl = async (...options: string[]) => {
      const { stdout } = await execute('/usr/bin/curl', [
        ...['--silent', '--show-error', '--cacert', authority, ...options],
        `https://localhost:${port}/`,
      ]);
      return stdout;
    };
    const serials = new Set([serialIn(await curl('--write-out', '%{certs}'))]);

    let isOver = false;
    let visits = 0;
    const visit = async () => {
      for (; !isOver; visits++) assert.match(await curl(), /^version \d\.$/m);
    };
    const renew = async () => {
      for (const version of [2, 3, 4]) {
        const file = join(stack.files, `${version}.yaml`);
        writeFileSync(file, policy(`version ${version}`));
        await execute(scone, ['session', 'update', ...variables, file], { env: stack.env });
        let seen = '';
        await until(async () => {
          seen = await curl('--write-out', '%{certs}');
          return seen.startsWith(`version ${version}.`);
        }, `version ${version}`);
        serials.add(serialIn(seen));
      }
    };
    await Promise.all([renew().finally(() => (isOver = true)), visit(), visit()]);
    assert.equal(serials.size, 4);
    assert.ok(visits > 4);
    assert.equal(readFileSync(pidFile, 'utf8').trim(), master);
    assert.match(readFileSync(`/proc/${master}/cmdline`, 'utf8'), /^nginx: master process/);

    supervisor.kill('SIGQUIT');
    assert.deepEqual(await exit, [0, null], said);
    assert.ok(!existsSync(`/proc/${master}`));
    assert.deepEqual(readdirSync(directory).sort(), ['body', 'fastcgi', 'proxy', 'scgi', 'uwsgi']);
  });
});

function serialIn(certificates: string): string {
  const [, serial = ''] = /^Serial Number:(\w+)$/m.exec(certificates) ?? [];
  assert.ok(serial, certificates);
  return serial;
}
