import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { tsmReport } from '../../src/las/tsm.ts';
import { type TsmFaults, tsmTree } from '../support/tsm.ts';

const data = randomBytes(64);
const quote = (request: Buffer) => Buffer.concat([Buffer.from('a quote over '), request]);
const reports = '/sys/kernel/config/tsm/report';

test('a TDX guest is given a quote over the data, by one request in a folder of its own', async () => {
  const tree = tsmTree('tdx_guest', quote);
  const report = await tsmReport(data, reports, tree);
  assert.deepEqual(report, { provider: 'tdx_guest', outblob: quote(data), auxblob: Buffer.alloc(0) });
  assert.deepEqual(tree.requests, [data]);
  assert.deepEqual(tree.folders(), []);
});

test('an SEV-SNP guest is given a report, and the certificates of its host', async () => {
  const certificates = randomBytes(100);
  const tree = tsmTree('sev_guest', quote, {}, { auxblob: certificates });
  const report = await tsmReport(data, reports, tree);
  assert.deepEqual(report, { provider: 'sev_guest', outblob: quote(data), auxblob: certificates });
});

test('a guest under a paravisor asks for the level it has', async () => {
  const tree = tsmTree(
    'sev_guest',
    (request, level) => Buffer.concat([Buffer.from([level]), request]),
    {},
    { floor: 2 },
  );
  assert.equal((await tsmReport(data, reports, tree)).outblob[0], 2);
});

test('a quote of the largest size is read whole', async () => {
  const large = randomBytes(32 * 1024);
  const tree = tsmTree('tdx_guest', () => large);
  assert.deepEqual((await tsmReport(data, reports, tree)).outblob, large);
});

test('requests at the same time do not disturb each other', async () => {
  const tree = tsmTree('tdx_guest', quote);
  const all = Array.from({ length: 20 }, () => randomBytes(64));
  const answers = await Promise.all(all.map((each) => tsmReport(each, reports, tree)));
  assert.deepEqual(
    answers.map(({ outblob }) => outblob),
    all.map(quote),
  );
  assert.deepEqual(tree.folders(), []);
});

test('a request that somebody has changed is made again', async () => {
  const tree = tsmTree('tdx_guest', quote, { interference: 2 });
  assert.deepEqual((await tsmReport(data, reports, tree)).outblob, quote(data));
});

for (const [what, faults] of [
  ['that fails when it is handed over', { failsOnClose: true }],
  ['that gets lost', { losesWrites: true }],
  ['that others change again and again', { interference: 3 }],
  ["that somebody's own is put in the place of", { replaces: randomBytes(64) }],
] satisfies [string, TsmFaults][])
  test(`a request ${what} gives no Evidence, and leaves nothing behind`, async () => {
    const tree = tsmTree('tdx_guest', quote, faults);
    await assert.rejects(tsmReport(data, reports, tree), { code: 'HARDWARE_UNUSABLE' });
    assert.deepEqual(tree.folders(), []);
  });
