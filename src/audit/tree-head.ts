import { type KeyObject, sign, verify } from 'node:crypto';
import * as v from 'valibot';
import { failure } from '../errors.ts';
import { readPublicKey } from '../quick-key.ts';
import { parsePublicKey } from '../secrets/private-key.ts';
import { HASH, isConsistent, type Tree } from './merkle-tree.ts';

/** What a CAS says of its whole audit log at a moment, signed. */
export const treeHead = v.strictObject({
  /** SHA-256 of the CAS's public key, hexadecimal. */
  cas: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  /** Entries. */
  size: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  /** Of the Merkle tree over their lines (RFC 9162 §2.1.1), hexadecimal. */
  root: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  time: v.pipe(v.string(), v.isoTimestamp()),
  signature: v.pipe(v.string(), v.regex(/^[0-9a-f]{128}$/)),
});
export type TreeHead = v.InferOutput<typeof treeHead>;

/** `GET /v1/audit-log/head?first=N` */
export const headAnswer = v.strictObject({
  head: treeHead,
  /** Public key that head and entries are signed with: SPKI, PEM. */
  key: v.pipe(v.string(), v.maxLength(1024)),
  /** That the tree of N entries is its beginning (RFC 9162 §2.1.4); absent where there are fewer. */
  proof: v.optional(v.pipe(v.array(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))), v.maxLength(128))),
  /** The last time that the store was restored from a backup, where it was. */
  restored: v.optional(
    v.strictObject({
      /** Number of the entry that says so. */
      sequence: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
      time: v.pipe(v.string(), v.isoTimestamp()),
    }),
  ),
});
export type HeadAnswer = v.InferOutput<typeof headAnswer>;

const CONTEXT = 'envcas audit log head 1\n';
const signedBytes = ({ cas, size, root, time }: Omit<TreeHead, 'signature'>) =>
  Buffer.from(CONTEXT + JSON.stringify({ cas, size, root, time }));

export function signHead(head: Omit<TreeHead, 'signature'>, key: KeyObject): TreeHead {
  return { ...head, signature: sign(null, signedBytes(head), key).toString('hex') };
}

export function isHeadSigned(head: TreeHead, key: KeyObject): boolean {
  return verify(null, signedBytes(head), key, Buffer.from(head.signature, 'hex'));
}

/** What somebody remembers of an audit log. */
export interface RememberedLog {
  /** Public key, SPKI in PEM. */
  key: string;
  size: number;
  /** Hexadecimal. */
  root: string;
  /** Number of the entry that says when the store was restored last, where it was. */
  restored?: number | undefined;
  /** Time of that entry, RFC 3339; 0.1.0 does not remember it. */
  restoredAt?: string | undefined;
}

/**
 * Compares what a CAS says of its log with what was seen before.
 * @param casKey the CAS's, by which it was known on the connection
 * @returns what to remember from now on
 * @throws Failure CAS_PROTOCOL, CAS_ROLLED_BACK, or CAS_RESTORED
 */
export function checkHead(
  answer: HeadAnswer,
  casKey: Buffer,
  before: RememberedLog | undefined,
  address: string,
): RememberedLog {
  const { head, restored } = answer;
  const untrue = (detail: string) => failure('CAS_PROTOCOL', { address, detail });
  const key = publicKey(answer.key);
  if (!key) throw untrue('the key of its audit log is none');
  if (head.cas !== casKey.toString('hex')) throw untrue('its audit log is that of another CAS');
  if (!isHeadSigned(head, key)) throw untrue('the head of its audit log is not signed');
  const now = {
    ...{ key: answer.key, size: head.size, root: head.root },
    ...(restored && { restored: restored.sequence, restoredAt: restored.time }),
  };
  if (!before) return now;
  if (before.key === answer.key && isExtension(before, now, answer.proof)) return now;
  if (restored && isNew(restored, before))
    throw failure('CAS_RESTORED', {
      address,
      time: restored.time,
      sequence: restored.sequence,
      size: before.size,
    });
  throw failure('CAS_ROLLED_BACK', { address, size: before.size, now: head.size });
}

/** Whether a restore came after the one that is remembered: one that was known already explains nothing. */
const isNew = (restored: { sequence: number; time: string }, before: RememberedLog): boolean =>
  before.restoredAt === undefined
    ? restored.sequence !== before.restored
    : Date.parse(restored.time) > Date.parse(before.restoredAt);

function isExtension(before: RememberedLog, now: RememberedLog, proof: readonly string[] = []): boolean {
  const tree = ({ size, root }: RememberedLog): Tree => ({ size, root: Buffer.from(root, 'hex') });
  return isConsistent(
    tree(before),
    tree(now),
    proof.map((hash) => Buffer.from(hash, 'hex')).filter((hash) => hash.length === HASH),
  );
}

/** An Ed25519 public key, or undefined. */
export function publicKey(pem: string): KeyObject | undefined {
  try {
    const spki = parsePublicKey(pem);
    if (typeof spki === 'string') return undefined;
    const key = readPublicKey(spki);
    return key.asymmetricKeyType === 'ed25519' ? key : undefined;
  } catch {
    return undefined;
  }
}
