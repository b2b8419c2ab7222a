import { join } from 'node:path';
import { before, describe } from 'node:test';
import { temporaryFolder } from './leave-nothing.ts';
import { missingPostgres, type Postgres, startPostgres } from './postgres.ts';

/** Where the databases of one engine come from. */
export interface Engine {
  name: 'SQLite' | 'PostgreSQL';
  /** The address of an empty database. */
  address(): Promise<string>;
}

/** Runs the same tests against each engine. */
export function onEachEngine(what: string, tests: (engine: Engine) => void): void {
  describe(`${what} on SQLite`, () => {
    let folder: string;
    let files = 0;
    before(() => {
      folder = temporaryFolder();
    });
    tests({ name: 'SQLite', address: async () => `sqlite:${join(folder, `${++files}.db`)}` });
  });
  describe(`${what} on PostgreSQL`, { skip: missingPostgres }, () => {
    let postgres: Postgres;
    before(async () => {
      postgres = await startPostgres();
    });
    tests({ name: 'PostgreSQL', address: () => postgres.database() });
  });
}
