import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { expectedMachines } from '../../src/policy/machines.ts';
import { machines } from '../../src/policy/schema/services.ts';
import { parseSession } from '../../src/policy/session.ts';
import { problemsOf } from './support.ts';

/** Machines that a variant of a service's attestation names. */

const digest = (character: string, digits = 96) => character.repeat(digits);
const session = (variant: string, attestation = '') =>
  [
    'name: s',
    'version: "0.3.12"',
    `security: {attestation: {${attestation}}}`,
    'services:',
    '  - name: a',
    `    attestation: {mrenclave: ${digest('a', 64)}, ${variant}}`,
  ].join('\n');

const mrtd = `mrtd: ${digest('B')}`;
const measurement = `measurement: ${digest('c')}`;
const register = digest('d', 64);

for (const [what, variant] of [
  ['a TDX machine', `tdx: {${mrtd}, rtmr1: [${digest('1')}, ${digest('2')}], rtmr3: ${digest('3')}}`],
  [
    'a guest of SEV-SNP',
    `sev_snp: {${measurement}, vmpl: 2, products: [Genoa], minimum_tcb: {snp: 23, fmc: "1"}}`,
  ],
  ['a host with a TPM', `tpm: {pcrs: {0: ${register}, 11: [${register}, ${register}]}}`],
  [
    'all of them',
    `tdx: {${mrtd}, rtmr2: ${digest('1')}}, sev_snp: {${measurement}}, tpm: {pcrs: {4: ${register}}}`,
  ],
  ['a secret in the place of one', 'tdx: {mrtd: $$SCONE::m$$, rtmr1: [$$SCONE::m$$]}'],
] as const)
  test(`${what} can be named`, () => {
    const text = `${session(variant)}\nsecrets: [{name: m, kind: ascii, value: ${digest('e')}}]`;
    assert.deepEqual(parseSession(text).warnings, []);
  });

for (const [variant, problem] of [
  ['tdx: {}', /expected mrtd/],
  [`tdx: {rtmr1: ${digest('1')}}`, /expected mrtd/],
  [`tdx: {mrtd: ${digest('1', 64)}}`, /expected 96 hexadecimal digits/],
  [`tdx: {${mrtd}, rtmr4: ${digest('1')}}`, /unknown key "rtmr4"/],
  ['sev_snp: {vmpl: 0}', /expected measurement/],
  [`sev_snp: {${measurement}, vmpl: 4}`, /from 0 to 3/],
  [`sev_snp: {${measurement}, products: [Naples]}`, /expected one of Milan, Genoa, Turin/],
  [`sev_snp: {${measurement}, minimum_tcb: {snp: 256}}`, /from 0 to 255/],
  ['tpm: {pcrs: {}}', /expected a register/],
  ['tpm: {}', /"pcrs" is missing/],
  [`tpm: {pcrs: {24: ${register}}}`, /number of a register/],
  [`tpm: {pcrs: {7: ${digest('d', 40)}}}`, /expected 64 hexadecimal digits/],
] as const)
  test(`${variant.slice(0, 40)} is told with what is wrong: ${problem.source}`, () => {
    assert.match(problemsOf(() => parseSession(session(variant))).join('\n'), problem);
  });

test('a machine alone is no launcher', () => {
  const text = session('').replace(/attestation: \{mrenclave: \w+, \}/, `attestation: {tdx: {${mrtd}}}`);
  assert.match(problemsOf(() => parseSession(text)).join('\n'), /expected mrenclave or signer/);
});

test('what leaves the kernel open is warned of', () => {
  const warning = (variant: string) => parseSession(session(variant)).warnings.map(({ message }) => message);
  assert.match(warning(`tdx: {${mrtd}}`).join(), /neither rtmr1 nor rtmr2: any kernel/);
  assert.match(warning(`tpm: {pcrs: {0: ${register}, 7: ${register}}}`).join(), /any kernel/);
});

test('how old a quote may be is a duration', () => {
  for (const age of ['10m', '1 day', '30s']) parseSession(session('', `max_quote_age: ${age}`));
  for (const age of ['0', 'soon', '2 days'])
    assert.match(
      problemsOf(() => parseSession(session('', `max_quote_age: ${age}`))).join(),
      /expected a duration/,
    );
});

test('platforms are LAS keys, or what hardware is known by', () => {
  const platforms = (text: string) =>
    session('').replace('    attestation:', `    platforms: [${text}]\n    attestation:`);
  for (const good of [
    digest('A', 64),
    `"INTEL_QE_ID:${digest('1', 32)}"`,
    `"AMD_CHIP_ID:${digest('1', 128)}"`,
    `"TPM_EK:${digest('1', 64)}"`,
  ])
    parseSession(platforms(good));
  for (const bad of ['"TPM_EK:12"', `"INTEL_QE_ID:${digest('1', 64)}"`, '"CHIP:12"'])
    assert.match(problemsOf(() => parseSession(platforms(bad))).join(), /expected the 64 hexadecimal digits/);
});

test('what is not said of a guest is expected to be as usual', () => {
  const expected = (section: object) => expectedMachines(v.parse(machines, section)).machines;
  assert.deepEqual(expected({ sev_snp: { measurement: digest('C') } }), {
    sev_snp: { values: { measurement: [digest('c')], vmpl: ['0'] } },
  });
  assert.deepEqual(expected({ tpm: { pcrs: { 7: register } } }), { tpm: { values: { pcr7: [register] } } });
  assert.equal(expected({}), undefined);
});
