import { createHash } from 'node:crypto';
import pg from 'pg';
import { parseIntoClientConfig } from 'pg-connection-string';
import pgpass from 'pgpass';
import { failure, reason } from '../../errors.ts';
import { Conflict, type Database, type Row, type Statements, type Value } from './database.ts';
import { migrations, requireTable, tablesEver } from './migrations.ts';
import { expectedOfPostgres, POSTGRES_SHAPE, requireShape, type Shape } from './shape.ts';

const CONNECTIONS = 8;
/** Milliseconds. */
const CONNECT = 5_000;
const STATEMENT = 15_000;
const IDLE = 60_000;
/** How often a transaction is tried where others are in the way. */
const TRIES = 20;

/** `bigint` as a number: no counter or time here is above 2^53. */
const types: pg.CustomTypesConfig = {
  getTypeParser: (oid, format) =>
    oid === pg.types.builtins.INT8 ? Number : pg.types.getTypeParser(oid, format),
};

/**
 * Connects to a PostgreSQL database, and makes its tables where it has none.
 * @param url postgres://USER@HOST/DATABASE; a password comes from the file that PGPASSFILE names (libpq, §34.16)
 * @throws Failure STORE_UNAVAILABLE or STATE_UNUSABLE
 */
export async function openPostgres(url: string): Promise<Database> {
  const name = nameOf(url);
  let schema: string | undefined;
  const pool = new pg.Pool({
    onConnect: async (client) => {
      schema ??= await schemaOf(client);
      await useSchema(client, schema);
    },
    ...connectionOf(url),
    types,
    max: CONNECTIONS,
    connectionTimeoutMillis: CONNECT,
    idleTimeoutMillis: IDLE,
    statement_timeout: STATEMENT,
    query_timeout: STATEMENT + 1_000,
    keepAlive: true,
    application_name: 'envcas',
  });
  // A connection that breaks while nobody uses it; whoever asks next gets another.
  pool.on('error', () => {});

  const query = async (client: pg.Pool | pg.PoolClient, sql: string, values: Value[]) => {
    try {
      return await client.query<Row>({ ...compiledOnce(sql), text: sql, values });
    } catch (error) {
      throw toFailure(name, error);
    }
  };
  const statementsOf = (client: pg.Pool | pg.PoolClient): Statements => ({
    all: async (sql, ...values) => (await query(client, sql, values)).rows,
    run: async (sql, ...values) => (await query(client, sql, values)).rowCount ?? 0,
  });
  const connect = () =>
    pool.connect().catch((error: unknown) => {
      throw toFailure(name, error);
    });

  const transactionOnce = async <Result>(
    mode: 'SERIALIZABLE' | 'REPEATABLE READ READ ONLY',
    work: (statements: Statements) => Promise<Result>,
  ) => {
    const client = await connect();
    // A connection in an unknown state is not used again.
    let broken: Error | undefined;
    const end = (sql: string) => query(client, sql, []);
    try {
      await end(`BEGIN ISOLATION LEVEL ${mode}`);
      try {
        const result = await work(statementsOf(client));
        await end('COMMIT');
        return result;
      } catch (error) {
        await end('ROLLBACK').catch((lost: Error) => {
          broken = lost;
        });
        throw error;
      }
    } finally {
      client.release(broken);
    }
  };

  const shared = statementsOf(pool);
  const database: Database = {
    engine: 'postgres',
    name,
    async all(sql, ...values) {
      try {
        return await shared.all(sql, ...values);
      } catch (error) {
        // One that only reads is as good on another connection, where the one it got had been cut.
        if (!isCut(error) || !sql.startsWith('SELECT')) throw error;
        return shared.all(sql, ...values);
      }
    },
    run: shared.run,
    async transaction(work) {
      for (let attempt = 1; ; attempt++)
        try {
          return await transactionOnce('SERIALIZABLE', work);
        } catch (error) {
          if (!isInTheWay(error) || attempt >= TRIES) throw error;
          await new Promise((resolve) => setTimeout(resolve, Math.random() * 2 ** Math.min(attempt, 7)));
        }
    },
    snapshot: (work) =>
      transactionOnce('REPEATABLE READ READ ONLY', async (statements) => {
        await requireTables(statements, name);
        return work(statements);
      }),
    close: () => pool.end(),
  };
  try {
    await migrate(database);
  } catch (error) {
    await database.close();
    throw error;
  }
  return database;
}

