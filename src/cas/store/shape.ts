import { DatabaseSync } from 'node:sqlite';
import { failure } from '../../errors.ts';
import { migrations, type Table, tables } from './migrations.ts';

/**
 * What a store's tables are: what migrations make, and nothing that answers or acts in their place. Whoever administers a
 * database could otherwise have a view, rule, trigger or policy hide a row from one statement alone, while every check of rows
 * finds nothing.
 */

/** Parts of tables, each by its name, with what it is. */
export type Shape = ReadonlyMap<string, string>;

/**
 * @throws Failure STORE_DAMAGED with the first part that is missing, another, or not of a migration
 */
export function requireShape(store: string, found: Shape, expected: Shape): void {
  const damaged = (detail: string) => failure('STORE_DAMAGED', { store, detail });
  for (const [name, what] of found)
    if (expected.get(name) !== what) {
      const was = expected.get(name);
      throw damaged(
        was ? `${name} is ${what}, and was made as ${was}` : `no migration has made ${name} (${what})`,
      );
    }
  for (const [name, what] of expected) if (!found.has(name)) throw damaged(`${name} is missing (${what})`);
}

/** Statements that have made everything in a SQLite database, other people's tables aside. */
export function sqliteShape(db: DatabaseSync): Shape {
  const shape = new Map<string, string>();
  for (const { type, name, tbl_name, sql } of db
    .prepare('SELECT type, name, tbl_name, sql FROM main.sqlite_schema')
    .all()) {
    const isTheirs = !Object.hasOwn(tables, String(tbl_name).toLowerCase());
    // Indexes of constraints have no statement of their own.
    if (sql === null || (isTheirs && (type === 'table' || type === 'index'))) continue;
    const key = `${type} ${String(name).toLowerCase()}`;
    shape.set(shape.has(key) ? `${key} twice` : key, String(sql).replaceAll(/\s+/g, ' '));
  }
  return shape;
}

/** A database that migrations alone have made. */
function withReference<Result>(work: (db: DatabaseSync) => Result): Result {
  const db = new DatabaseSync(':memory:');
  try {
    for (const { sqlite } of migrations) db.exec(sqlite);
    return work(db);
  } finally {
    db.close();
  }
}

let madeBySqlite: Shape | undefined;
export function expectedOfSqlite(): Shape {
  madeBySqlite ??= withReference(sqliteShape);
  return madeBySqlite;
}

const TYPES: Record<string, string> = { TEXT: 'text collate C', INTEGER: 'bigint', BLOB: 'bytea' };

/** Columns and indexes as PostgreSQL has them: the same as in SQLite, by other names of types. */
export function expectedOfPostgres(): Shape {
  madeByPostgres ??= withReference((db) => {
    const shape = new Map<string, string>();
    for (const table of Object.keys(tables) as Table[]) {
      shape.set(table, 'table');
      const columns = db
        .prepare('SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_xinfo(?)')
        .all(table);
      for (const { name, type, notnull, dflt_value, pk } of columns) {
        const needed = notnull === 1 || Number(pk) > 0 ? ' not null' : '';
        const value = dflt_value === null ? '' : ` default ${dflt_value}`;
        shape.set(`${table}.${name}`, `${TYPES[String(type)]}${needed}${value}`);
      }
      shape.set(`${table} unique (${tables[table].key.join(', ')})`, 'index');
      for (const { name, unique, origin } of db
        .prepare('SELECT name, "unique", origin FROM pragma_index_list(?)')
        .all(table)) {
        const parts = db.prepare('SELECT name FROM pragma_index_info(?)').all(String(name));
        const listed = `(${parts.map((part) => part.name).join(', ')})`;
        const [made] = db.prepare('SELECT sql FROM sqlite_schema WHERE name = ?').all(String(name));
        const [, where] = / WHERE (.*)$/.exec(String(made?.sql)) ?? [];
        if (origin !== 'pk')
          shape.set(
            `${table} ${unique ? 'unique ' : ''}${listed}${where ? ` where (${where})` : ''}`,
            'index',
          );
      }
    }
    return shape;
  });
  return madeByPostgres;
}
let madeByPostgres: Shape | undefined;

