import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { watchTables } from '../../src/cas/observe/tables.ts';
import type { Database } from '../../src/cas/store/database.ts';
import { eachRow, isEmpty } from '../../src/cas/store/dump.ts';
import { moveStore } from '../../src/cas/store/move.ts';
import { openDatabase } from '../../src/cas/store/open.ts';
import { type Engine, onEachEngine } from '../support/engines.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { missingPostgres, startPostgres } from '../support/postgres.ts';
import { executables, run } from '../support/stack.ts';
import { until } from '../support/until.ts';

/** What who administers a database puts in the place of tables. */

/** A view that has rows without an end, where the audit log was. */
const endless = {
  SQLite: `CREATE VIEW audit_log AS
    WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number)
    SELECT n AS sequence, x'00' AS line, NULL AS tree, 0 AS news FROM number`,
  PostgreSQL: `CREATE VIEW audit_log AS SELECT n AS sequence, '\\x00'::bytea AS line, NULL::bytea AS tree, 0::bigint AS news
    FROM generate_series(1::bigint, 1000000000000) AS n`,
};

async function withEndlessView({ name, address }: Engine): Promise<string> {
  const at = await address();
  const database = await openDatabase(at);
  await database.run('INSERT INTO state (name, value) VALUES ($1, $2)', 'identity', Buffer.of(1));
  await database.run('DROP TABLE audit_log');
  await database.run(endless[name]);
  await database.close();
  return at;
}

async function isUntouched(address: string): Promise<boolean> {
  const database = await openDatabase(address);
  const empty = await isEmpty(database);
  await database.close();
  return empty;
}

onEachEngine('a view without an end in the place of a table', (engine) => {
  const scone = (folder: string, ...args: string[]) =>
    run('timeout', ['120', executables().scone, ...args], { PATH: process.env.PATH, HOME: folder });

  test('is not moved: that is told at once, and where it was to go stays empty', async () => {
    const folder = temporaryFolder();
    const from = await withEndlessView(engine);
    for (const to of [await engine.address(), `sqlite:${join(folder, 'to.db')}`]) {
      const { status, stderr } = scone(folder, 'cas', 'migrate', '--from', from, '--to', to);
      assert.equal(status, 74, stderr);
      assert.match(stderr, /audit_log is no table, but: view\n[\s\S]*Code: STORE_DAMAGED/);
      assert.ok(to.startsWith('postgres') || !existsSync(to.slice(7)) || (await isUntouched(to)));
    }
  });

  test('is not looked at, nor opened by a CAS', async () => {
    const folder = temporaryFolder();
    const store = await withEndlessView(engine);
    for (const args of [
      ['check-store', '--dir', folder],
      ['rekey', '--dir', folder, '--shares', '2/3'],
      ['serve', '--dir', folder, '--api-port', '0', '--enclave-port', '0', '--workers', '1'],
    ]) {
      const { status, stderr } = scone(folder, 'cas', ...args, '--store', store);
      assert.equal(status, 74, stderr);
      assert.match(stderr, /audit_log is no table/);
    }
  });

  test('takes nothing that is moved, or restored, into it', async () => {
    const folder = temporaryFolder();
    const store = await withEndlessView(engine);
    const from = join(folder, 'from.db');
    await (await openDatabase(`sqlite:${from}`)).close();
    for (const args of [
      ['migrate', '--from', `sqlite:${from}`, '--to', store],
      ['restore', '--dir', folder, '--store', store, from],
    ])
      assert.match(scone(folder, 'cas', ...args).stderr, /audit_log is no table/);
  });

  test('leaves a store that could not be marked as moved the only one', async () => {
    const from = await openDatabase(await engine.address());
    const to = await openDatabase(await engine.address());
    await from.run('INSERT INTO state (name, value) VALUES ($1, $2)', 'identity', Buffer.of(1));
    const unmarkable: Database = {
      ...from,
      run: async () => {
        throw new Error('the disk is full');
      },
    };
    await assert.rejects(moveStore(unmarkable, to), /the disk is full/);
    assert.equal(await isEmpty(to), true);
    assert.equal(await moveStore(from, to), 1);
    await from.close();
    await to.close();
  });
});

