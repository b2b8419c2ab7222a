import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  append,
  consistencyProof,
  emptyFrontier,
  isConsistent,
  leafHash,
  nodeHash,
  rootOf,
} from '../../src/audit/merkle-tree.ts';

/** The tree hash, word for word as RFC 9162 §2.1.1 defines it. */
function mth(leaves: readonly Buffer[]): Buffer {
  const [only] = leaves;
  if (!only) return createHash('sha256').digest();
  if (leaves.length === 1) return createHash('sha256').update(Buffer.of(0)).update(only).digest();
  let k = 1;
  while (k * 2 < leaves.length) k *= 2;
  return createHash('sha256')
    .update(Buffer.of(1))
    .update(mth(leaves.slice(0, k)))
    .update(mth(leaves.slice(k)))
    .digest();
}

const MOST = 70;
const leaves = Array.from({ length: MOST }, (_, number) => Buffer.from(`leaf ${number}`));
const roots = Array.from({ length: MOST + 1 }, (_, size) => mth(leaves.slice(0, size)));
const tree = (size: number) => ({ size, root: roots[size] as Buffer });
const read = async (start: number, size: number) => mth(leaves.slice(start, start + size));

test('the root of a growing tree is that of its definition, and so are the subtrees that it completes', () => {
  let frontier = emptyFrontier;
  assert.deepEqual(rootOf(frontier), roots[0]);
  for (const [index, leaf] of leaves.entries()) {
    frontier = append(frontier, leafHash(leaf), (size, hash) =>
      assert.deepEqual(hash, mth(leaves.slice(index + 1 - size, index + 1))),
    );
    assert.deepEqual(rootOf(frontier), roots[index + 1]);
    assert.equal(frontier.size, index + 1);
  }
});

test('the trees that certificate transparency publishes for its tests have their roots', () => {
  // From the inputs of the reference implementation of RFC 6962, which has the same tree.
  const inputs = [
    '',
    '00',
    '10',
    '2021',
    '3031',
    '40414243',
    '5051525354555657',
    '606162636465666768696a6b6c6d6e6f',
  ];
  const expected = [
    '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
    'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
    'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
    'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
    '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
    'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
    '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
  ];
  let frontier = emptyFrontier;
  for (const [index, input] of inputs.entries()) {
    frontier = append(frontier, leafHash(Buffer.from(input, 'hex')));
    assert.equal(rootOf(frontier).toString('hex'), expected[index]);
  }
});

test('every tree is proven to extend every smaller one, and no other', async () => {
  for (let second = 1; second <= MOST; second++)
    for (let first = 1; first <= second; first++) {
      const proof = await consistencyProof(first, second, read);
      assert.ok(isConsistent(tree(first), tree(second), proof), `${first} of ${second}`);
      assert.ok(
        !isConsistent(
          { size: first, root: nodeHash(leaves[0] as Buffer, leaves[1] as Buffer) },
          tree(second),
          proof,
        ),
      );
      if (first < second) {
        assert.ok(!isConsistent(tree(second), tree(first), proof));
        assert.ok(!isConsistent(tree(first), { size: second, root: roots[first] as Buffer }, proof));
      }
    }
  assert.ok(isConsistent(tree(0), tree(5), []));
});

test('a proof of which anything is changed, left out or added proves nothing', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: MOST - 1 }),
      fc.integer({ min: 1, max: MOST }),
      fc.nat(),
      fc.nat(),
      async (one, two, where, bit) => {
        const [first, second] = [Math.min(one, two), Math.max(one, two)];
        if (first === second) return;
        const proof = await consistencyProof(first, second, read);
        const holds = (changed: Buffer[]) => isConsistent(tree(first), tree(second), changed);
        const at = where % proof.length;
        const flipped = Buffer.from(proof[at] as Buffer);
        flipped[Math.floor(bit / 8) % 32] = (flipped[Math.floor(bit / 8) % 32] ?? 0) ^ (1 << (bit % 8));
        assert.ok(!holds(proof.with(at, flipped)));
        assert.ok(!holds(proof.toSpliced(at, 1)));
        assert.ok(!holds(proof.toSpliced(at, 0, flipped)));
        assert.ok(!holds([...proof, flipped]));
        // The same proof for sizes that are not those.
        assert.ok(
          !isConsistent({ ...tree(first), size: first + 1 }, tree(second), proof) || first + 1 === second,
        );
      },
    ),
  );
});
