import { createHash } from 'node:crypto';

/** The Merkle tree of RFC 9162 §2.1, with SHA-256: hashes of leaves and nodes, and proofs that one tree extends another. */

const sha256 = (...parts: readonly Uint8Array[]): Buffer => {
  const digest = createHash('sha256');
  for (const part of parts) digest.update(part);
  return digest.digest();
};
const LEAF = Buffer.of(0);
const NODE = Buffer.of(1);
export const HASH = 32;

export const leafHash = (leaf: Uint8Array): Buffer => sha256(LEAF, leaf);
export const nodeHash = (left: Uint8Array, right: Uint8Array): Buffer => sha256(NODE, left, right);

/** What of a tree is needed to go on with it: the roots of its complete subtrees, the largest first. */
export interface Frontier {
  size: number;
  hashes: readonly Buffer[];
}

export const emptyFrontier: Frontier = { size: 0, hashes: [] };

/**
 * The tree with one leaf more.
 * @param completed is given each subtree that ends with this leaf, by its size, from the smallest on
 */
export function append(
  { size, hashes }: Frontier,
  leaf: Buffer,
  completed?: (size: number, hash: Buffer) => void,
): Frontier {
  const rest = [...hashes];
  let hash = leaf;
  let subtree = 1;
  completed?.(subtree, hash);
  for (let left = size; left % 2 === 1; left = Math.floor(left / 2)) {
    hash = nodeHash(rest.pop() as Buffer, hash);
    subtree *= 2;
    completed?.(subtree, hash);
  }
  return { size: size + 1, hashes: [...rest, hash] };
}

/** Root of the tree (§2.1.1). */
export function rootOf({ hashes }: Frontier): Buffer {
  if (hashes.length === 0) return sha256();
  return hashes.reduceRight((right, left) => nodeHash(left, right));
}

/** Root of a complete subtree: of `size` leaves, a power of two, from leaf `start` on, a multiple of that. */
export type SubtreeReader = (start: number, size: number) => Promise<Buffer>;

/** The largest power of two that is smaller than a number of leaves. */
function split(leaves: number): number {
  let power = 1;
  while (power * 2 < leaves) power *= 2;
  return power;
}

async function rangeHash(read: SubtreeReader, start: number, end: number): Promise<Buffer> {
  const leaves = end - start;
  const left = split(leaves);
  if (leaves === 1 || left * 2 === leaves) return read(start, leaves);
  return nodeHash(await read(start, left), await rangeHash(read, start + left, end));
}

/**
 * Proof that the tree of `second` leaves begins with that of `first` (§2.1.4.1); 0 < first <= second.
 */
export async function consistencyProof(
  first: number,
  second: number,
  read: SubtreeReader,
): Promise<Buffer[]> {
  const proof = async (start: number, end: number, isWhole: boolean): Promise<Buffer[]> => {
    if (first === end) return isWhole ? [] : [await rangeHash(read, start, end)];
    const middle = start + split(end - start);
    if (first <= middle)
      return [...(await proof(start, middle, isWhole)), await rangeHash(read, middle, end)];
    return [...(await proof(middle, end, false)), await rangeHash(read, start, middle)];
  };
  return proof(0, second, true);
}

/** A size and the root of the tree of that size. */
export interface Tree {
  size: number;
  root: Buffer;
}

/** Whether a proof shows that one tree extends another (§2.1.4.2). Every tree extends the empty one. */
export function isConsistent(first: Tree, second: Tree, proof: readonly Buffer[]): boolean {
  if (first.size > second.size) return false;
  if (first.size === second.size) return proof.length === 0 && first.root.equals(second.root);
  if (first.size === 0) return proof.length === 0 && first.root.equals(sha256());
  const path = isPowerOfTwo(first.size) ? [first.root, ...proof] : [...proof];
  const [seed, ...rest] = path;
  if (!seed) return false;
  let fn = first.size - 1;
  let sn = second.size - 1;
  while (fn % 2 === 1) {
    fn = Math.floor(fn / 2);
    sn = Math.floor(sn / 2);
  }
  let fr = seed;
  let sr = seed;
  for (const hash of rest) {
    if (sn === 0) return false;
    if (fn % 2 === 1 || fn === sn) {
      fr = nodeHash(hash, fr);
      sr = nodeHash(hash, sr);
      while (fn % 2 === 0 && fn !== 0) {
        fn = Math.floor(fn / 2);
        sn = Math.floor(sn / 2);
      }
    } else {
      sr = nodeHash(sr, hash);
    }
    fn = Math.floor(fn / 2);
    sn = Math.floor(sn / 2);
  }
  return sn === 0 && fr.equals(first.root) && sr.equals(second.root);
}

function isPowerOfTwo(number: number): boolean {
  return Number.isInteger(Math.log2(number));
}
