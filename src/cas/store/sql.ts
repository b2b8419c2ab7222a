import { timingSafeEqual } from 'node:crypto';
import { failure } from '../../errors.ts';
import { namespaceOf } from '../../policy/names.ts';
import type { Database, Row, Statements, Value } from './database.ts';
import { tables } from './migrations.ts';
import {
  type AttemptResult,
  type Comer,
  type Generation,
  MOST_CHIPS,
  MOST_TIMES,
  pauseAfter,
  type Spent,
  type State,
  type Store,
  type StoredVersion,
  type VersionHead,
} from './store.ts';

/** Sessions that are asked for in one statement. */
const NAMES_AT_ONCE = 256;
const FORGET_WRONG_CODES_AFTER = 24 * 3600 * 1000;
/** SQLite has no OFFSET without a LIMIT. */
const NO_LIMIT = 2 ** 31;

/** What can be read and written before anything can be decrypted. */
export function openState(database: Statements): State {
  const readState = async (name: string) =>
    bytes((await database.all('SELECT value FROM state WHERE name = $1', name))[0]?.value);
  return {
    readState,
    async createState(name, value) {
      await database.run(
        'INSERT INTO state (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING',
        name,
        value,
      );
      return (await readState(name)) as Buffer;
    },
    replaceState: async (name, value, before) =>
      (await database.run(
        'UPDATE state SET value = $2 WHERE name = $1 AND value = $3',
        name,
        value,
        before,
      )) === 1,
  };
}

/** Authenticates what stands in the clear: a code over bytes that belong to a place (keyring.ts). */
export type Authenticator = (content: Buffer, place: string) => Buffer;

/**
 * The store in a database, the same whichever its engine is. Rows that hold nothing sealed have a code over them, so that one
 * that somebody has written, moved or changed is noticed when it is read.
 */
