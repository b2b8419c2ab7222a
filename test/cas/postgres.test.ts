import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import pg from 'pg';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { freePort } from '../support/port.ts';
import { missingPostgres, type Postgres, startPostgres } from '../support/postgres.ts';
import { executables, missing, run } from '../support/stack.ts';

const { scone } = executables();

describe('a PostgreSQL that is reached over a network', {
  skip: missing('openssl') || missingPostgres,
}, () => {
  let folder: string;
  let postgres: Postgres;
  let port: number;
  const file = (name: string) => join(folder, name);
  before(async () => {
    folder = temporaryFolder();
    chmodSync(folder, 0o755);
    for (const name of ['server', 'other'])
      execFileSync(
        'openssl',
        [
          ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
          ...['-subj', '/CN=db.example.org', '-addext', 'subjectAltName=DNS:localhost'],
          ...['-keyout', file(`${name}.key`), '-out', file(`${name}.crt`)],
        ],
        { stdio: 'ignore' },
      );
    writeFileSync(file('hba'), 'local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n');
    port = await freePort();
    const isRoot = process.getuid?.() === 0;
    if (isRoot)
      chownSync(file('server.key'), Number(execFileSync('id', ['-u', 'postgres'])), statSync(folder).gid);
    chmodSync(file('server.key'), 0o600);
    postgres = await startPostgres(
      [
        ...['listen_addresses=127.0.0.1', `port=${port}`, `hba_file=${file('hba')}`, 'fsync=off'],
        ...['ssl=on', `ssl_cert_file=${file('server.crt')}`, `ssl_key_file=${file('server.key')}`],
      ],
      port,
    );
    const client = new pg.Client({ host: postgres.folder, port, user: postgres.user, database: 'postgres' });
    await client.connect();
    await client.query("CREATE ROLE cas LOGIN PASSWORD 'the password'");
    await client.query('CREATE DATABASE cas OWNER cas');
    await client.end();
    writeFileSync(file('pgpass'), `localhost:${port}:cas:cas:the password\n`, { mode: 0o600 });
    writeFileSync(file('wrong'), `localhost:${port}:cas:cas:another\n`, { mode: 0o600 });
  });
  const init = (query: string, env: Record<string, string>) =>
    run(
      scone,
      [
        'cas',
        'init',
        '--dir',
        file('cas'),
        '--store',
        `postgres://cas@localhost:${port}/cas${query}`,
        '--new-key-file',
        file('key'),
      ],
      { PATH: process.env.PATH ?? '', HOME: folder, ...env },
    );
  const all = () => ({ PGPASSFILE: file('pgpass'), PGSSLROOTCERT: file('server.crt') });

  test('is refused with another certificate, and without TLS', () => {
    const other = init('?sslmode=verify-full', { ...all(), PGSSLROOTCERT: file('other.crt') });
    assert.match(other.stderr, /self-signed certificate[\s\S]*Code: STORE_UNAVAILABLE/);
    assert.match(init('', all()).stderr, /no encryption[\s\S]*Code: STORE_UNAVAILABLE/);
  });

  test('takes a password from a file alone, and a wrong one is named', () => {
    assert.match(
      init('?sslmode=verify-full', { ...all(), PGPASSFILE: file('wrong') }).stderr,
      /password authentication failed[\s\S]*Code: STORE_UNAVAILABLE/,
    );
    const store = `postgres://cas:secret@localhost:${port}/cas`;
    const inAddress = run(scone, ['cas', 'init', '--dir', file('cas'), '--store', store, '--shares', '2/3'], {
      PATH: process.env.PATH ?? '',
    });
    assert.match(inAddress.stderr, /a password does not belong into the address[\s\S]*Code: USAGE/);
  });

  test('keeps a store, with its certificate checked and a password from a file', () => {
    const { status, stderr, stdout } = init('?sslmode=verify-full', all());
    assert.equal(status, 0, stderr);
    assert.match(stdout, /^The store opens by: file/);
    assert.equal(stderr, '');
  });
});
