import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import {
  beginning,
  type Entry,
  formatEntry,
  type Operation,
  type Position,
  parseEntry,
  type SignedEntry,
  verifyEntry,
} from '../audit/entry.ts';
import {
  append,
  consistencyProof,
  emptyFrontier,
  type Frontier,
  HASH,
  leafHash,
  nodeHash,
  rootOf,
  type SubtreeReader,
} from '../audit/merkle-tree.ts';
import { type HeadAnswer, signHead } from '../audit/tree-head.ts';
import { Failure, failure } from '../errors.ts';
import { createAllowances } from '../platform/allowances.ts';
import type { Keyring } from './keyring.ts';
import { countStored } from './limits/stored.ts';
import { asker } from './observe/correlation.ts';
import { metrics, since } from './observe/metrics.ts';
import { Conflict, type Database, type Statements } from './store/database.ts';
import type { State } from './store/store.ts';

/**
 * The log of what a CAS has decided. What has been recorded is durable. Entries that come while others are being written go
 * together. All processes of a CAS write the same log: that a number is given once is the database's to see to, and whoever
 * was slower reads what the others have written, and goes on from there.
 */
export interface AuditLog {
  /** @throws Failure of the store, and then whatever it is about must not happen */
  record(entry: Entry): Promise<void>;
  /** Does something in the database and records it, both or neither. */
  recordWith<Result>(
    /** @param next number that its first entry will have */
    work: (statements: Statements, next: number) => Promise<Recorded<Result>>,
  ): Promise<Result>;
  /** Records a refusal, unless its source has had too many at a time; then how many more there were. */
  recordRefusal(entry: Entry): Promise<void>;
  /** @param first a size that somebody has seen, to which the proof is made */
  head(first?: number): Promise<HeadAnswer>;
  /** Lines, from a number on. */
  lines(first: number, limit: number): Promise<Buffer[]>;
  /**
   * Has somebody react to what processes of the CAS have to hear of, of all that was recorded since the last reaction that
   * succeeded. Of new versions of sessions, those of other processes alone: whoever stores one tells of it.
   * @throws what the reaction throws, which is called with the same again the next time
   */
  news(react: (news: News) => Promise<void>): Promise<void>;
  /** Public key, SPKI in PEM. */
  key: string;
  publicKey: KeyObject;
}

export interface News {
  entries: SignedEntry[];
  /** The log is another one now. */
  replaced: boolean;
}

export interface Recorded<Result> {
  result: Result;
  entries: readonly Entry[];
}

export interface AuditLogOptions {
  database: Database;
  store: State;
  keyring: Keyring;
  /** SHA-256 of the CAS's public key. */
  cas: Buffer;
  /**
   * Writes single entries in the place of this process: where several on one host write to one log, each has to read what the
   * others wrote before it can go on, and sign again where it was slower.
   */
  recorder?: ((entry: Entry) => Promise<void>) | undefined;
  clock: () => number;
}

/** What an entry has in the database besides its line, where its number is divisible by this, so that few are read later. */
export const BLOCK = 256;
/** Entries that are written at a time. */
const AT_ONCE = 256;
/** How often others may be faster in a row. */
const TRIES = 200;
/** Refusals of one source at once, and a second: he must not fill the disk, nor hide what others are refused. */
const REFUSALS = 50;
const REFUSALS_A_SECOND = 2;
/** Lines that are read at a time. */
const READ_AT_ONCE = 2 * BLOCK;

const OF_SESSIONS: ReadonlySet<Operation> = new Set(['session_created', 'session_updated']);

/** What changes something that processes may hold in memory. */
const NEWS: ReadonlySet<Operation> = new Set([
  ...OF_SESSIONS,
  'owner_configuration_updated',
  'provisioned',
  'keys_rotated',
  'collateral_added',
  'store_restored',
  'cas_sealed',
]);

export const isNews = (operation: Operation): boolean => NEWS.has(operation);

/** Where the log is, as far as this process knows. */
interface Known {
  position: Position;
  frontier: Frontier;
  /** The last line. */
  last: Buffer | undefined;
}

/** An entry, or none of an empty log. */
interface Anchor {
  sequence: number;
  line: Buffer | undefined;
}

const further = (one: Anchor, other: Anchor): Anchor => (other.sequence > one.sequence ? other : one);