export function openStore(database: Database, authenticate: Authenticator): Store {
  const codeOf = (table: Coded, row: Row) => codeOfRow(authenticate, table, row);
  /** @throws Failure STORE_DAMAGED */
  const checked = (table: Coded, row: Row | undefined): Row | undefined => {
    if (row && !isAuthentic(authenticate, table, row))
      throw failure('STORE_DAMAGED', {
        store: database.name,
        detail: `${nameOfRow(table, row)} was not written by this CAS, or was changed`,
      });
    return row;
  };
  const insert = (statements: Statements, table: Coded, row: Row, onConflict: string) => {
    const whole: Row = { ...row, code: codeOf(table, row) };
    const columns = Object.keys(whole);
    return statements.run(
      `INSERT INTO ${table} (${columns.join(', ')}) VALUES (${columns.map((_, at) => `$${at + 1}`).join(', ')})
       ON CONFLICT (${tables[table].key.join(', ')}) ${onConflict}`,
      ...Object.values(whole),
    );
  };
  const find = async (statements: Statements, table: Coded, where: string, ...values: Value[]) => {
    const columns = [...tables[table].key, ...tables[table].rest].join(', ');
    const [row] = await statements.all(`SELECT ${columns} FROM ${table} WHERE ${where}`, ...values);
    return checked(table, row);
  };

  /** @returns how often the launch came before; undefined where another one has spent it, or it may not come again */
  const spend = async (statements: Statements, spent: Spent, comer: Comer | undefined, now: number) => {
    const { table } = spent;
    const key: Row = spent.key;
    const row = { ...key, attempt: comer ? formatComing(comer, firstComing(comer, now)) : null };
    if ((await insert(statements, table, row, 'DO NOTHING')) === 1) return 0;
    const where = Object.keys(key).map((column, at) => `${column} = $${at + 1}`);
    const known = await find(statements, table, where.join(' AND '), ...Object.values(key));
    const coming = comer && lastComing(known?.attempt, comer, now);
    if (!coming || coming.times >= MOST_TIMES || now >= coming.until) return undefined;
    const next = formatComing(comer, { ...coming, times: coming.times + 1 });
    await insert(statements, table, { ...key, attempt: next }, SPENT_ANEW);
    return coming.times;
  };

  const VERSION = 'SELECT session, number, hash, sealed, upload FROM version';
  const issuedIn = async (statements: Statements, session: string, number: number, name: string) => {
    const [row] = await statements.all(
      'SELECT generation, sealed FROM issued WHERE session = $1 AND number = $2 AND name = $3',
      session,
      number,
      name,
    );
    return row && { generation: Number(row.generation), sealed: bytes(row.sealed) as Buffer };
  };
  const addVersionIn = async (
    statements: Statements,
    { session, number, hash, sealed, upload, creator = null }: StoredVersion,
    parent: Parameters<Store['addVersion']>[1],
  ) => {
    if (parent) {
      const [newest] = await statements.all(
        'SELECT max(number) AS number FROM version WHERE session = $1',
        parent.session,
      );
      if (Number(newest?.number ?? 0) !== parent.number) return 'parent changed';
    }
    if (session === '/' && number === 1 && (await statements.all('SELECT 1 FROM version LIMIT 1')).length > 0)
      return 'taken';
    const added = await statements.run(
      `INSERT INTO version (session, number, hash, sealed, upload, namespace, creator)
       VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
      ...[session, number, hash, sealed, upload, namespaceOf(session) ?? null, creator],
    );
    return added === 1 ? 'added' : 'taken';
  };

  return {
    ...openState(database),
    async newest(sessions) {
      const found = new Map<string, number>();
      for (let from = 0; from < sessions.length; from += NAMES_AT_ONCE) {
        const some = sessions.slice(from, from + NAMES_AT_ONCE);
        const places = some.map((_, at) => `$${at + 1}`).join(', ');
        const rows = await database.all(
          `SELECT session, max(number) AS number FROM version WHERE session IN (${places}) GROUP BY session`,
          ...some,
        );
        for (const { session, number } of rows) found.set(String(session), Number(number));
      }
      return found;
    },
    activeVersion: async (session) =>
      versionOf(
        (await database.all(`${VERSION} WHERE session = $1 ORDER BY number DESC LIMIT 1`, session))[0],
      ),
    versionByHash: async (session, hash) =>
      versionOf((await database.all(`${VERSION} WHERE session = $1 AND hash = $2`, session, hash))[0]),
    heads: async (session, before, limit) =>
      (
        await database.all(
          `SELECT session, number, hash, upload FROM version
           WHERE session = $1 AND number < $2 ORDER BY number DESC LIMIT $3`,
          session,
          before,
          limit,
        )
      ).map(headOf),
    sessionsIn: async (namespace, after, limit) =>
      (
        await database.all(
          'SELECT session FROM version WHERE namespace = $1 AND session > $2 AND number = 1 ORDER BY session LIMIT $3',
          namespace,
          after,
          limit,
        )
      ).map(({ session }) => String(session)),
    addVersion: (version, parent, statements) =>
      statements
        ? addVersionIn(statements, version, parent)
        : database.transaction((its) => addVersionIn(its, version, parent)),
    async sessionsOf(creator, statements = database) {
      const [row] = await statements.all(
        'SELECT count(*) AS sessions FROM version WHERE creator = $1 AND number = 1',
        creator,
      );
      return Number(row?.sessions);
    },
    issued: (session, number, name) => issuedIn(database, session, number, name),
    async keepIssued({ session, number, name, generation, sealed }) {
      await database.run(
        `INSERT INTO issued (session, number, name, generation, sealed) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (session, number, name)
         DO UPDATE SET generation = excluded.generation, sealed = excluded.sealed
         WHERE issued.generation < excluded.generation`,
        ...[session, number, name, generation, sealed],
      );
      return (await issuedIn(database, session, number, name)) as Generation;
    },

    async attempt(attempt) {
      const result = await database.transaction(async (statements): Promise<AttemptResult> => {
        const { account, source, right, once, now } = attempt;
        const wrong = await find(statements, 'wrong_code', 'account = $1 AND source = $2', account, source);
        const count = Number(wrong?.count ?? 0);
        const last = Number(wrong?.last ?? 0);
        const pause = pauseAfter(count) * 1000;
        const keep = (wrongs: number, at: number) =>
          insert(
            statements,
            'wrong_code',
            { account, source, count: wrongs, last: at },
            'DO UPDATE SET count = excluded.count, last = excluded.last, code = excluded.code',
          );
        // Where the clock was set back, the pause begins anew: it is neither lost nor longer.
        if (last > now) await keep(count, now);
        const waited = Math.max(0, now - last);
        if (waited < pause) return { outcome: 'throttled', seconds: Math.ceil((pause - waited) / 1000) };
        if (!right) {
          await keep(count + 1, now);
          return { outcome: 'invalid' };
        }
        let repetition = 0;
        if (once) {
          const spent: Spent = { table: 'one_time_password', key: once };
          const before = await spend(statements, spent, attempt.comer, now);
          if (before === undefined) return { outcome: 'used' };
          repetition = before;
        }
        if (wrong)
          await statements.run('DELETE FROM wrong_code WHERE account = $1 AND source = $2', account, source);
        return { outcome: 'accepted', ...(repetition > 0 && { repetition }) };
      });
      // Apart from that, as it touches the rows of others.
      if (result.outcome === 'invalid')
        await database.run('DELETE FROM wrong_code WHERE last < $1', attempt.now - FORGET_WRONG_CODES_AFTER);
      return result;
    },
    admitProcess: (session, process, now, comer) =>
      database.transaction((statements) =>
        spend(statements, { table: 'process', key: { session, process } }, comer, now),
      ),
    async complete({ table, key }) {
      await insert(database, table, { ...key, attempt: null }, SPENT_ANEW);
    },

    collateral: async () =>
      (
        await database.all('SELECT key, issued, until, kept, content, code FROM collateral ORDER BY key')
      ).flatMap((row) =>
        isAuthentic(authenticate, 'collateral', row)
          ? {
              key: String(row.key),
              issued: Number(row.issued),
              until: Number(row.until),
              kept: Number(row.kept),
              content: row.content as Buffer,
            }
          : [],
      ),
    keepCollateral: ({ key, issued, until, kept, content }) =>
      database.transaction(async (statements) => {
        const changes = await insert(
          statements,
          'collateral',
          { key, issued, until, kept, content },
          `DO UPDATE SET issued = excluded.issued, until = excluded.until, kept = excluded.kept,
             content = excluded.content, code = excluded.code
           WHERE collateral.issued <= excluded.issued`,
        );
        await statements.run(
          `DELETE FROM collateral WHERE key IN
             (SELECT key FROM collateral WHERE key LIKE '/vcek/%' OR key LIKE 'vlek/%'
              ORDER BY kept DESC LIMIT ${NO_LIMIT} OFFSET ${MOST_CHIPS})`,
        );
        return changes === 1;
      }),
    endorsementKey: async (name) =>
      bytes((await find(database, 'attestation_key', 'name = $1', name))?.endorsement_key),
    enrol: (key, name) =>
      database.transaction(async (statements) => {
        const row = { endorsement_key: key, name, reset_count: 0, restart_count: 0 };
        await insert(statements, 'attestation_key', row, 'DO NOTHING');
        const kept = await find(statements, 'attestation_key', 'endorsement_key = $1', key);
        return bytes(kept?.name)?.equals(name) ?? false;
      }),
    noteBoot: (name, resetCount, restartCount) =>
      database.transaction(async (statements) => {
        const known = await find(statements, 'attestation_key', 'name = $1', name);
        if (!known) return false;
        const resets = resetCount - Number(known.reset_count);
        const restarts = restartCount - Number(known.restart_count);
        if (resets < 0 || (resets === 0 && restarts < 0)) return false;
        if (resets === 0 && restarts === 0) return true;
        await insert(
          statements,
          'attestation_key',
          {
            endorsement_key: known.endorsement_key ?? null,
            name,
            reset_count: resetCount,
            restart_count: restartCount,
          },
          'DO UPDATE SET reset_count = excluded.reset_count, restart_count = excluded.restart_count, code = excluded.code',
        );
        return true;
      }),
  };
}

const SPENT_ANEW = 'DO UPDATE SET attempt = excluded.attempt, code = excluded.code';

/** Bytes of a launch's pseudonym, which is all that 0.1.0 keeps of one, and of the latest time. */
const LAUNCH = 32;
const TIME = 6;
const LAST_TIME = 2 ** (8 * TIME) - 1;

/** Until when a launch may come again, and how often it came. */
interface Coming {
  until: number;
  times: number;
}

const firstComing = ({ patience }: Comer, now: number): Coming => ({
  until: Math.min(now + patience, LAST_TIME),
  times: 1,
});

/** As it stands in the column `attempt`: a process of 0.1.0 takes it for another launch. */
function formatComing({ launch, source }: Comer, { until, times }: Coming): Buffer {
  const numbers = Buffer.alloc(TIME + 1);
  numbers.writeUIntBE(until, 0, TIME);
  numbers.writeUInt8(times, TIME);
  return Buffer.concat([launch, numbers, Buffer.from(source)]);
}

/** @returns undefined where it was another launch, or one that has its answer */
function lastComing(kept: Value | undefined, comer: Comer, now: number): Coming | undefined {
  if (!Buffer.isBuffer(kept) || !isSame(kept.subarray(0, LAUNCH), comer.launch)) return undefined;
  // Another replica of 0.1.0 has admitted it.
  if (kept.length === LAUNCH) return firstComing(comer, now);
  if (kept.toString('utf8', LAUNCH + TIME + 1) !== comer.source) return undefined;
  return { until: kept.readUIntBE(LAUNCH, TIME), times: kept.readUInt8(LAUNCH + TIME) };
}

/** Tables whose rows are in the clear. */
export const coded = ['one_time_password', 'wrong_code', 'process', 'attestation_key', 'collateral'] as const;
export type Coded = (typeof coded)[number];

/**
 * Gives codes to the rows of a store that has no seal yet, from before there were either: a row without a code is one that
 * somebody else has written, from then on. The audit log began with them.
 */
export const codeRowsOf =
  (database: Database) =>
  ({ authenticate }: { authenticate: Authenticator }): Promise<void> =>
    database.transaction(async (statements) => {
      if ((await statements.all('SELECT 1 FROM audit_log LIMIT 1')).length > 0) return;
      for (const table of coded) {
        const { key, rest } = tables[table];
        for (const row of await statements.all(
          `SELECT ${[...key, ...rest].join(', ')} FROM ${table} WHERE code IS NULL`,
        ))
          await statements.run(
            `UPDATE ${table} SET code = $1 WHERE ${key.map((column, at) => `${column} = $${at + 2}`).join(' AND ')}`,
            codeOfRow(authenticate, table, row),
            ...key.map((column) => row[column] ?? null),
          );
      }
    });

/** Whether the code of a row is right for what stands in it. */
export function isAuthentic(authenticate: Authenticator, table: Coded, row: Row): boolean {
  // A row is no secret, and its code is checked as often as somebody likes by whoever can write rows.
  return isSame(row.code, codeOfRow(authenticate, table, row));
}

/** The code over what a row holds: each value with its kind and length, in the order of the columns. */
export function codeOfRow(authenticate: Authenticator, table: Coded, row: Row): Buffer {
  const { key, rest } = tables[table];
  const parts: Buffer[] = [];
  for (const column of [...key, ...rest]) {
    if (column === 'code') continue;
    const value = row[column] ?? null;
    const content = Buffer.isBuffer(value) ? value : Buffer.from(value === null ? '' : String(value));
    const head = Buffer.alloc(5);
    head.writeUInt8(value === null ? 0 : Buffer.isBuffer(value) ? 1 : typeof value === 'number' ? 2 : 3);
    head.writeUInt32BE(content.length, 1);
    parts.push(head, content);
  }
  return authenticate(Buffer.concat(parts), `row/${table}`);
}

/** For people: the table and the values that name the row. */
export function nameOfRow(table: keyof typeof tables, row: Row): string {
  const shown = tables[table].key.map((column) => {
    const value = row[column];
    return Buffer.isBuffer(value) ? value.toString('hex').slice(0, 16) : String(value);
  });
  return `${table} ${shown.join(' ')}`;
}

function isSame(one: Value | undefined, other: Value | undefined): boolean {
  return (
    Buffer.isBuffer(one) &&
    Buffer.isBuffer(other) &&
    one.length === other.length &&
    timingSafeEqual(one, other)
  );
}

const headOf = (row: Row): VersionHead => ({
  session: String(row.session),
  number: Number(row.number),
  hash: bytes(row.hash) as Buffer,
  upload: bytes(row.upload) ?? null,
});

const versionOf = (row: Row | undefined): StoredVersion | undefined =>
  row && { ...headOf(row), sealed: bytes(row.sealed) as Buffer };

function bytes(value: Value | undefined): Buffer | undefined {
  return Buffer.isBuffer(value) ? value : undefined;
}
