import { execFileSync } from 'node:child_process';
import { chownSync, globSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { temporaryFolder } from './leave-nothing.ts';
import { missing, nameless, ownName, type Server, startServer } from './stack.ts';

/** Debian has the programs of each version in a folder of its own. */
export const programs = globSync('/usr/lib/postgresql/*/bin').sort().at(-1) ?? '/usr/lib/postgresql';

/** The user of a server, which does not run as root. */
export const dba = process.getuid?.() === 0 ? 'postgres' : ownName;

/** For the `skip` of a test that needs a PostgreSQL server. */
export const missingPostgres = missing(join(programs, 'postgres'), join(programs, 'initdb')) || nameless;

/** A PostgreSQL server of the test's own, which only this host reaches. */
export interface Postgres {
  /** Folder of its Unix socket. */
  folder: string;
  /** The superuser. */
  user: string;
  server: Server;
  /** Makes an empty database and gives its address, as `--store` takes it. */
  database(): Promise<string>;
  /** Where it was, after its server has ended. */
  start(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * @param settings of the server, such as `fsync=off`, which is right where nothing is killed
 * @param port names its socket, and is the one that it listens on where the settings say so
 */
export async function startPostgres(
  settings: readonly string[] = ['fsync=off'],
  port = 5432,
): Promise<Postgres> {
  const user = dba;
  const idOf = (option: string) => Number(execFileSync('id', [option, user], { encoding: 'utf8' }));
  const [uid, gid] = [idOf('-u'), idOf('-g')];
  const folder = temporaryFolder();
  const data = join(folder, 'data');
  chownSync(folder, uid, gid);
  const options = { uid, gid, cwd: folder, env: { PATH: process.env.PATH ?? '', LC_ALL: 'C' } };
  execFileSync(join(programs, 'initdb'), ['-D', data, '-U', user, '--auth=trust', '--no-sync'], {
    ...options,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const all = ['listen_addresses=', `port=${port}`, 'max_connections=200', ...settings];
  const start = () =>
    startServer(
      join(programs, 'postgres'),
      ['-D', data, '-k', folder, ...all.flatMap((setting) => ['-c', setting])],
      /ready to accept connections/,
      options,
    );
  let databases = 0;
  const postgres: Postgres = {
    folder,
    user,
    server: await start(),
    async database() {
      const name = `cas${++databases}`;
      const client = new pg.Client({ host: folder, port, user, database: 'postgres' });
      await client.connect();
      await client.query(`CREATE DATABASE ${name}`);
      await client.end();
      return `postgres://${user}@localhost/${name}?host=${encodeURIComponent(folder)}`;
    },
    async start() {
      postgres.server = await start();
    },
    async stop() {
      await postgres.server.stop('SIGINT');
    },
  };
  return postgres;
}
