import assert from 'node:assert/strict';
import { createHash, randomBytes, type X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { connect } from 'node:tls';
import * as v from 'valibot';
import type { Identity } from '../../src/protocol/certificate.ts';
import { ask, makeIdentity, read, upload } from '../support/client.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { executables, type RunningCas, run, type Server, startCas } from '../support/stack.ts';
import { until } from '../support/until.ts';

const { scone } = executables();
const anything = v.any();
const session = (name: string) => `name: ${name}\nversion: "0.3"\n`;

describe('an owner', () => {
  let folder: string;
  let cas: RunningCas;
  let alice: Identity;
  let bob: Identity;
  let token: string;
  const file = (name: string) => join(folder, name);
  const start = (ports?: { api: string; enclave: string }) =>
    startCas(
      scone,
      file('cas'),
      ['--workers', '2', '--config', file('cas.toml')],
      { PATH: process.env.PATH ?? '', HOME: folder },
      ports,
    );
  before(async () => {
    folder = temporaryFolder();
    writeFileSync(file('cas.toml'), '');
    [alice, bob] = [await makeIdentity('alice'), await makeIdentity('bob')];
    cas = await start();
    [, token = ''] =
      /CAS provisioning token: ([0-9a-f]{32})\n/.exec(await outputWith(cas.server, /token/)) ?? [];
  });

  const get = (path: string, who?: Identity) => ask(cas, who, { method: 'GET', path }, anything);
  const send = (method: 'POST' | 'PUT' | 'DELETE', path: string, content: unknown, who?: Identity) =>
    ask(cas, who, { method, path, body: JSON.stringify(content) }, anything);
  const provision = (its: string, who: Identity) =>
    send(
      'POST',
      '/v1/provisioning',
      { token: its, configuration: { api_identity: { common_name: 'cas' } } },
      who,
    );
  const namesOf = async (port: string) => (await certificateOf(port)).subjectAltName ?? '';

  test('is nobody at first, and nobody commands the CAS then', async () => {
    assert.deepEqual(await get('/v1/provisioning'), { provisioned: false, version: 0 });
    await assert.rejects(get('/v1/owner-configuration', alice), { code: 'NOT_PROVISIONED' });
    await assert.rejects(get('/v1/owner-configuration'), { code: 'IDENTITY_REQUIRED' });
    await upload(cas, bob, session('nobodys'));
  });

  test('is who knows the token, once, of all who try at once', async () => {
    await assert.rejects(provision('0'.repeat(32), alice), { code: 'TOKEN_INVALID' });
    const tries = await Promise.allSettled([
      provision(token, alice),
      provision(token, alice),
      provision(token, bob),
    ]);
    assert.equal(tries.filter(({ status }) => status === 'fulfilled').length, 1);
    const isAlice = tries[2]?.status !== 'fulfilled';
    if (!isAlice) [alice, bob] = [bob, alice];
    await upload(cas, alice, session('before'));
    await assert.rejects(provision(token, bob), { code: 'PROVISIONED_ALREADY' });
    assert.deepEqual(await get('/v1/provisioning'), { provisioned: true, version: 1 });
  });

  test('changes the configuration, and nobody else does; of two changes at once, one counts', async () => {
    const configuration = { api_identity: { common_name: 'cas', alt_names: ['cas.example.org'] } };
    const path = '/v1/owner-configuration';
    await assert.rejects(send('PUT', path, { version: 1, configuration }, bob), { code: 'NOT_OWNER' });
    await assert.rejects(send('PUT', path, { version: 1, configuration: { unknown: 1 } }, alice), {
      code: 'REQUEST_INVALID',
    });
    const changes = await Promise.allSettled(
      [1, 2, 3].map(() => send('PUT', path, { version: 1, configuration }, alice)),
    );
    assert.equal(changes.filter(({ status }) => status === 'fulfilled').length, 1);
    await assert.rejects(send('PUT', path, { version: 1, configuration }, alice), {
      code: 'CONFIGURATION_CHANGED',
    });
    assert.equal((await get(path, alice)).version, 2);
  });

  test('has the certificate name what the configuration says, on both ports, without a restart', async () => {
    for (const port of [cas.apiPort, cas.enclavePort])
      await until(async () => (await namesOf(port)).includes('DNS:cas.example.org'), 'its new name');
  });

  test('an administrator changes what his file says, by a signal; a broken file changes nothing', async () => {
    writeFileSync(file('cas.toml'), '[api]\nnames = ["reloaded.example.org"]\n');
    cas.server.process.kill('SIGHUP');
    // Each process takes it over by itself, and either may answer.
    const isReloaded = async () => {
      const answers = await Promise.all(Array.from({ length: 20 }, () => namesOf(cas.apiPort)));
      return answers.every((names) => names.includes('DNS:reloaded.example.org'));
    };
    await until(isReloaded, 'the name of the new file, in all processes');
    writeFileSync(file('cas.toml'), '[api]\nname = 1\n');
    cas.server.process.kill('SIGHUP');
    await outputWith(cas.server, /not taken over.*|api\.name is no key of it/);
    assert.match(await namesOf(cas.apiPort), /reloaded\.example\.org/);
    writeFileSync(file('cas.toml'), '');
  });

  test('reads what was decided, and others do not', async () => {
    await assert.rejects(get('/v1/audit-log/entries', bob), { code: 'NOT_OWNER' });
    const { lines } = await get('/v1/audit-log/entries?first=1&limit=1000', alice);
    const operations = lines.map((line: string) => JSON.parse(line).operation);
    for (const operation of ['cas_started', 'session_created', 'provisioned', 'owner_configuration_updated'])
      assert.ok(operations.includes(operation), operation);
    assert.ok(!lines.join().includes(token));
  });

  test('names CASes that may have the root key, which nobody else is given', async () => {
    const hex = () => randomBytes(32).toString('hex');
    const wanted = {
      ...{
        kind: 'backup',
        name: 'other',
        root: 'software',
        measurement: hex(),
        platform: hex(),
        debug: true,
      },
      ...{ weaknesses: [], advisories: [] },
    };
    await assert.rejects(send('POST', '/v1/registrations', wanted, bob), { code: 'NOT_OWNER' });
    const { id } = await send('POST', '/v1/registrations', wanted, alice);
    assert.equal((await get('/v1/registrations', alice)).registrations[0].id, id);
    await assert.rejects(send('POST', '/v1/upgrades', {}, alice), { code: 'UPGRADE_NOT_REGISTERED' });
    await assert.rejects(send('DELETE', '/v1/registrations/00000000', {}, alice), {
      code: 'REGISTRATION_NOT_FOUND',
    });
    await send('DELETE', `/v1/registrations/${id}`, {}, alice);
    // As a command of the version before says it, and as one of this version does.
    for (const [path, runAs] of [
      ['/v1/registrations', undefined],
      ['/v2/registrations', ['uid:7', 'user:cas']],
    ] as const) {
      const made = await send('POST', path, { ...wanted, runAs }, alice);
      assert.deepEqual(made.runAs, runAs ?? ['uid:0', 'unit:envcas-cas.service']);
      await send('DELETE', `/v1/registrations/${made.id}`, {}, alice);
    }
    for (const runAs of [[], ['root'], 'uid:7'])
      await assert.rejects(send('POST', '/v2/registrations', { ...wanted, runAs }, alice), {
        code: 'REQUEST_INVALID',
      });
    assert.deepEqual(await get('/v1/registrations', alice), { registrations: [] });
    await assert.rejects(send('POST', '/v1/root-key', {}), { code: 'EVIDENCE_INVALID' });
    await assert.rejects(send('POST', '/v1/root-key', { evidence: 'x' }), { code: 'EVIDENCE_INVALID' });
  });

  test('has a new master key made while sessions are read and written', async () => {
    await assert.rejects(send('POST', '/v1/rotations', {}, bob), { code: 'NOT_OWNER' });
    let isOver = false;
    const busy = (async () => {
      for (let count = 0; !isOver; count++) {
        await upload(cas, bob, session(`rotating-${count}`));
        assert.equal(await read(cas, bob, `rotating-${count}`), session(`rotating-${count}`));
      }
    })();
    const { present, rewrapped } = await send('POST', '/v1/rotations', {}, alice);
    isOver = true;
    await busy;
    assert.equal(present, 2);
    assert.ok(rewrapped > 5);
    assert.equal(await read(cas, alice, 'before'), session('before'));
    await cas.server.stop();
    cas = await start({ api: cas.apiPort, enclave: cas.enclavePort });
    assert.equal(await read(cas, alice, 'before'), session('before'));
  });

  test('takes a backup while the CAS runs, and puts it back; what came later is gone, and that is said', async () => {
    const env = { PATH: process.env.PATH ?? '', HOME: folder, ...cas.settings };
    const pem = (who: string, { key, certificate }: Identity) =>
      writeFileSync(file(who), key + certificate, { mode: 0o600 });
    pem('alice.pem', alice);
    pem('bob.pem', bob);
    const state = {
      cas_db: {
        cas: { url: `https://127.0.0.1:${cas.apiPort}/`, chain: `${await certificateOf(cas.apiPort)}` },
      },
      default_cas: 'cas',
    };
    writeFileSync(file('cli.json'), JSON.stringify(state), { mode: 0o600 });
    const command = (who: string, ...args: string[]) =>
      run(scone, ['--config', file('cli.json'), 'cas', ...args, '--identity', file(`${who}.pem`)], env);

    const refused = command('bob', 'backup', file('bob.backup'));
    assert.match(refused.stderr, /NOT_OWNER/);
    assert.equal(command('alice', 'backup', file('a.backup')).status, 0);
    assert.ok(!readFileSync(file('a.backup')).includes('version: "0.3"'), 'sessions are sealed in it');
    await upload(cas, alice, session('after'));
    assert.equal(command('alice', 'show-config').status, 0);
    const lines = readFileSync(file('a.backup'), 'latin1').split('\n');
    writeFileSync(file('damaged.backup'), lines.toSpliced(3, 1).join('\n'), 'latin1');
    assert.match(command('alice', 'restore', file('damaged.backup')).stderr, /BACKUP_INVALID/);
    // Whole, but with a row of somebody else's: the digest is right, and the code is not.
    const [head = '', ...rest] = lines;
    const body = [head, ...rest.slice(0, -2)].map((line) =>
      line.replace('"version","before",1', '"version","beforf",1'),
    );
    const sha256 = createHash('sha256')
      .update(body.map((line) => `${line}\n`).join(''))
      .digest('hex');
    writeFileSync(
      file('forged.backup'),
      [...body, JSON.stringify({ rows: body.length - 1, sha256 }), ''].join('\n'),
    );
    assert.match(
      command('alice', 'restore', file('forged.backup')).stderr,
      /the code is another[\s\S]*BACKUP_INVALID/,
    );
    assert.equal(await read(cas, alice, 'after'), session('after'));

    const bound = command('alice', 'restore', file('a.backup'), '--run-as', 'uid:0');
    assert.deepEqual([bound.status, bound.stdout], [64, '']);
    assert.match(bound.stderr, /A restore goes to the CAS that was attested, by its key/);
    const restored = command('alice', 'restore', file('a.backup'));
    assert.equal(restored.status, 0, restored.stderr);
    await assert.rejects(read(cas, alice, 'after'), { code: 'SESSION_NOT_FOUND' });
    assert.equal(await read(cas, alice, 'before'), session('before'));
    const told = command('alice', 'show-config');
    assert.match(told.stderr, /was restored from a backup on 20\d\d-[\s\S]*CAS_RESTORED/);
    assert.equal(told.status, 77);
  });

  test('has all processes forget their keys', async () => {
    await assert.rejects(send('POST', '/v1/seal', {}, bob), { code: 'NOT_OWNER' });
    await send('POST', '/v1/seal', {}, alice);
    await outputWith(cas.server, /CAS is sealed, at /);
    await assert.rejects(get('/v1/provisioning'), { code: /^CAS_(SEALED|UNREACHABLE)$/ });
    await assert.rejects(
      ask(cas, undefined, { method: 'POST', path: '/v1/unseal', body: '{"passphrase":"x"}' }, anything),
      {
        code: 'UNSEAL_REFUSED',
      },
    );
    await cas.server.stop();
    cas = await start({ api: cas.apiPort, enclave: cas.enclavePort });
    assert.equal(await read(cas, alice, 'before'), session('before'));
  });
});

/** The certificate that a server shows. */
async function certificateOf(port: string): Promise<X509Certificate> {
  const socket = connect({ host: '127.0.0.1', port: Number(port), rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const certificate = socket.getPeerX509Certificate();
  socket.destroy();
  assert.ok(certificate);
  return certificate;
}

/** What a server has written, once something is in it. */
async function outputWith(server: Server, what: RegExp): Promise<string> {
  await until(() => what.test(server.output()), `${what} in the output`);
  return server.output();
}