/** @throws Failure AUDIT_LOG_DAMAGED, or of the store */
export async function openAuditLog(options: AuditLogOptions): Promise<AuditLog> {
  const { database, cas, clock, recorder } = options;
  const privateKey = await openKey(options);
  const publicKey = createPublicKey(privateKey);
  const key = publicKey.export({ type: 'spki', format: 'pem' }) as string;
  let known: Known | undefined = await load(database, publicKey);
  let heard = known.position.sequence;
  /** An entry not before the last one that was heard of: while it is there, no other log is in the place of this one. */
  let anchor: Anchor = { sequence: heard, line: known.last };
  /** The log was replaced, and nobody has reacted to it yet. */
  let isReplaced = false;
  /** Numbers of versions that this process has stored, and not met again yet. */
  const own = new Set<number>();

  const current = async (): Promise<Known> => {
    known ??= await load(database, publicKey);
    return known;
  };
  /** Takes in what others have written; all anew where the log was replaced. */
  const catchUp = async (): Promise<Known> => {
    let at = await current();
    const rows = await database.all(
      'SELECT line FROM audit_log WHERE sequence >= $1 ORDER BY sequence LIMIT $2',
      Math.max(1, at.position.sequence),
      READ_AT_ONCE,
    );
    const lines = rows.map(({ line }) => line as Buffer);
    const last = at.last && lines.shift();
    const isReplaced = at.last && !(last && at.last.equals(last));
    // Where it is far behind, what stands at the last block says as much.
    if (isReplaced || rows.length === READ_AT_ONCE) {
      known = await load(database, publicKey);
      return known;
    }
    for (const line of lines) at = extend(at, line, publicKey);
    known = at;
    return at;
  };

  /** @throws Conflict where others were faster */
  const write = async (statements: Statements, before: Known, entries: readonly Entry[]): Promise<Known> => {
    let at = before;
    const values: (number | Buffer | null)[] = [];
    const now = clock();
    for (const entry of entries) {
      const { line, position } = formatEntry(entry, at.position, now, privateKey);
      const subtrees: Buffer[] = [];
      const frontier = append(at.frontier, leafHash(line), (size, hash) => {
        if (size >= BLOCK) subtrees.push(hash);
      });
      const tree = subtrees.length > 0 ? formatTree(subtrees, frontier) : null;
      values.push(position.sequence, line, tree, NEWS.has(entry.operation) ? 1 : 0);
      at = { position, frontier, last: line };
    }
    // What comes before must be there: a store that was put back under a running CAS has another log.
    const predecessor = before.last
      ? `WHERE EXISTS (SELECT 1 FROM audit_log WHERE sequence = $${values.length + 1} AND line = $${values.length + 2})`
      : '';
    const bytes = database.engine === 'postgres' ? 'BYTEA' : 'BLOB';
    const rows = entries.map(
      (_, row) =>
        `(${['BIGINT', bytes, bytes, 'BIGINT'].map((type, at) => `CAST($${4 * row + at + 1} AS ${type})`).join(', ')})`,
    );
    const written = await statements.run(
      `INSERT INTO audit_log (sequence, line, tree, news)
       SELECT column1, column2, column3, column4 FROM (VALUES ${rows.join(', ')}) AS new_entry ${predecessor}`,
      ...values,
      ...(before.last ? [before.position.sequence, before.last] : []),
    );
    if (written !== entries.length) throw new Conflict('the log was replaced');
    return at;
  };

  /** Writes entries, and what belongs to them, after those of others. */
  const settle = async <Result>(
    work: () => Promise<{ result: Result; at: Known; entries: readonly Entry[] }>,
  ): Promise<Result> => {
    const start = performance.now();
    for (let attempt = 1; ; attempt++)
      try {
        const { result, at, entries } = await work();
        const first = at.position.sequence - entries.length + 1;
        for (const [index, { operation }] of entries.entries())
          if (OF_SESSIONS.has(operation)) own.add(first + index);
        known = at;
        metrics.auditSeconds({}, since(start));
        return result;
      } catch (error) {
        if (!(error instanceof Conflict)) {
          if (isOfStore(error)) {
            // Whether it was written is not known.
            known = undefined;
            metrics.auditFailed({});
          }
          throw error;
        }
        if (attempt >= TRIES)
          throw failure('STORE_UNAVAILABLE', { store: database.name, detail: 'too many write to it' });
        await catchUp();
      }
  };

  interface Waiting {
    entry: Entry;
    done(): void;
    failed(error: unknown): void;
  }
  let queue: Waiting[] = [];
  let latest: Promise<unknown> = Promise.resolve();
  const inTurn = <Result>(work: () => Promise<Result>): Promise<Result> => {
    const result = latest.then(work);
    latest = result.catch(() => {});
    return result;
  };
  const flush = async () => {
    const batch = queue.slice(0, AT_ONCE);
    queue = queue.slice(AT_ONCE);
    if (batch.length === 0) return;
    try {
      const entries = batch.map(({ entry }) => entry);
      await settle(async () => {
        const at = await write(database, await current(), entries);
        return { result: undefined, at, entries };
      });
      for (const { done } of batch) done();
    } catch (error) {
      for (const { failed } of batch) failed(error);
    }
  };
  const recordHere = (entry: Entry): Promise<void> =>
    new Promise((done, failed) => {
      queue.push({ entry, done, failed });
      // It takes along whatever else comes until its turn, or in the same turn of the event loop.
      if (queue.length % AT_ONCE === 1) void inTurn(() => new Promise(setImmediate).then(flush));
    });

  const recordThere = async (entry: Entry): Promise<void> => {
    const start = performance.now();
    try {
      await recorder?.(entry);
      metrics.auditSeconds({}, since(start));
    } catch (error) {
      metrics.auditFailed({});
      throw failure(
        'STORE_UNAVAILABLE',
        { store: database.name, detail: 'the audit log is not written' },
        error,
      );
    }
  };
  const record = async (entry: Entry): Promise<void> => {
    countStored();
    await (recorder ? recordThere : recordHere)(entry);
  };

  const subtrees: SubtreeReader = async (start, size) => {
    if (size >= BLOCK) {
      const [row] = await database.all('SELECT tree FROM audit_log WHERE sequence = $1', start + size);
      const hash = Buffer.isBuffer(row?.tree) ? subtreeIn(row.tree, Math.log2(size / BLOCK)) : undefined;
      if (hash) return hash;
      throw failure('AUDIT_LOG_DAMAGED', {
        sequence: start + size,
        detail: 'the hashes beside it are missing',
      });
    }
    const rows = await database.all(
      'SELECT line FROM audit_log WHERE sequence > $1 AND sequence <= $2 ORDER BY sequence',
      start,
      start + size,
    );
    if (rows.length !== size)
      throw failure('AUDIT_LOG_DAMAGED', { sequence: start + 1, detail: 'it, or one after it, is missing' });
    let hashes = rows.map(({ line }) => leafHash(line as Buffer));
    while (hashes.length > 1)
      hashes = hashes.flatMap((hash, at) => (at % 2 === 0 ? [nodeHash(hash, hashes[at + 1] as Buffer)] : []));
    return hashes[0] as Buffer;
  };

  const refusals = createAllowances(REFUSALS, REFUSALS_A_SECOND);
  let omitted = 0;
  return {
    key,
    publicKey,
    record,
    recordWith: (work) =>
      inTurn(() =>
        settle(async () => {
          // Not within the transaction, which all others wait for.
          const before = await current();
          return database.transaction(async (statements) => {
            const { result, entries } = await work(statements, before.position.sequence + 1);
            const at = entries.length > 0 ? await write(statements, before, entries) : before;
            return { result, at, entries };
          });
        }),
      ),
    async recordRefusal(entry) {
      const { source } = asker();
      if (refusals.left(source) < 1) {
        omitted++;
        return;
      }
      refusals.take(source, 1);
      const count = omitted;
      omitted = 0;
      if (count > 0) await record({ operation: 'refusals_omitted', count });
      await record(entry);
    },
    async head(first) {
      const { frontier } = await inTurn(catchUp);
      const unsigned = {
        cas: cas.toString('hex'),
        size: frontier.size,
        root: rootOf(frontier).toString('hex'),
        time: new Date(clock()).toISOString(),
      };
      const isThere = first !== undefined && first > 0 && first < frontier.size;
      const proof = isThere ? await consistencyProof(first, frontier.size, subtrees) : undefined;
      const restored = await lastRestore(database);
      return {
        head: signHead(unsigned, privateKey),
        key,
        ...(proof && { proof: proof.map((hash) => hash.toString('hex')) }),
        ...(restored && { restored }),
      };
    },
    lines: async (first, limit) =>
      (
        await database.all(
          'SELECT line FROM audit_log WHERE sequence >= $1 ORDER BY sequence LIMIT $2',
          first,
          limit,
        )
      ).map(({ line }) => line as Buffer),
    async news(react) {
      const { position, last } = await current();
      // The anchor is looked for after that, so that what is known cannot be of a log that took its place meanwhile.
      const isThere =
        !anchor.line ||
        (
          await database.all(
            'SELECT 1 FROM audit_log WHERE sequence = $1 AND line = $2',
            anchor.sequence,
            anchor.line,
          )
        ).length > 0;
      if (isThere) anchor = further(anchor, { sequence: position.sequence, line: last });
      else {
        isReplaced = true;
        known = undefined;
        const anew = await inTurn(current);
        anchor = { sequence: anew.position.sequence, line: anew.last };
        // What came after a restore is heard of beside it.
        heard = (await lastRestore(database))?.sequence ?? anchor.sequence;
        own.clear();
      }
      const rows = await database.all(
        'SELECT sequence, line FROM audit_log WHERE news = 1 AND sequence > $1 ORDER BY sequence LIMIT $2',
        heard,
        READ_AT_ONCE,
      );
      const all = rows.map(({ sequence, line }) => parseEntry(line as Buffer, Number(sequence)));
      const entries = all.filter(({ sequence }) => !own.has(sequence));
      await react({ entries, replaced: isReplaced });
      // Only now: what was not reacted to comes again.
      isReplaced = false;
      const latest = rows.at(-1);
      if (latest) {
        heard = Number(latest.sequence);
        anchor = further(anchor, { sequence: heard, line: latest.line as Buffer });
      }
      for (const { sequence } of all) own.delete(sequence);
    },
  };
}

