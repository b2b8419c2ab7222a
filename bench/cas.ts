import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { keyring as createKeyring } from '../src/cas/keyring.ts';
import { openSeal, readSeal, type Seal } from '../src/cas/seal/record.ts';
import { unsealBySelf } from '../src/cas/seal/unseal.ts';
import { openState } from '../src/cas/store/sql.ts';
import { openSqlite } from '../src/cas/store/sqlite.ts';
import { type NewVersion, sealVersion } from '../src/cas/versions.ts';
import { largeParts } from '../src/cas/written-version.ts';
import { namespaceOf } from '../src/policy/names.ts';
import { parseSession, sessionHash } from '../src/policy/session.ts';
import { Secret } from '../src/secrets/secret.ts';
import { executables, type Server, startServer } from '../test/support/stack.ts';

const CREATOR = { certificate: '0'.repeat(64) };
/** As the policy says, 32 characters of ASCII. */
const randomSecret = () => new Secret(Buffer.from(randomBytes(16).toString('hex')));
const ROWS_AT_ONCE = 20_000;

/**
 * Makes what a CAS keeps, with many sessions of one policy in it: each with secrets of its own, and sealed as if it
 * had been uploaded, but not written to disk one by one.
 */
export async function fillStore(directory: string, policy: string, names: Iterable<string>): Promise<void> {
  mkdirSync(directory, { mode: 0o700 });
  const path = join(directory, 'cas.db');
  const database = openSqlite(path);
  const means = { keyFile: join(directory, 'master.key'), directory, env: process.env };
  const unsealed = await unsealBySelf(openState(database), means);
  if (!('rootKey' in unsealed)) throw new Error('a new store opens by its key file');
  const keyring = createKeyring(openSeal((await readSeal(openState(database))) as Seal, unsealed.rootKey));
  await database.close();
  const { text, session } = parseSession(policy);
  const db = new DatabaseSync(path);
  db.exec('PRAGMA synchronous = OFF; PRAGMA cache_size = -200000; BEGIN');
  const insert = db.prepare(
    'INSERT INTO version (session, number, hash, sealed, upload, namespace) VALUES (?, 1, ?, ?, ?, ?)',
  );
  const created = Date.now();
  let rows = 0;
  for (const name of names) {
    const secrets = session.secrets.map((it) => [it.name, randomSecret()] as const);
    const named = { ...session, name };
    const version: NewVersion = {
      number: 1,
      hash: sessionHash(named, CREATOR),
      creator: CREATOR,
      isHashPublic: false,
      secrets: new Map(secrets),
    };
    const large = largeParts(named, text.replace(session.name, name));
    const by = { created, by: [CREATOR] };
    const { hash, sealed, upload } = await sealVersion({ keyring }, name, version, by, large);
    insert.run(name, hash, sealed, upload, namespaceOf(name) ?? null);
    if (++rows % ROWS_AT_ONCE === 0) db.exec('COMMIT; BEGIN');
  }
  db.exec('COMMIT; PRAGMA wal_checkpoint(TRUNCATE)');
  db.close();
}

/** Starts the built CAS on a folder, its log going to a file there. The first match is the port for launchers. */
export function startCas(directory: string, ...options: string[]): Promise<Server> {
  const { scone } = executables();
  const serve = [scone, 'cas', 'serve', '--dir', directory, '--host', '127.0.0.1'];
  const ports = ['--api-port', '0', '--enclave-port', '0'];
  const script = 'exec "$@" 2>"$0"';
  return startServer(
    '/bin/sh',
    ['-c', script, join(directory, 'log'), ...serve, ...ports, ...options],
    /launchers at port (\d+)/,
  );
}
