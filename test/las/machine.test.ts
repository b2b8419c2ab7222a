import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, test } from 'node:test';
import { machineReportData } from '../../src/attestation/report-data.ts';
import { openMachine } from '../../src/las/machine.ts';
import type { Mode } from '../../src/platform/mode.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { type TsmTree, tsmTree } from '../support/tsm.ts';

/** The machine of a LAS: which hardware vouches for it, and how often that is asked. */

const directory = temporaryFolder();
const reports = join(directory, 'report');
mkdirSync(reports);

let warnings: string[];
beforeEach(() => {
  warnings = [];
});
const log = {
  info() {},
  warn: (fields: object, message: string) => void warnings.push(message + JSON.stringify(fields)),
};
const quote = (data: Buffer) => Buffer.concat([Buffer.from('over '), data]);
const open = (mode: Mode, files: TsmTree | undefined, folder = reports) =>
  openMachine({ mode, directory, env: {}, log, reports: folder, ...(files && { files }) });

test('a quote is over the key of the LAS, which is another each time, and the nonce of a CAS', async () => {
  const tree = tsmTree('tdx_guest', quote);
  const machine = await open('auto', tree);
  assert.ok(machine);
  const other = await open('auto', tree);
  assert.notEqual(machine.key.platform, other?.key.platform);
  const nonce = randomBytes(38);
  const shown = await machine.evidence(nonce);
  assert.deepEqual(shown, {
    type: 'tdx',
    quote: quote(machineReportData(machine.key.platform, nonce)).toString('base64'),
    nonce: nonce.toString('base64'),
  });
});

test('the hardware is asked at the start, and once for each nonce that is new', async () => {
  const tree = tsmTree('sev_guest', quote, {}, { auxblob: Buffer.from('table') });
  const machine = await open('hw', tree);
  assert.equal(machine?.root, 'sev-snp');
  const asked = () => tree.requests.length;
  assert.equal(asked(), 1);
  const first = await machine?.evidence(undefined);
  assert.equal(asked(), 1);
  assert.deepEqual(
    first && 'certificates' in first && first.certificates,
    Buffer.from('table').toString('base64'),
  );
  const nonce = randomBytes(38);
  const all = await Promise.all(Array.from({ length: 20 }, () => machine?.evidence(nonce)));
  assert.equal(asked(), 2);
  for (const each of all) assert.deepEqual(each, all[0]);
  await machine?.evidence(undefined);
  assert.equal(asked(), 2);
  await machine?.evidence(randomBytes(38));
  assert.equal(asked(), 3);
});

test('a request that fails does not keep those after it from succeeding', async () => {
  const faults = { failsOnClose: false };
  const machine = await open('hw', tsmTree('tdx_guest', quote, faults));
  faults.failsOnClose = true;
  await assert.rejects(machine?.evidence(randomBytes(38)) ?? assert.fail(), { code: 'HARDWARE_UNUSABLE' });
  faults.failsOnClose = false;
  assert.ok(await machine?.evidence(randomBytes(38)));
});

test('hw never goes without hardware, sim never with it, and auto takes what there is', async () => {
  const broken = () => tsmTree('tdx_guest', quote, { losesWrites: true });
  const nowhere = join(directory, 'nowhere');
  await assert.rejects(open('hw', undefined, nowhere), { code: 'HARDWARE_MISSING' });
  await assert.rejects(open('hw', broken()), { code: 'HARDWARE_UNUSABLE' });
  assert.equal(await open('auto', undefined, nowhere), undefined);
  assert.deepEqual(warnings, []);
  assert.equal(await open('auto', broken()), undefined);
  assert.match(warnings.join(), /software alone vouches.*EINVAL/);
  const tree = tsmTree('tdx_guest', quote);
  assert.equal(await open('sim', tree), undefined);
  assert.equal(tree.requests.length, 0);
});

test('a driver that nobody knows is told', async () => {
  const tree = tsmTree('arm_cca_guest' as 'tdx_guest', quote);
  await assert.rejects(open('hw', tree), /arm_cca_guest/);
});
