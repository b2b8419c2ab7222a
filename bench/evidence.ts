import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { verifySnpReport } from '../src/attestation/amd/verify.ts';
import { type Collateral, parseCollateral } from '../src/attestation/collateral.ts';
import { verifyIntelQuote } from '../src/attestation/intel/verify.ts';
import { verifyTpmQuote } from '../src/attestation/tpm/verify.ts';
import { otherCollateral, otherVerdict } from '../test/attestation/intel/second-opinion.ts';
import * as synthetic from '../test/attestation/intel/synthetic.ts';
import { quote as tpmQuote } from '../test/attestation/tpm/synthetic.ts';
import { folder } from '../test/support/quotes.ts';
import { medianRatio, milliseconds, printTable, quantile } from './measure.ts';

const ROUNDS = 500;
const WARM_UP = 50;

/** Something to verify, and another verifier of the same where there is one. */
interface Row {
  name: string;
  ours: () => unknown;
  other?: () => unknown;
}

/** One verification of each kind of Evidence, its collateral at hand and parsed, beside another verifier's. */
export async function evidence(): Promise<void> {
  const rows = [...(existsSync(folder) ? recordedRows() : syntheticRows()), tpmRow()];
  const took = rows.map(() => ({ ours: [] as number[], other: [] as number[] }));
  const time = (work: () => unknown) => {
    const before = performance.now();
    work();
    return performance.now() - before;
  };
  for (let round = -WARM_UP; round < ROUNDS; round++)
    for (const [index, { ours, other }] of rows.entries()) {
      const own = time(ours);
      const theirs = other && time(other);
      if (round < 0) continue;
      took[index]?.ours.push(own);
      if (theirs !== undefined) took[index]?.other.push(theirs);
    }
  printTable(
    `one verification, collateral warm, ${ROUNDS} rounds in turn${existsSync(folder) ? '' : '; no recorded Evidence is here, so of a test’s own makers'}`,
    ['what', 'median', 'p90', '@phala/dcap-qvl on the same', 'it as a multiple of ours (median of pairs)'],
    rows.map(({ name, other }, index) => {
      const { ours = [], other: theirs = [] } = took[index] ?? {};
      return [
        name,
        milliseconds(quantile(ours, 0.5)),
        milliseconds(quantile(ours, 0.9)),
        other ? milliseconds(quantile(theirs, 0.5)) : '–',
        other ? medianRatio(theirs, ours).toFixed(1) : '–',
      ];
    }),
  );
}

const read = (name: string) => readFileSync(join(folder, name));

function collateralIn(path: string): Collateral {
  const names = path.endsWith('.json')
    ? [path]
    : readdirSync(join(folder, path)).map((name) => join(path, name));
  return parseCollateral(names.map((name) => ({ name, bytes: read(name) })));
}

function recordedRows(): Row[] {
  const intel = (name: string, file: string, path: string, date: string): Row => {
    const [bytes, bag, at] = [read(file), collateralIn(path), Date.parse(date)];
    const theirs = otherCollateral(bytes, bag);
    return {
      name,
      ours: () => verifyIntelQuote(bytes, bag, at),
      other: () => otherVerdict(bytes, theirs, at),
    };
  };
  const report = read('snp/milan_attestation_report.bin');
  const chain = collateralIn('snp');
  const at = Date.parse('2026-06-01');
  return [
    intel('SGX quote, version 3', 'sgx/h-swhardening.quote', 'intel-2025-08', '2025-09-01'),
    intel(
      'TDX quote, version 4',
      'tdx/b-uptodate-v4.quote',
      'tdx/b-uptodate-v4.collateral.json',
      '2025-07-01',
    ),
    intel('TDX quote, version 5', 'tdx/d-uptodate-v5.quote', 'intel-2026-03', '2026-04-01'),
    { name: 'SEV-SNP report', ours: () => verifySnpReport(report, chain, at) },
  ];
}

function syntheticRows(): Row[] {
  const by = synthetic.maker();
  const pck = synthetic.pck(by);
  const chain = [by.platformCa, by.root];
  const row = (name: string, tee: 'sgx' | 'tdx', body: Buffer, version: 3 | 4 | 5): Row => {
    const bytes = synthetic.quote({ tee, body, pck, chain, version });
    const bag = synthetic.collateral({ by, tee: tee === 'sgx' ? 'SGX' : 'TDX' });
    return { name, ours: () => verifyIntelQuote(bytes, bag, synthetic.at, by.roots) };
  };
  return [
    row('SGX quote, version 3', 'sgx', synthetic.enclaveReport({ reportData: Buffer.alloc(64) }), 3),
    row('TDX quote, version 4', 'tdx', synthetic.domainReport(), 4),
    row('TDX quote, version 5', 'tdx', synthetic.domainReport({ kind: '1.5' }), 5),
  ];
}

function tpmRow(): Row {
  const quote = tpmQuote();
  return { name: 'TPM quote', ours: () => verifyTpmQuote(quote) };
}