/** Whether it is the store that failed, and not what was to be recorded that must not be. */
const isOfStore = (error: unknown) => !(error instanceof Failure) || error.code.startsWith('STORE_');

/** The state of the log in the database: what stands at the last block, and the lines since. */
async function load(database: Database, key: KeyObject): Promise<Known> {
  const [row] = await database.all('SELECT max(sequence) AS sequence FROM audit_log');
  const size = Number(row?.sequence ?? 0);
  const block = size - (size % BLOCK);
  let at: Known = { position: beginning, frontier: emptyFrontier, last: undefined };
  if (block > 0) {
    const [start] = await database.all('SELECT line, tree FROM audit_log WHERE sequence = $1', block);
    const frontier = Buffer.isBuffer(start?.tree) ? frontierIn(start.tree, block) : undefined;
    if (!frontier)
      throw failure('AUDIT_LOG_DAMAGED', {
        sequence: block,
        detail: 'it, or the hashes beside it, are missing',
      });
    const last = start?.line as Buffer;
    at = { position: { sequence: block, signature: parseEntry(last, block).signature }, frontier, last };
  }
  for (const { line } of await database.all(
    'SELECT line FROM audit_log WHERE sequence > $1 ORDER BY sequence',
    block,
  ))
    at = extend(at, line as Buffer, key);
  return at;
}