test('a virtual table is none either, and a pipe is no store', async () => {
  const folder = temporaryFolder();
  const at = `sqlite:${join(folder, 'cas.db')}`;
  const database = await openDatabase(at);
  await database.run('DROP TABLE collateral');
  await database.run('CREATE VIRTUAL TABLE collateral USING fts5(key, issued, until, kept, content, code)');
  await database.close();
  await assert.rejects(openDatabase(at), {
    code: 'STORE_DAMAGED',
    message: /collateral is no table, but: virtual/,
  });
  const pipe = join(folder, 'pipe');
  assert.equal(spawnSync('mkfifo', ['-m', '600', pipe]).status, 0);
  const { status, stderr } = run(
    'timeout',
    ['120', executables().scone, 'cas', 'migrate', '--from', `sqlite:${pipe}`, '--to', 'sqlite:/dev/null/x'],
    { PATH: process.env.PATH, HOME: folder },
  );
  assert.equal(status, 74, stderr);
  assert.match(stderr, /it is not a regular file/);
});

/** What answers or acts in the place of a table, and is seen by no check of rows. */
const deeds = {
  SQLite: {
    'a trigger that forgets what was spent': [
      'CREATE TRIGGER forget AFTER INSERT ON process BEGIN DELETE FROM process; END',
    ],
    'a trigger that ignores what is written': [
      'CREATE TRIGGER ignore BEFORE INSERT ON audit_log BEGIN SELECT RAISE(IGNORE); END',
    ],
    'a view of a table under its name': [
      'ALTER TABLE version RENAME TO kept',
      'CREATE VIEW version AS SELECT * FROM kept WHERE number = 1',
    ],
    'a table that compares otherwise': [
      'DROP TABLE wrong_code',
      `CREATE TABLE wrong_code (account TEXT NOT NULL, source TEXT COLLATE NOCASE NOT NULL, count INTEGER NOT NULL,
       last INTEGER NOT NULL, code BLOB, PRIMARY KEY (account, source)) STRICT, WITHOUT ROWID`,
    ],
    'a column more': ['ALTER TABLE issued ADD COLUMN more INTEGER GENERATED ALWAYS AS (generation + 1)'],
    'an index of an expression': ['CREATE INDEX more ON version (lower(session))'],
    'no index': ['DROP INDEX session_of_creator'],
  },
  PostgreSQL: {
    'a view that hides a row from one query': [
      'ALTER TABLE version RENAME TO kept',
      "CREATE VIEW version AS SELECT * FROM kept WHERE current_query() NOT LIKE '%DESC LIMIT 1%' OR number = 1",
    ],
    'a rule that ignores what is written': ['CREATE RULE ignore AS ON INSERT TO process DO INSTEAD NOTHING'],
    'a trigger that empties a table': [
      'CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM process; RETURN NULL; END $$',
      'CREATE TRIGGER forget AFTER INSERT ON process FOR EACH STATEMENT EXECUTE FUNCTION forget()',
    ],
    'a policy that hides rows': [
      'ALTER TABLE state ENABLE ROW LEVEL SECURITY',
      "CREATE POLICY hide ON state USING (name <> 'owner')",
    ],
    'row security without a policy': ['ALTER TABLE version FORCE ROW LEVEL SECURITY'],
    'a policy alone': ["CREATE POLICY hide ON state USING (name <> 'owner')"],
    'a table that a crash empties': ['ALTER TABLE one_time_password SET UNLOGGED'],
    'a table whose rows others join': ['CREATE TABLE more () INHERITS (attestation_key)'],
    'another type of a column': ['ALTER TABLE wrong_code ALTER COLUMN count TYPE smallint'],
    'another order of texts': ['ALTER TABLE version ALTER COLUMN namespace TYPE text COLLATE "default"'],
    'a default that nobody has made': ['ALTER TABLE process ALTER COLUMN code SET DEFAULT $$x$$'],
    'a check that refuses what was spent': ['ALTER TABLE process ADD CHECK (session = $$$$) NOT VALID'],
    'no constraint': ['ALTER TABLE process DROP CONSTRAINT process_pkey'],
    'an index of an expression': ['CREATE INDEX more ON version (lower(session))'],
    'a function of a name that statements call': [
      'CREATE FUNCTION max(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT NULL::bytea $$',
    ],
    'an operator for texts': [
      'CREATE FUNCTION never(text, bytea) RETURNS boolean LANGUAGE sql AS $$ SELECT false $$',
      'CREATE OPERATOR = (LEFTARG = text, RIGHTARG = bytea, FUNCTION = never)',
    ],
  },
};

