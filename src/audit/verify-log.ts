import type { KeyObject } from 'node:crypto';
import { causes } from '../errors.ts';
import { beginning, type Position, parseEntry, type SignedEntry, verifyEntry } from './entry.ts';
import { readIntroduction } from './introduction.ts';
import { append, emptyFrontier, isConsistent, leafHash, rootOf, type Tree } from './merkle-tree.ts';

/** What an audit log that somebody has in a file is worth: exit statuses of `scone cas verify-audit-log`. */
export const verdicts = {
  whole: { exit: 0, text: 'The log is whole, and nothing that was seen before is missing from it' },
  'one more': {
    exit: 10,
    text: 'The last entry is not in the log of the CAS: it was being written when the CAS was cut off',
  },
  'recent missing': { exit: 14, text: 'Entries are missing at the end; those that are here are right' },
  'older missing': { exit: 15, text: 'Entries are missing at the beginning; those that are here are right' },
  unknown: {
    exit: 16,
    text: 'The entries that are here are right; whether the CAS was rolled back before them, nothing tells',
  },
  deleted: {
    exit: 17,
    text: 'An entry that was seen before is not in the log: the CAS was rolled back, or entries were deleted',
  },
  'rolled back': { exit: 18, text: 'The CAS was rolled back: it does not have entries that are here' },
  'other CAS': { exit: 19, text: 'This is the log of another CAS' },
  forged: { exit: 20, text: 'The log is not as the CAS has written it' },
} as const;
export type Verdict = keyof typeof verdicts;

/** What is known beside the log itself. */
export interface Knowledge {
  /** SHA-256 of the CAS's public key. */
  cas?: Buffer | undefined;
  /** Signature of an entry that comes before the first one here. */
  predecessor?: string | undefined;
  /** Signature of an entry that was seen before. */
  last?: string | undefined;
  /** A tree that was seen before. */
  remembered?: Tree | undefined;
  /** What the CAS says now; the proof is from as many entries as there are here. */
  present?: (
    size: number,
  ) => Promise<{ tree: Tree; proof: readonly Buffer[]; restored?: string | undefined }>;
}

export interface Finding {
  verdict: Verdict;
  /** Beside the verdict's own text. */
  detail: string;
  first: number;
  last: number;
}

/**
 * Reads a log, a line at a time, and compares it with what is known.
 * @param open gives the lines from their beginning, each time
 * @param visit is given each entry that is right
 */
export async function verifyLog(
  open: () => AsyncIterable<Buffer>,
  known: Knowledge,
  visit: (entry: SignedEntry, line: Buffer) => Promise<void> | void = () => {},
): Promise<Finding> {
  const none = { first: 0, last: 0 };
  const found = await findKey(open, known.cas);
  if (found === 'other') return { verdict: 'other CAS', detail: '', ...none };
  if (!found) return { verdict: 'forged', detail: 'no entry says whose log it is (cas_started)', ...none };

  let position: Position | undefined;
  let first = 1;
  let frontier = emptyFrontier;
  let followsKnown = false;
  let hasLast = false;
  let atRemembered: Buffer | undefined;
  let visiting = false;
  try {
    for await (const line of open()) {
      if (!position) {
        const { sequence, predecessor } = parseEntry(line, 1);
        first = sequence;
        position = { sequence: sequence - 1, signature: predecessor };
        followsKnown = first === 1 ? predecessor === beginning.signature : predecessor === known.predecessor;
        if (first === 1 && !followsKnown) throw new Error('the first entry follows another one');
      }
      const entry = verifyEntry(line, position, found);
      position = { sequence: entry.sequence, signature: entry.signature };
      frontier = append(frontier, leafHash(line));
      if (entry.signature === known.last) hasLast = true;
      if (frontier.size === known.remembered?.size) atRemembered = rootOf(frontier);
      visiting = true;
      await visit(entry, line);
      visiting = false;
    }
  } catch (error) {
    if (visiting) throw error;
    return { verdict: 'forged', detail: causes(error).join(': '), first, last: position?.sequence ?? 0 };
  }
  const last = position?.sequence ?? 0;
  const range = { first, last };
  const is = (verdict: Verdict, detail = ''): Finding => ({ verdict, detail, ...range });
  if (known.last !== undefined && !hasLast) return is('deleted', 'The one that --last names is not here');
  if (!followsKnown) return is('older missing', `The first one here has the number ${first}`);
  // Only of a whole log the root is known.
  const own: Tree | undefined = first === 1 ? { size: last, root: rootOf(frontier) } : undefined;
  const { remembered } = known;
  if (own && remembered && remembered.size > 0) {
    if (remembered.size > last)
      return is('recent missing', `${remembered.size} were there when the CAS was last asked`);
    if (!atRemembered?.equals(remembered.root)) return is('deleted', `Of the first ${remembered.size}`);
  }
  if (own && known.present) {
    const { tree, proof, restored } = await known.present(own.size);
    const why =
      restored === undefined ? '' : `The CAS says that it was restored from a backup on ${restored}`;
    if (tree.size === own.size - 1) return is('one more');
    if (tree.size < own.size)
      return is('rolled back', why || `It has ${tree.size}, and here are ${own.size}`);
    if (!isConsistent(own, tree, proof)) return is('deleted', why);
    if (tree.size > own.size)
      return is('recent missing', `The CAS has ${tree.size} by now, and here are ${own.size}`);
    return is('whole');
  }
  if (hasLast || (own && remembered && remembered.size > 0)) return is('whole');
  return is('unknown');
}

/** The key that the log says it is signed with, as the CAS has signed that. */
async function findKey(
  open: () => AsyncIterable<Buffer>,
  cas: Buffer | undefined,
): Promise<KeyObject | 'other' | undefined> {
  let isOther = false;
  for await (const line of open()) {
    if (!line.includes('"cas_started"')) continue;
    let entry: SignedEntry;
    try {
      entry = parseEntry(line, 0);
    } catch {
      continue;
    }
    const introduced = readIntroduction(entry);
    if (!introduced) continue;
    if (!cas || introduced.cas.equals(cas)) return introduced.key;
    isOther = true;
  }
  return isOther ? 'other' : undefined;
}
