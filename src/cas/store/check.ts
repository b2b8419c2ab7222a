import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { beginning, type Position, type SignedEntry, verifyEntry } from '../../audit/entry.ts';
import { append, emptyFrontier, type Frontier, leafHash } from '../../audit/merkle-tree.ts';
import { causes, failure } from '../../errors.ts';
import { namespaceOf } from '../../policy/names.ts';
import { BLOCK, formatTree, isNews, RESTORED } from '../audit-log.ts';
import type { Keyring } from '../keyring.ts';
import { sealedColumns } from '../seal/sealed-rows.ts';
import { countedCreator, openUpload } from '../versions.ts';
import type { Database, Row } from './database.ts';
import { eachRow } from './dump.ts';
import type { Table } from './migrations.ts';
import { type Coded, coded, isAuthentic, nameOfRow } from './sql.ts';
import type { VersionHead } from './store.ts';

/**
 * Looks at everything in a store: whether each row is what this CAS has written there, whether the versions of a session are
 * all there, and whether the audit log is whole, and tells of nothing that is missing.
 */
export interface RowChecker {
  /** Rows come table after table, in the order of their keys. @returns what is wrong with it */
  check(table: Table, row: Row): string[];
  /** @returns what is missing, once all rows have come */
  end(): string[];
}

export function rowChecker(keyring: Keyring): RowChecker {
  let auditKey: KeyObject | undefined;
  let position: Position = beginning;
  let frontier: Frontier = emptyFrontier;
  let isChained = true;
  let session = '';
  let number = 0;
  /** Of the sessions that the audit log tells of, the number of the newest version. */
  const newest = new Map<string, number>();
  const known = new Map<string, number>();
  /** The last entry about a restore, and the one that clients are told of. */
  let restored: number | undefined;
  let toldOf: string | undefined;
  /** Names of the rows of `state`. */
  const names = new Set<string>();
  let isProvisioned = false;

  const checkState = ({ name, value }: Row) => {
    names.add(String(name));
    if (name === RESTORED) toldOf = String(value);
    if (name === 'restoring') throw new Error('a restore was begun that the audit log does not tell of');
    if (name === 'moved') throw new Error('the store was moved, and is not gone on with');
  };
  const checkSealed = (table: Table, row: Row) => {
    for (const { column, place } of sealedColumns(table, row)) {
      const plaintext = keyring.open(row[column] as Buffer, place);
      if (table === 'state' && row.name === 'audit-log-key')
        auditKey = createPublicKey(createPrivateKey({ key: plaintext, format: 'der', type: 'pkcs8' }));
    }
  };
  const checkVersion = (row: Row) => {
    number = row.session === session ? number + 1 : 1;
    session = String(row.session);
    known.set(session, Number(row.number));
    if (row.number !== number) {
      const missing = number;
      number = Number(row.number);
      throw new Error(`version ${missing} before it is missing`);
    }
    if (row.namespace !== (namespaceOf(session) ?? null)) throw new Error('its namespace was changed');
    // Of sessions from before it was kept there is none.
    if (row.creator !== null && !isCreator(row)) throw new Error('who created it was changed');
  };
  const isCreator = (row: Row): boolean => {
    if (row.number !== 1) return false;
    const { by = [] } = openUpload({ keyring }, row as unknown as VersionHead) ?? {};
    return by.some((holder) => countedCreator(keyring, holder).equals(row.creator as Buffer));
  };
  const checkEntry = (row: Row) => {
    const line = row.line as Buffer;
    if (!auditKey) throw new Error('the key that the log is signed with is missing');
    if (Number(row.sequence) !== position.sequence + 1) {
      const missing = position.sequence + 1;
      isChained = false;
      position = { ...position, sequence: Number(row.sequence) };
      throw new Error(`entry ${missing} before it is missing`);
    }
    let entry: SignedEntry;
    try {
      entry = verifyEntry(line, position, auditKey);
    } catch (error) {
      isChained = false;
      position = { ...position, sequence: position.sequence + 1 };
      throw error;
    }
    position = { sequence: entry.sequence, signature: entry.signature };
    const subtrees: Buffer[] = [];
    frontier = append(frontier, leafHash(line), (size, hash) => {
      if (size >= BLOCK) subtrees.push(hash);
    });
    if (entry.operation === 'provisioned') isProvisioned = true;
    if (entry.operation === 'store_restored') restored = entry.sequence;
    if (entry.operation === 'session_created' || entry.operation === 'session_updated')
      newest.set(String(entry.session), Number(entry.version));
    if (row.news !== (isNews(entry.operation) ? 1 : 0)) throw new Error('whether it is news was changed');
    const tree = subtrees.length > 0 ? formatTree(subtrees, frontier) : null;
    const isSame = tree === null ? row.tree === null : Buffer.isBuffer(row.tree) && row.tree.equals(tree);
    if (isChained && !isSame) throw new Error('the hashes beside it were changed');
  };

  return {
    check(table, row) {
      try {
        if (
          (coded as readonly string[]).includes(table) &&
          !isAuthentic(keyring.authenticate, table as Coded, row)
        )
          throw new Error('it was not written by this CAS, or was changed');
        if (table === 'version') checkVersion(row);
        if (table === 'audit_log') checkEntry(row);
        if (table === 'state') checkState(row);
        checkSealed(table, row);
        return [];
      } catch (error) {
        return [`${nameOfRow(table, row)}: ${causes(error).join(': ')}`];
      }
    },
    end() {
      const lost: string[] = [];
      const isThere = position.sequence > 0;
      if (names.has('identity') && !isThere) lost.push('audit_log: it is missing');
      if (isThere && !names.has('identity')) lost.push('state identity: it is missing');
      if (isProvisioned && !names.has('owner'))
        lost.push('state owner: it is missing, and the audit log tells of it');
      if (toldOf !== restored?.toString())
        lost.push(`state ${RESTORED}: it is not the last entry of the audit log about a restore`);
      for (const [name, last] of newest)
        if ((known.get(name) ?? 0) < last)
          lost.push(`version ${name} ${last}: it is missing, and the audit log tells of it`);
      return lost;
    },
  };
}

/** Problems that are told of; one that is damaged has thousands. */
export const MOST_PROBLEMS = 100;

/**
 * Checks a whole store, as it is at one moment.
 * @returns what is wrong, row by row
 * @throws Failure of the store where it cannot be read
 */
export async function checkStore(
  database: Database,
  keyring: Keyring,
): Promise<{ rows: number; problems: string[] }> {
  const checker = rowChecker(keyring);
  const problems: string[] = [];
  let rows = 0;
  // What SQLite finds by, which no row tells of (sqlite.org/pragma.html#pragma_integrity_check).
  if (database.engine === 'sqlite')
    for (const { integrity_check } of await database.all('PRAGMA integrity_check'))
      if (integrity_check !== 'ok') problems.push(`the file: ${integrity_check}`);
  await database.snapshot((statements) =>
    eachRow(statements, (table, row) => {
      rows++;
      if (problems.length < MOST_PROBLEMS) problems.push(...checker.check(table, row));
    }),
  );
  return { rows, problems: problems.concat(checker.end()).slice(0, MOST_PROBLEMS) };
}

/** @throws Failure STORE_DAMAGED with the first of the problems */
export function requireWhole(store: string, problems: readonly string[]): void {
  const [first, ...more] = problems;
  if (first === undefined) return;
  const others = more.length > 0 ? `, and ${more.length} more` : '';
  throw failure('STORE_DAMAGED', { store, detail: first + others });
}