onEachEngine('the tables of a store', (engine) => {
  for (const [what, statements] of Object.entries(deeds[engine.name]))
    test(`are those of migrations alone: ${what} is refused, also under a process that runs`, async () => {
      const at = await engine.address();
      const database = await openDatabase(at);
      const told: string[] = [];
      const log = {
        info() {},
        warn() {},
        error: (_fields: object, message: string) => void told.push(message),
      };
      await database.snapshot(async () => {});
      const watch = watchTables(database, log, 10);
      try {
        for (const statement of statements) await database.run(statement);
        await until(() => told.length > 0, 'told in the log');
        assert.match(told[0] ?? '', /the tables of the store are not those/);
      } finally {
        watch.stop();
      }
      const read = () => assert.fail('a row was read');
      await assert.rejects(
        database.snapshot(async (its) => eachRow(its, read)),
        { code: 'STORE_DAMAGED' },
      );
      await assert.rejects(moveStore(database, await openDatabase('sqlite::memory:')), {
        code: 'STORE_DAMAGED',
      });
      await database.close();
      await assert.rejects(openDatabase(at), { code: 'STORE_DAMAGED' });
    });

  test('may have tables of others beside them', async () => {
    const at = await engine.address();
    const database = await openDatabase(at);
    await database.run('CREATE TABLE theirs (name TEXT PRIMARY KEY)');
    await database.run('CREATE INDEX their_index ON theirs (name)');
    await database.close();
    await (await openDatabase(at)).close();
  });
});

test('names mean the same on every connection, whatever comes before them in the search path', {
  skip: missingPostgres,
}, async () => {
  const postgres = await startPostgres();
  const at = await postgres.database();
  const theirs = `"${postgres.user}"`;
  const database = await openDatabase(at);
  const put = (name: string) =>
    database.run('INSERT INTO state (name, value) VALUES ($1, $2)', name, Buffer.from(name));
  for (const name of ['owner', 'other']) await put(name);
  await database.run(`CREATE SCHEMA ${theirs}`);
  await database.run(`CREATE VIEW ${theirs}.state AS SELECT * FROM state WHERE name <> 'owner'`);
  await database.run(
    `CREATE FUNCTION ${theirs}.never(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT false $$`,
  );
  await database.run(
    `CREATE OPERATOR ${theirs}.= (LEFTARG = text, RIGHTARG = text, FUNCTION = ${theirs}.never)`,
  );
  await database.run(`ALTER ROLE ${theirs} SET search_path = ${theirs}, public, pg_catalog`);
  await database.close();
  const opened = await openDatabase(at);
  const read = () => opened.all("SELECT name FROM state WHERE name = 'owner'");
  // More connections than one.
  const all = await Promise.all(Array.from({ length: 20 }, read));
  assert.deepEqual([...new Set(all.map((rows) => rows.length))], [1]);
  await opened.close();
  await postgres.stop();
});

test('tables stay where they are when the search path of their user changes', {
  skip: missingPostgres,
}, async () => {
  const postgres = await startPostgres();
  const at = await postgres.database();
  const name = new URL(at).pathname.slice(1);
  const during = async (path: string, work: (database: Database) => Promise<unknown>) => {
    const database = await openDatabase(at);
    await work(database);
    await database.run(`ALTER DATABASE ${name} SET search_path = ${path}`);
    await database.close();
  };
  const put = (database: Database) =>
    database.run("INSERT INTO state (name, value) VALUES ('identity', $1)", Buffer.of(1));
  const find = async (database: Database) =>
    assert.equal((await database.all("SELECT name FROM state WHERE name = 'identity'")).length, 1);
  await during('"a schema", public', (database) => database.run('DROP TABLE IF EXISTS none'));
  const other = await openDatabase(at);
  await other.run('CREATE SCHEMA "a schema"');
  await other.close();
  // The tables that the first one made are in `public`.
  await during('public, "a schema"', put);
  await during('"a schema"', find);
  await during('"a schema", public', async (database) => assert.equal(await isEmpty(database), true));
  await postgres.stop();
});
