import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmodSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { keyring, makeMasterKeys } from '../../src/cas/keyring.ts';
import { type Given, openSlot, readShare, type Wanted } from '../../src/cas/seal/methods.ts';
import { createSeal, openSeal, readSeal, replaceSlots, type Seal } from '../../src/cas/seal/record.ts';
import { rotate } from '../../src/cas/seal/rotate.ts';
import { sealedColumns } from '../../src/cas/seal/sealed-rows.ts';
import { unsealBySelf } from '../../src/cas/seal/unseal.ts';
import type { Database } from '../../src/cas/store/database.ts';
import { eachRow } from '../../src/cas/store/dump.ts';
import { openDatabase } from '../../src/cas/store/open.ts';
import { openState, openStore } from '../../src/cas/store/sql.ts';
import { onEachEngine } from '../support/engines.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { skip as missingTpm, startTpm } from '../support/tpm.ts';

let folder: string;
beforeEach(() => {
  folder = temporaryFolder();
});

const refused = (detail: RegExp) => ({ code: 'UNSEAL_REFUSED', message: detail });

/** A store in memory that opens by some methods. */
async function sealed(...wanted: Wanted[]) {
  const database = await openDatabase('sqlite::memory:');
  const state = openState(database);
  const made = await createSeal(state, makeMasterKeys(), wanted);
  const seal = (await readSeal(state)) as Seal;
  const open = async (given: Given) => {
    const slot = seal.slots.find(({ method }) => method === given.method);
    assert.ok(slot);
    const rootKey = await openSlot(slot, given);
    assert.deepEqual(rootKey, made.rootKey);
    return openSeal(seal, rootKey);
  };
  return { database, state, seal, open, ...made };
}

test('a key file opens, and another does not', async () => {
  const key = randomBytes(32);
  const { open } = await sealed({ method: 'file', key });
  await open({ method: 'file', key });
  await assert.rejects(
    open({ method: 'file', key: randomBytes(32) }),
    refused(/the key file is another one/),
  );
});

test('a passphrase opens, however its characters are put together, and another does not', async () => {
  const { open } = await sealed({ method: 'passphrase', passphrase: Buffer.from('vier Kühe grüßen heute') });
  await open({ method: 'passphrase', passphrase: Buffer.from('vier Kühe grüßen heute'.normalize('NFD')) });
  await assert.rejects(
    open({ method: 'passphrase', passphrase: Buffer.from('vier Kühe grüßen heute ') }),
    refused(/the passphrase is another one/),
  );
  await assert.rejects(sealed({ method: 'passphrase', passphrase: Buffer.from('kurz') }), {
    code: 'PASSPHRASE_WEAK',
  });
});

test('any two of three shares open; one does not, nor do those with a mistake, or of another store', async () => {
  const { open, shares, seal } = await sealed({ method: 'shares', threshold: 2, total: 3 });
  const [a = '', b = '', c = ''] = shares;
  for (const pair of [
    [a, b],
    [c, a],
    [b, c],
    [a, b, c],
  ])
    await open({ method: 'shares', shares: pair });
  await assert.rejects(open({ method: 'shares', shares: [b] }), refused(/1 of the 2 shares/));
  const slot = seal.slots[0];
  assert.ok(slot);
  for (let at = 0; at < a.length; at++) {
    const typo = `${a.slice(0, at)}${a[at] === 'x' ? 'y' : 'x'}${a.slice(at + 1)}`;
    assert.throws(() => readShare(slot, typo), { code: 'SHARE_INVALID' }, typo);
  }
  const others = await sealed({ method: 'shares', threshold: 2, total: 3 });
  await assert.rejects(open({ method: 'shares', shares: [a, others.shares[1] ?? ''] }), {
    code: 'SHARE_INVALID',
    message: /another store/,
  });
});

test('a TPM opens until its registers are others, and no other TPM does', { skip: missingTpm }, async (t) => {
  const [tpm, other] = [await startTpm(), await startTpm()];
  t.after(() => Promise.all([tpm.stop(), other.stop()]));
  const at = ({ tcti }: { tcti: string }) => ({
    ...{ method: 'tpm' as const, directory: join(folder, 'tpm') },
    env: { ...process.env, TPM2TOOLS_TCTI: tcti },
  });
  const { open } = await sealed({ ...at(tpm), pcrs: 'sha256:7,8' });
  await open(at(tpm));
  await assert.rejects(open(at(other)), { code: 'TPM_UNUSABLE' });
  tpm.run('tpm2_pcrextend', `8:sha256=${'ab'.repeat(32)}`);
  await assert.rejects(open(at(tpm)), { code: 'TPM_REGISTERS_CHANGED', message: /registers sha256:7,8 / });
  await tpm.reboot();
  await open(at(tpm));
});