/** @throws Failure AUDIT_LOG_DAMAGED where a line is not the next one, signed by this CAS */
function extend({ position, frontier }: Known, line: Buffer, key: KeyObject): Known {
  const { sequence, signature } = verifyEntry(line, position, key);
  return { position: { sequence, signature }, frontier: append(frontier, leafHash(line)), last: line };
}

/** Subtrees of 256, 512, … leaves that end there, by their number; and the frontier. */
export function formatTree(subtrees: readonly Buffer[], { hashes }: Frontier): Buffer {
  return Buffer.concat([Buffer.of(subtrees.length), ...subtrees, ...hashes]);
}

function subtreeIn(tree: Buffer, level: number): Buffer | undefined {
  return level < (tree[0] ?? 0) ? tree.subarray(1 + level * HASH, 1 + (level + 1) * HASH) : undefined;
}

function frontierIn(tree: Buffer, size: number): Frontier | undefined {
  const start = 1 + (tree[0] ?? 0) * HASH;
  const count = [...size.toString(2)].filter((bit) => bit === '1').length;
  if (tree.length !== start + count * HASH) return undefined;
  return {
    size,
    hashes: Array.from({ length: count }, (_, at) =>
      tree.subarray(start + at * HASH, start + (at + 1) * HASH),
    ),
  };
}

/** A row of `state` names the entry, so that nobody has to look for it. */
export const RESTORED = 'restored';

async function lastRestore(database: Database): Promise<HeadAnswer['restored']> {
  const [row] = await database.all('SELECT value FROM state WHERE name = $1', RESTORED);
  const sequence = Number(row?.value);
  if (!row || !Number.isSafeInteger(sequence)) return undefined;
  const [entry] = await database.all('SELECT line FROM audit_log WHERE sequence = $1', sequence);
  if (!entry) return undefined;
  const { time, operation } = parseEntry(entry.line as Buffer, sequence);
  return operation === ('store_restored' satisfies Operation) ? { sequence, time } : undefined;
}

/** The key that the log is signed with; made once and kept. */
async function openKey({ store, keyring }: AuditLogOptions): Promise<KeyObject> {
  const name = 'audit-log-key';
  const place = `state/${name}`;
  const fresh = () =>
    keyring.seal(generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'der' }), place);
  const sealed = (await store.readState(name)) ?? (await store.createState(name, fresh()));
  return createPrivateKey({ key: keyring.open(sealed, place), format: 'der', type: 'pkcs8' });
}
