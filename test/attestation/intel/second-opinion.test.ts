import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseCollateral } from '../../../src/attestation/collateral.ts';
import { verifyIntelQuote } from '../../../src/attestation/intel/verify.ts';
import { folder, recorded, skip } from '../../support/quotes.ts';
import { otherCollateral, otherVerdict } from './second-opinion.ts';

/** What another verifier of DCAP says of the same quotes, with the same collateral, at the same time. */

const samples = [
  ['sgx/a-config-and-swhardening.quote', 'sgx/a-config-and-swhardening.collateral.json', '2025-07-01'],
  ['sgx/h-swhardening.quote', 'intel-2025-08', '2025-09-01'],
  ['tdx/b-uptodate-v4.quote', 'tdx/b-uptodate-v4.collateral.json', '2025-07-01'],
  ['tdx/d-uptodate-v5.quote', 'intel-2026-03', '2026-04-01'],
  ['tdx/f-debug-v4.quote', 'intel-2026-03', '2026-04-01'],
] as const;

/** Why it may say something else. */
const reasons: Readonly<Record<string, RegExp>> = {
  // It refuses every domain in debug mode; here that is for a policy to decide.
  'tdx/f-debug-v4.quote': /debug/i,
};

for (const [file, path, date] of samples)
  test(`${file}: both verifiers agree${reasons[file] ? ', or it is known why not' : ''}`, { skip }, () => {
    const at = Date.parse(date);
    const names = path.endsWith('.json')
      ? [path]
      : readdirSync(join(folder, path)).map((name) => join(path, name));
    const bag = parseCollateral(names.map((name) => ({ name, bytes: recorded(name) })));
    const bytes = recorded(file);
    const { status, advisories } = verifyIntelQuote(bytes, bag, at);
    const other = () => otherVerdict(bytes, otherCollateral(bytes, bag), at);
    const known = reasons[file];
    if (known) return assert.throws(other, known);
    assert.deepEqual(other(), { status, advisories });
  });