test('whatever is changed in the record is noticed', async () => {
  const key = randomBytes(32);
  const { database, state, seal, rootKey } = await sealed(
    { method: 'file', key },
    { method: 'shares', threshold: 2, total: 2 },
  );
  for (let at = 0; at < seal.bytes.length; at++) {
    const changed = Buffer.from(seal.bytes);
    changed[at] = (changed[at] ?? 0) ^ 1;
    await database.run("UPDATE state SET value = $1 WHERE name = 'seal'", changed);
    await assert.rejects(
      async () => {
        const its = await readSeal(state);
        assert.ok(its);
        openSeal(its, rootKey, seal);
      },
      { code: 'SEAL_DAMAGED' },
      `byte ${at}`,
    );
  }
});

test('new methods replace the old ones, which open nothing afterwards', async () => {
  const key = randomBytes(32);
  const { state, seal, rootKey } = await sealed({ method: 'file', key });
  const passphrase = Buffer.from('correct horse battery');
  const fresh = await replaceSlots(state, seal, rootKey, [{ method: 'passphrase', passphrase }]);
  const now = (await readSeal(state)) as Seal;
  const [slot] = now.slots;
  assert.ok(slot);
  assert.equal(now.slots.length, 1);
  assert.deepEqual(
    openSeal(now, await openSlot(slot, { method: 'passphrase', passphrase })),
    openSeal(seal, rootKey),
  );
  assert.throws(() => openSeal(now, rootKey), { code: 'SEAL_DAMAGED' });
  assert.throws(() => openSeal(now, rootKey, seal), { code: 'STORE_REKEYED' });
  await assert.rejects(replaceSlots(state, seal, rootKey, [{ method: 'file', key }]), {
    code: 'SEAL_CHANGED',
  });
  assert.notDeepEqual(fresh.rootKey, rootKey);
});

onEachEngine('a store', (engine) => {
  const opened: Database[] = [];
  const open = async (address: string) => {
    const database = await openDatabase(address);
    opened.push(database);
    return database;
  };
  afterEach(async () => {
    for (const each of opened.splice(0)) await each.close();
  });
  const means = (keyFile: string) => ({ keyFile, directory: folder, env: process.env });

  test('makes its key file once, for its owner alone, and opens by nothing else', async () => {
    const address = await engine.address();
    const path = join(folder, 'master.key');
    const [one, two] = await Promise.all(
      [await open(address), await open(address)].map((database) =>
        unsealBySelf(openState(database), means(path)),
      ),
    );
    assert.ok(one && two && 'rootKey' in one && 'rootKey' in two);
    assert.deepEqual(one.rootKey, two.rootKey);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    const database = await open(address);
    await assert.rejects(
      unsealBySelf(openState(database), means(join(folder, 'none'))),
      refused(/there is no key file/),
    );
    writeFileSync(join(folder, 'wrong'), randomBytes(32), { mode: 0o600 });
    await assert.rejects(
      unsealBySelf(openState(database), means(join(folder, 'wrong'))),
      refused(/another one/),
    );
    chmodSync(path, 0o640);
    await assert.rejects(unsealBySelf(openState(database), means(path)), {
      code: 'STATE_UNUSABLE',
      message: /must be 0600/,
    });
  });

  test('gets a new master key while it is used, and nothing is left under the old one', async () => {
    const database = await open(await engine.address());
    const state = openState(database);
    const { rootKey } = await createSeal(state, makeMasterKeys(), [{ method: 'file', key: randomBytes(32) }]);
    const opened = (await readSeal(state)) as Seal;
    const read = async () => openSeal((await readSeal(state)) as Seal, rootKey);
    const keys = keyring(await read());
    const store = openStore(database, keys.authenticate);
    for (let number = 1; number <= 600; number++) {
      const hash = Buffer.from([number >> 8, number]);
      const place = `version/s${number}/1/${hash.toString('hex')}`;
      const text = Buffer.from(`session ${number}`);
      await store.addVersion({
        ...{ session: `s${number}`, number: 1, hash },
        sealed: keys.seal(text, place),
        upload: keys.seal(text, `upload of ${place}`),
      });
    }
    await state.createState('identity', keys.seal(Buffer.from('identity'), 'state/identity'));
    const others = keyring(await read());
    const { present, rewrapped } = await rotate({
      ...{ database, rootKey, opened, keyring: keys },
      announce: async () => others.use(await read()),
    });
    assert.deepEqual([present, rewrapped], [2, 1201]);
    const onlyNew = keyring({ ...(await read()), masters: new Map([...(await read()).masters].slice(1)) });
    let values = 0;
    await eachRow(database, (table, row) => {
      for (const { column, place } of sealedColumns(table, row)) {
        assert.match(onlyNew.open(row[column] as Buffer, place).toString(), /^(session \d+|identity)$/);
        values++;
      }
    });
    assert.equal(values, 1201);
    assert.equal(String(others.open(keys.seal(Buffer.from('new'), 'here'), 'here')), 'new');
  });
});
