import assert from 'node:assert/strict';
import { test } from 'node:test';
import { appraise } from '../../src/attestation/appraise.ts';
import { intelClaims } from '../../src/attestation/hardware.ts';
import { verifyIntelQuote } from '../../src/attestation/intel/verify.ts';
import * as intel from '../attestation/intel/synthetic.ts';

test('whoever operates a machine and may move a domain elsewhere has it refused, where no policy tolerates it', () => {
  const maker = intel.maker();
  const launcher = 'ab'.repeat(32);
  const codes = (domain: intel.DomainOptions, tolerate: string[] = []) => {
    const quote = intel.quote({
      ...{ tee: 'tdx', body: intel.domainReport(domain), pck: intel.pck(maker) },
      ...{ chain: [maker.platformCa, maker.root], ...(domain.kind === '1.5' && { version: 5 }) },
    });
    const collateral = intel.collateral({ by: maker, tee: 'TDX' });
    const verdict = verifyIntelQuote(quote, collateral, intel.at, maker.roots);
    const variant = {
      measurements: [launcher],
      machines: { tdx: { values: { mrtd: [intel.domainValues.mrtd] } } },
    };
    const refusals = appraise(
      {
        ...{ mode: 'hardware', tolerate, require: [], ignoreAdvisories: [], variants: [variant] },
        ...{ platforms: [], trustedPlatforms: [] },
      },
      { ...intelClaims(verdict, 'tdx'), measurement: launcher },
    );
    return refusals.map(({ code }) => code);
  };
  assert.deepEqual(codes({}), []);
  for (const domain of [
    // MIGRATABLE, and a domain that moves others.
    { tdattributes: '0000002000000000' },
    { kind: '1.5', mrservicetd: '77'.repeat(48) },
  ] as const) {
    assert.ok(codes(domain).includes('WEAKNESS_NOT_TOLERATED'));
    assert.deepEqual(codes(domain, ['insecure-configuration']), []);
  }
});