const OURS = "'text'::regtype, 'bytea'::regtype, 'bigint'::regtype, 'integer'::regtype";

/**
 * Rows of `name` and `what`, which make the shape of a schema of PostgreSQL ($1), for the tables with these names
 * (PostgreSQL, chapter 53). A part that no migration makes has a name that says so.
 */
export const POSTGRES_SHAPE = `
WITH its AS (
  SELECT c.* FROM pg_class c WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)
    AND c.relname IN (${Object.keys(tables)
      .map((table) => `'${table}'`)
      .join(', ')})
)
SELECT relname::text AS name,
  CASE WHEN relkind <> 'r' OR relispartition THEN 'no table'
       WHEN relpersistence <> 'p' THEN 'a table that a crash empties'
       WHEN relrowsecurity OR relforcerowsecurity THEN 'a table with row security'
       WHEN (SELECT amname FROM pg_am WHERE pg_am.oid = relam) <> 'heap' THEN 'a table of another access method'
       ELSE 'table' END AS what
FROM its
UNION ALL
SELECT relname || '.' || attname,
  format_type(atttypid, atttypmod)
    || COALESCE((SELECT ' collate ' || collname FROM pg_collation WHERE pg_collation.oid = attcollation), '')
    || CASE WHEN attnotnull THEN ' not null' ELSE '' END
    || COALESCE((SELECT ' default ' || pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = its.oid AND adnum = attnum), '')
    || attidentity::text || attgenerated::text
FROM its JOIN pg_attribute ON attrelid = its.oid WHERE attnum > 0 AND NOT attisdropped
UNION ALL
SELECT relname || CASE WHEN indisunique THEN ' unique' ELSE '' END || ' ('
    || (SELECT string_agg(COALESCE(attname::text, 'an expression'), ', ' ORDER BY place)
        FROM unnest(indkey::smallint[]) WITH ORDINALITY AS part(number, place)
        LEFT JOIN pg_attribute ON attrelid = indrelid AND attnum = number AND number > 0)
    || ')' || COALESCE(' where ' || pg_get_expr(indpred, indrelid), ''),
  CASE WHEN indisvalid AND indisready AND indislive
    AND (SELECT amname FROM pg_class i JOIN pg_am ON pg_am.oid = i.relam WHERE i.oid = indexrelid) = 'btree'
    AND (SELECT bool_and(opcdefault AND opcnamespace = 'pg_catalog'::regnamespace)
         FROM unnest(indclass::oid[]) AS part(class) JOIN pg_opclass ON pg_opclass.oid = class)
    THEN 'index' ELSE 'an index that does not find all' END
FROM its JOIN pg_index ON indrelid = its.oid
UNION ALL
SELECT 'trigger ' || tgname, 'on ' || relname FROM its JOIN pg_trigger ON tgrelid = its.oid
UNION ALL
SELECT 'rule ' || rulename, 'on ' || relname FROM its JOIN pg_rewrite ON ev_class = its.oid WHERE relkind = 'r'
UNION ALL
SELECT 'policy ' || polname, 'on ' || relname FROM its JOIN pg_policy ON polrelid = its.oid
UNION ALL
SELECT 'constraint ' || conname, 'on ' || relname FROM its JOIN pg_constraint ON conrelid = its.oid
WHERE contype NOT IN ('p', 'u', 'n')
UNION ALL
SELECT 'inheritance', 'of ' || relname FROM its JOIN pg_inherits ON its.oid IN (inhrelid, inhparent)
UNION ALL
SELECT 'function ' || proname, 'in ' || $1::text FROM pg_proc
WHERE pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND proname IN ('count', 'max', 'octet_length')
UNION ALL
SELECT 'operator ' || oprname, 'in ' || $1::text FROM pg_operator
WHERE oprnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)
  AND oprname IN ('=', '<>', '<', '>', '<=', '>=', '~~') AND (oprleft IN (${OURS}) OR oprright IN (${OURS}))`;
