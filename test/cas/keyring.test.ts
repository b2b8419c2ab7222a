import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { keyring, keysOfOne, makeMasterKeys } from '../../src/cas/keyring.ts';

const ring = keyring(makeMasterKeys());
const secret = Buffer.from('the secret itself');
const sealedBroken = { name: 'Failure', code: 'STATE_SEALED' };

test('what is sealed opens at its own place, and shows nothing', () => {
  const sealed = ring.seal(secret, 'version/a/1');
  assert.deepEqual(ring.open(sealed, 'version/a/1'), secret);
  assert.equal(sealed.includes(secret), false);
  assert.notDeepEqual(ring.seal(secret, 'version/a/1'), sealed);
});

test('it does not open at another place, with another master key, or when a byte was changed', () => {
  const sealed = ring.seal(secret, 'version/a/1');
  assert.throws(() => ring.open(sealed, 'version/a/2'), sealedBroken);
  assert.throws(() => keyring(makeMasterKeys()).open(sealed, 'version/a/1'), sealedBroken);
  for (let at = 0; at < sealed.length; at++) {
    const changed = Buffer.from(sealed);
    changed[at] = (changed[at] ?? 0) ^ 1;
    assert.throws(() => ring.open(changed, 'version/a/1'), sealedBroken, `byte ${at}`);
    assert.throws(() => ring.open(sealed.subarray(0, at), 'version/a/1'), sealedBroken, `cut at ${at}`);
  }
});

test('what was sealed under an earlier master key opens, and is wrapped anew under the present one', () => {
  const keys = makeMasterKeys();
  const old = keyring(keys);
  const sealed = old.seal(secret, 'here');
  const masters = new Map(keys.masters).set(2, randomBytes(32));
  const both = keyring({ ...keys, masters, present: 2 });
  assert.deepEqual(both.open(sealed, 'here'), secret);
  assert.deepEqual(both.pseudonym(secret), old.pseudonym(secret));
  assert.deepEqual(both.authenticate(secret, 'x'), old.authenticate(secret, 'x'));
  const fresh = both.rewrap(sealed, 'here');
  assert.ok(fresh);
  assert.equal(both.rewrap(fresh, 'here'), undefined);
  assert.throws(() => both.rewrap(sealed, 'there'), sealedBroken);
  assert.throws(() => old.open(fresh, 'here'), sealedBroken);
  old.use({ ...keys, masters, present: 1 });
  assert.deepEqual(old.open(fresh, 'here'), secret);
  // The old key alone is of no use any more.
  const second = keyring({ ...keys, masters: new Map([[2, masters.get(2) as Buffer]]), present: 2 });
  assert.deepEqual(second.open(fresh, 'here'), secret);
  assert.throws(() => second.open(sealed, 'here'), sealedBroken);
});

test('what the first version of the program has sealed opens with the key it had', () => {
  const master = Buffer.from('00112233445566778899aabbccddeeff0f1e2d3c4b5a69788796a5b4c3d2e1f0', 'hex');
  const sealed = Buffer.from(
    'ATOdvkWL4OmEWfqvM2HquuK3Z3TM36kddZrioJ4X2XbdgqpbdeZScctG7tUWzFZ5nezc3WDEayiuyShv78w0XoFS1fORCBmBVZQTKVaR5nBu1NrcvqVY8tqKNolHW5WhxBnY2aPpqsloxw==',
    'base64',
  );
  assert.equal(sealed[0], 1);
  assert.equal(keyring(keysOfOne(master)).open(sealed, 'here').toString(), 'the secret itself');
});