/**
 * The schema of the tables: of those that the server would look into, the first that has them, or the first. Until it is known,
 * nothing is called by a name that another schema could have too.
 */
async function schemaOf(client: pg.ClientBase): Promise<string> {
  const shown = await client.query<{ schemas: string[] }>(
    'SELECT pg_catalog.current_schemas(false)::pg_catalog.text[] AS schemas',
  );
  const schemas = (shown.rows[0]?.schemas ?? []).filter((each) => !/^pg_(catalog|temp)/.test(each));
  await client.query("SELECT pg_catalog.set_config('search_path', 'pg_catalog', false)");
  const { rows } = await client.query<{ nspname: string }>(
    `SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE relname = 'migration'`,
  );
  const found = new Set(rows.map(({ nspname }) => nspname));
  return schemas.find((each) => found.has(each)) ?? schemas[0] ?? 'public';
}

/** Has names mean what they mean in PostgreSQL itself, or in a schema; temporary tables hide none (PostgreSQL, §20.11). */
const useSchema = (client: pg.ClientBase, schema: string) =>
  client.query(
    "SELECT pg_catalog.set_config('search_path', pg_catalog.quote_ident($1) || ', pg_temp', false)",
    [schema],
  );

/** Of two processes that do this at once, one makes the tables, and the other finds them made when it tries again. */
async function migrate(database: Database, isAgain = false): Promise<void> {
  try {
    await database.transaction((statements) => migrateIn(statements, database.name));
  } catch (error) {
    const wasSlower = error instanceof Conflict || sqlState(error) === DUPLICATE_TABLE;
    if (isAgain || !wasSlower) throw error;
    await migrate(database, true);
  }
}

/** What the catalog says of tables (PostgreSQL, §53.11 and §53.22); rows of others come with those of a parent. */
const KINDS = `SELECT relname AS name,
  CASE WHEN EXISTS (SELECT 1 FROM pg_inherits WHERE inhparent = pg_class.oid) THEN 'parent of tables'
       WHEN relkind = 'r' THEN 'table' WHEN relkind IN ('v', 'm') THEN 'view'
       WHEN relkind = 'f' THEN 'foreign table' ELSE 'something else' END AS kind
  FROM pg_class WHERE oid IN (${tablesEver.map((table) => `to_regclass('${table}')`).join(', ')})`;

async function migrateIn(statements: Statements, store: string): Promise<void> {
  for (const { name, kind } of await statements.all(KINDS)) requireTable(store, name, kind);
  await statements.run('CREATE TABLE IF NOT EXISTS migration (number BIGINT PRIMARY KEY)');
  const [row] = await statements.all('SELECT max(number) AS number FROM migration');
  const version = Number(row?.number ?? 0);
  if (version > migrations.length)
    throw failure('STATE_UNUSABLE', {
      path: 'the database',
      detail: 'it was written by a newer version of this program',
    });
  for (const [index, { postgres }] of migrations.entries()) {
    if (index < version) continue;
    for (const statement of postgres.split(';')) if (statement.trim()) await statements.run(statement);
    await statements.run('INSERT INTO migration (number) VALUES ($1)', index + 1);
  }
  await requireTables(statements, store);
}

/** Within a transaction. @throws Failure STORE_DAMAGED */
async function requireTables(statements: Statements, store: string): Promise<void> {
  const [its] = await statements.all(
    "SELECT current_schema()::text AS schema, current_setting('search_path') AS path",
  );
  const search = (path: string) => statements.run("SELECT set_config('search_path', $1, true)", path);
  // Whatever this is compared with has one meaning then.
  await search('pg_catalog');
  const found = await statements.all(POSTGRES_SHAPE, its?.schema ?? null);
  await search(String(its?.path));
  requireShape(store, shapeOf(found), expectedOfPostgres());
}

