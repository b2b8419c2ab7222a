import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { keyring, openKeyring } from '../../src/cas/keyring.ts';

const ring = keyring(randomBytes(32));
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
  assert.throws(() => keyring(randomBytes(32)).open(sealed, 'version/a/1'), sealedBroken);
  for (let at = 0; at < sealed.length; at++) {
    const changed = Buffer.from(sealed);
    changed[at] = (changed[at] ?? 0) ^ 1;
    assert.throws(() => ring.open(changed, 'version/a/1'), sealedBroken, `byte ${at}`);
    assert.throws(() => ring.open(sealed.subarray(0, at), 'version/a/1'), sealedBroken, `cut at ${at}`);
  }
});

test('the master key is made once, readable by its owner alone, and refused when others may read it', () => {
  const folder = mkdtempSync(join(tmpdir(), 'envcas-keyring-'));
  try {
    const path = join(folder, 'master.key');
    const sealed = openKeyring(path).seal(secret, 'here');
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.deepEqual(openKeyring(path).open(sealed, 'here'), secret);
    chmodSync(path, 0o640);
    assert.throws(() => openKeyring(path), { code: 'STATE_UNUSABLE' });
    writeFileSync(path, 'short');
    chmodSync(path, 0o600);
    assert.throws(() => openKeyring(path), { code: 'STATE_UNUSABLE' });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
