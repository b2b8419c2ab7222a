import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { reportData } from '../../src/attestation/report-data.ts';
import { type MeasuredProcess, signSoftwareEvidence } from '../../src/attestation/software.ts';
import {
  listRegistrations,
  register,
  releaseRootKey,
  startUpgrade,
  unregister,
} from '../../src/cas/owner/registrations.ts';
import { bareCas, testLas } from '../support/cas.ts';

const las = testLas();
const measurement = 'ab'.repeat(32);
const facts = { name: 'other', root: 'software', platform: las.platform, debug: true } as const;
const its = { ...facts, measurement, weaknesses: [], advisories: [] };
const ids = (id: number) => ({ real: id, effective: id, saved: id });

/** A CAS, and another one that asks it for the root key. */
function twoCases() {
  const bare = bareCas();
  const rootKey = randomBytes(32);
  const ask = async (uid: number | undefined, more: Partial<MeasuredProcess> = {}) => {
    const channel = randomBytes(32);
    const data = reportData({ role: 'backup', channel, casKey: bare.cas.key, configId: '' });
    const credentials = uid === undefined ? {} : { credentials: { uid: ids(uid), gid: ids(uid) } };
    const process = { measurement, pid: 1, uid: 1, gid: 1, id: 'cd'.repeat(32), properties: [] };
    const evidence = await signSoftwareEvidence({ ...process, ...credentials, ...more }, data, las, bare.now);
    return releaseRootKey(bare.cas, rootKey, { evidence }, channel);
  };
  /** Writes the list as a version before did, which knew no `runAs`. */
  const writeBefore = (registrations: object[]) => {
    const text = JSON.stringify({ registrations, upgrading: false });
    return bare.cas.store.createState(
      'registrations',
      bare.cas.keyring.seal(Buffer.from(text), 'state/registrations'),
    );
  };
  return { bare, rootKey, ask, writeBefore };
}
const created = { created: 0 };

test('the root key is given to a CAS that runs as it was registered', async () => {
  const { bare, rootKey, ask } = twoCases();
  await assert.rejects(ask(7), { code: 'NOT_REGISTERED' });
  await register(bare.cas, { ...its, kind: 'backup', runAs: ['uid:7', 'user:cas'] }, 'owner');
  assert.equal(await ask(7), rootKey);
  await assert.rejects(ask(8), { code: 'RUN_AS_UNEXPECTED' });
  await assert.rejects(ask(undefined), { code: 'RUN_AS_UNEXPECTED' });
  await assert.rejects(ask(7, { measurement: 'cd'.repeat(32) }), { code: 'NOT_REGISTERED' });
  // Another one for another user stands beside it.
  await register(bare.cas, { ...its, kind: 'backup', runAs: ['uid:8'] }, 'owner');
  assert.equal(await ask(8), rootKey);
  const lines = (await bare.cas.audit.lines(1, 100)).map(String).join('\n');
  assert.match(lines, /"code":"RUN_AS_UNEXPECTED".*"uid":\{"real":8,/);
});

test('a registration of before gives nothing until it is renewed, and can be removed', async () => {
  const { bare, rootKey, ask, writeBefore } = twoCases();
  await writeBefore([{ ...its, kind: 'backup', id: '0a0a0a0a', ...created }]);
  await assert.rejects(ask(7), {
    code: 'REGISTRATION_OUTDATED',
    message: /registration 0a0a0a0a does not say/,
  });
  await register(bare.cas, { ...its, kind: 'backup', runAs: ['uid:7'] }, 'owner');
  assert.equal(await ask(7), rootKey);
  const all = await listRegistrations(bare.cas);
  assert.deepEqual(
    all.map(({ runAs }) => runAs),
    [undefined, ['uid:7']],
  );
  for (const { id } of all) await unregister(bare.cas, id, 'owner');
  assert.deepEqual(await listRegistrations(bare.cas), []);
  await assert.rejects(unregister(bare.cas, '0a0a0a0a', 'owner'), { code: 'REGISTRATION_NOT_FOUND' });
});

test('an upgrade begins for versions before as well, which read their own list', async () => {
  const { bare, ask, rootKey, writeBefore } = twoCases();
  await writeBefore([{ ...its, kind: 'upgrade', id: '0a0a0a0a', ...created }]);
  await assert.rejects(startUpgrade(bare.cas, 'owner'), { code: 'UPGRADE_NOT_REGISTERED' });
  await register(bare.cas, { ...its, kind: 'backup', runAs: ['uid:7'] }, 'owner');
  await register(bare.cas, { ...its, kind: 'upgrade', runAs: ['uid:8'] }, 'owner');
  await startUpgrade(bare.cas, 'owner');
  await assert.rejects(ask(7), { code: 'RUN_AS_UNEXPECTED' });
  assert.equal(await ask(8), rootKey);
  const before = await bare.cas.store.readState('registrations');
  assert.ok(before);
  const { upgrading, registrations } = JSON.parse(
    bare.cas.keyring.open(before, 'state/registrations').toString(),
  );
  assert.equal(upgrading, true);
  assert.deepEqual(registrations, [{ ...its, kind: 'upgrade', id: '0a0a0a0a', ...created }]);
});