const shapeOf = (rows: readonly Row[]): Shape =>
  new Map(rows.map(({ name, what }) => [String(name), String(what)]));

/**
 * What is said in the URL, and where it says nothing, what is safe: to another host TLS, with its certificate checked.
 * @throws Failure USAGE where a password is in it, which other users could see among the arguments
 */
function connectionOf(url: string): pg.PoolConfig {
  const parsed = new URL(url);
  if (parsed.password)
    throw failure('USAGE', {
      detail: 'a password does not belong into the address of the store; PGPASSFILE names a file with it',
    });
  const host = hostOf(parsed);
  const isHere = host.startsWith('/') || /^(localhost|127\.0\.0\.1|\[::1\]|)$/.test(host);
  const byDefault = (name: string, value: string | undefined) => {
    if (value && !parsed.searchParams.has(name)) parsed.searchParams.set(name, value);
  };
  if (host !== parsed.hostname) byDefault('host', host);
  if (!isHere) byDefault('sslmode', 'verify-full');
  // As libpq has it (§34.15), and `pg` does not.
  if (parsed.searchParams.has('sslmode')) byDefault('sslrootcert', process.env.PGSSLROOTCERT);
  const config = parseIntoClientConfig(parsed.toString());
  // As libpq has it (§34.15), a variable before a file.
  return process.env.PGPASSWORD ? config : { ...config, password: passwordInFile };
}

/** Where the URL names none, a variable does (libpq §34.15). */
const hostOf = ({ hostname, searchParams }: URL): string =>
  searchParams.get('host') || hostname || process.env.PGHOST || '';

/** The password in the file that PGPASSFILE names. `pg` tells whom it connects to, though its types do not say so. */
async function passwordInFile(...[connection]: unknown[]): Promise<string> {
  return new Promise((resolve) =>
    pgpass(connection as Parameters<typeof pgpass>[0], (password) => resolve(password ?? '')),
  );
}

/** For people: host and database. */
function nameOf(url: string): string {
  const parsed = new URL(url);
  const { port, pathname } = parsed;
  return `postgres://${hostOf(parsed)}${port && `:${port}`}${pathname}`;
}

/** Its name makes a statement be compiled once on each connection; those that write many rows come in many forms. */
function compiledOnce(sql: string): { name?: string } {
  if (sql.length > LONGEST_COMPILED) return {};
  const known = names.get(sql);
  if (known) return { name: known };
  const name = createHash('sha256').update(sql).digest('base64url').slice(0, 16);
  names.set(sql, name);
  return { name };
}
const names = new Map<string, string>();
const LONGEST_COMPILED = 1000;

/** serialization_failure and deadlock_detected (PostgreSQL, Appendix A). */
const IN_THE_WAY = ['40001', '40P01'];
const UNIQUE = '23505';
const DUPLICATE_TABLE = '42P07';
const DAMAGED = ['XX001', 'XX002'];

function toFailure(name: string, error: unknown): unknown {
  const code = sqlState(error);
  if (code === UNIQUE) return new Conflict(reason(error));
  return failure(
    code !== undefined && DAMAGED.includes(code) ? 'STORE_DAMAGED' : 'STORE_UNAVAILABLE',
    { store: name, detail: reason(error) },
    error,
  );
}

/** The SQLSTATE of an error, or of what caused it; undefined where the server did not say anything. */
function sqlState(error: unknown): string | undefined {
  const { code } = error as { code?: unknown };
  if (typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code)) return code;
  return error instanceof Error && error.cause !== undefined ? sqlState(error.cause) : undefined;
}

const isInTheWay = (error: unknown) => IN_THE_WAY.includes(sqlState(error) ?? '');

/** Class 57: the server is being shut down, or was started a moment ago. */
const isCut = (error: unknown) => !(error instanceof Conflict) && /^$|^57/.test(sqlState(error) ?? '');
