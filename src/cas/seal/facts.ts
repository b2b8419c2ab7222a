import { failure } from '../../errors.ts';
import { derive, type MasterKeys } from '../keyring.ts';
import type { Database, Statements } from '../store/database.ts';
import { openState } from '../store/sql.ts';
import { openSeal, readSeal, replaceKeys, type Seal } from './record.ts';

/**
 * What has happened to a store once: its first start, which made its keys and began the audit log; and that it has an owner. Rows
 * that are deleted afterwards are missed then, instead of made anew, and the provisioning token is spent.
 *
 * A fact stands in the seal as a master key that nothing is sealed with: 0.1.0 keeps all keys when it rotates and re-keys, and
 * reads no other field. Only who has the root key can write it, or take it out.
 */
export type Fact = 'begun' | 'provisioned';
const ALL: readonly Fact[] = ['begun', 'provisioned'];

/** Numbers from here on are those of facts, unless 0.1.0 has given them out. */
const FIRST = 1_000_000;
/** How often others may replace the seal in a row. */
const TRIES = 10;

const keyOf = ({ naming }: MasterKeys, fact: Fact): Buffer => derive(naming, `seal fact ${fact}`);

const has = (keys: MasterKeys, fact: Fact): boolean =>
  [...keys.masters.values()].some((key) => key.equals(keyOf(keys, fact)));

/** The number of the next master key. */
export function nextNumber(keys: MasterKeys): number {
  const facts = ALL.map((fact) => keyOf(keys, fact));
  const others = [...keys.masters].filter(([, key]) => !facts.some((fact) => fact.equals(key)));
  let next = Math.max(...others.map(([number]) => number)) + 1;
  while (keys.masters.has(next)) next++;
  return next;
}

/** Facts of a store. */
export interface Facts {
  /** @throws Failure SEAL_DAMAGED, STORE_REKEYED, or of the store */
  has(fact: Fact): Promise<boolean>;
  /** Notes facts for ever. @param statements of the transaction that they belong to */
  note(facts: readonly Fact[], statements?: Statements): Promise<void>;
}

/** @param opened how the store was sealed when the root key opened it */
export function openFacts(database: Database, rootKey: Buffer, opened: Seal): Facts {
  /** What this process has seen stays so, whatever somebody puts in the place of the seal. */
  const seen = new Set<Fact>();
  const read = async (statements: Statements) => {
    const seal = await readSeal(openState(statements));
    if (!seal) throw failure('SEAL_DAMAGED', { detail: 'it is missing' });
    const keys = openSeal(seal, rootKey, opened);
    for (const fact of ALL) if (has(keys, fact)) seen.add(fact);
    return { seal, keys };
  };
  return {
    async has(fact) {
      if (!seen.has(fact)) await read(database);
      return seen.has(fact);
    },
    async note(facts, statements = database) {
      for (let attempt = 1; ; attempt++) {
        const { seal, keys } = await read(statements);
        const masters = new Map(keys.masters);
        for (const fact of facts)
          if (!has(keys, fact)) {
            let number = FIRST;
            while (masters.has(number)) number++;
            masters.set(number, keyOf(keys, fact));
          }
        if (masters.size === keys.masters.size) return;
        try {
          await replaceKeys(openState(statements), seal, rootKey, { ...keys, masters });
          return;
        } catch (error) {
          if (attempt >= TRIES || (error as { code?: unknown }).code !== 'SEAL_CHANGED') throw error;
        }
      }
    },
  };
}

/**
 * Makes sure that a store has what it must have by the facts.
 * @returns whether it was begun by a version that notes none
 * @throws Failure STORE_DAMAGED or AUDIT_LOG_DAMAGED
 */
export async function requireFacts(database: Database, keys: MasterKeys): Promise<{ isOld: boolean }> {
  const rows = await database.all('SELECT name FROM state');
  const names = new Set(rows.map(({ name }) => name));
  const isLogged = (await database.all('SELECT 1 FROM audit_log LIMIT 1')).length > 0;
  const isBegun = has(keys, 'begun');
  const missing = (name: string) =>
    failure('STORE_DAMAGED', { store: database.name, detail: `state ${name} is missing` });
  if (isBegun) for (const name of ['identity', 'audit-log-key']) if (!names.has(name)) throw missing(name);
  if (has(keys, 'provisioned') && !names.has('owner')) throw missing('owner');
  // Each CAS has made a token, or has an owner, since its first entry.
  if (!isLogged && (isBegun || names.has('owner') || names.has('provisioning-token')))
    throw failure('AUDIT_LOG_DAMAGED', { sequence: 1, detail: 'the whole log is missing' });
  return { isOld: isLogged && !isBegun };
}
