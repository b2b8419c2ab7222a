import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { fields } from '../../src/cli/evidence/fields.ts';
import { showEvidenceFile } from '../../src/cli/evidence/show.ts';
import { type VerifyOptions, verifyEvidenceFile } from '../../src/cli/evidence/verify.ts';
import { timeOption } from '../../src/cli/options.ts';
import { maker, report, vcek } from '../attestation/amd/synthetic.ts';
import { temporaryFolder } from '../support/leave-nothing.ts';
import { folder as quotes, recorded, skip } from '../support/quotes.ts';
import { executables, run } from '../support/stack.ts';

/** What `scone evidence` says of Evidence in files. */

let folder: string;
before(() => {
  folder = temporaryFolder();
});

function file(name: string, content: string | Buffer): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

const recordedFile = (name: string) => join(quotes, name);

/** Text and JSON of the verdict on a recorded file. */
function verify(name: string, at: string, collateral: string[], more: VerifyOptions = {}) {
  const output = verifyEvidenceFile(recordedFile(name), {
    at: Date.parse(at),
    collateral: collateral.map(recordedFile),
    ...more,
  });
  assert.ok(typeof output !== 'string');
  const json = output.json as Record<string, unknown>;
  return { text: output.text, head: output.text.split('\n\n')[0] ?? '', json };
}

test('the verdict on a quote of SGX comes first, with what a policy would have to say', { skip }, () => {
  const { head, json } = verify('sgx/h-swhardening.quote', '2025-09-01T00:00:00Z', ['intel-2025-08']);
  assert.match(
    head,
    /^Verdict: SWHardeningNeeded\nPlatform level: SWHardeningNeeded since 2024-03-13, INTEL-SA-00615\n/,
  );
  assert.match(head, /^Quoting enclave level: UpToDate since /m);
  assert.match(head, /^In a policy, tolerate: \[software-hardening-needed\]$/m);
  assert.match(head, /^In a policy, ignore_advisories: \[INTEL-SA-00615\]$/m);
  assert.match(head, /^Revocation: checked$/m);
  assert.match(head, /^As of: 2025-09-01T00:00:00Z$/m);
  assert.match(head, /^Collateral is good until: 2025-09-14T04:36:46Z$/m);
  assert.doesNotMatch(head, /Debug/);
  assert.deepEqual(
    [json.verified, json.verdict, json.isRevocationChecked],
    [true, 'SWHardeningNeeded', true],
  );
  assert.deepEqual(json.policy, {
    tolerate: ['software-hardening-needed'],
    ignore_advisories: ['INTEL-SA-00615'],
  });
});

test('that a trust domain can be looked into is said plainly', { skip }, () => {
  const { head } = verify('tdx/f-debug-v4.quote', '2026-04-01', ['intel-2026-03']);
  assert.match(head, /^Verdict: OutOfDate$/m);
  assert.match(head, /^Debug: YES: /m);
  assert.match(head, /^In a policy, tolerate: \[debug-mode, outdated-tcb, hyperthreading\]$/m);
  assert.match(head, /^In a policy, the machine: tdx: \{mrtd: "705ee938/m);
});

test('a module of TDX has a verdict of its own, and a bundle is collateral', { skip }, () => {
  const bundle = ['tdx/b-uptodate-v4.collateral.json'];
  const { head } = verify('tdx/b-uptodate-v4.quote', '2025-07-01T00:00Z', bundle);
  assert.match(head, /^Verdict: UpToDate$/m);
  assert.match(head, /^Module TDX_01 level: UpToDate since /m);
  assert.doesNotMatch(head, /ignore_advisories/);
});

test('of a report of SEV-SNP it is said that no list was looked at', { skip }, () => {
  for (const [name, at, from] of [
    ['genoa_attestation_report.bin', '2026-06-01', 'AMD_CHIP_ID:b1e24a27'],
    ['vlek-milan-report.bin', '2025-06-01', 'AMD_PROVIDER:CN=cc-us-east-2.amazonaws.com'],
  ] as const) {
    // The reports themselves are in the folder, too.
    const { head, json } = verify(`snp/${name}`, at, ['snp']);
    assert.match(head, /^Verdict: genuine$/m);
    assert.match(head, /^Revocation: NOT CHECKED: the revocation list of ARK-/m);
    assert.match(head, new RegExp(`^Platform: ${from}`, 'm'));
    assert.match(head, /^In a policy, the machine: sev_snp: .*minimum_tcb: \{bootloader: /m);
    assert.equal(json.isRevocationChecked, false);
  }
});

test("a TPM's quote is verified with its files, or from one file", { skip }, () => {
  const { head, text } = verify('tpm/rsa-evidence.json', '2026-01-01', []);
  assert.match(head, /^Verdict: signed by the given key$/m);
  assert.match(head, /^Registers: those that were given are those that were signed$/m);
  assert.match(text, /^ {2}17: f{64}$/m);
  const files = {
    signature: recordedFile('tpm/keylime-quotesig.out'),
    key: recordedFile('tpm/keylime-akpub.pem'),
  };
  assert.match(
    verify('tpm/keylime-quote.out', '2026-01-01', [], files).head,
    /^Registers: none were given$/m,
  );
  const { signature } = files;
  assert.throws(() => verify('tpm/keylime-quote.out', '2026-01-01', [], { signature }), { code: 'USAGE' });
  const other = { signature, key: file('other.pem', maker('Milan').ark.pem) };
  assert.throws(() => verify('tpm/keylime-quote.out', '2026-01-01', [], other), { code: 'EVIDENCE_INVALID' });
});

test('what does not verify has an error of its own, and collateral is refused by its file', { skip }, () => {
  const quote = 'sgx/h-swhardening.quote';
  const at = '2025-09-01';
  assert.throws(() => verify(quote, at, []), { code: 'COLLATERAL_MISSING' });
  assert.throws(() => verify(quote, '2025-10-01', ['intel-2025-08']), { code: 'COLLATERAL_INVALID' });
  assert.throws(() => verify(quote, at, ['intel-2025-08', 'no-such-folder']), {
    code: 'FILE_INVALID',
    message: /no-such-folder: no such file or directory/,
  });
  const list = recorded('intel-2025-08/platform_crl.der');
  mkdirSync(join(folder, 'garbled'));
  const garbled = file('garbled/list.der', list.subarray(0, -1));
  assert.throws(
    () =>
      verifyEvidenceFile(recordedFile(quote), { at: Date.parse(at), collateral: [join(folder, 'garbled')] }),
    {
      code: 'COLLATERAL_INVALID',
      message: new RegExp(garbled),
    },
  );
});

test('a time is one of ISO 8601, in UTC', () => {
  const read = (text: string) => timeOption('--at <time>').parseArg?.(text, undefined);
  for (const text of ['yesterday', '2026-13-01', '2026-04-01 00:00', '2026-04-01T00:00:00+02:00', ''])
    assert.throws(() => read(text), { code: 'commander.invalidArgument' }, text);
  for (const text of ['2026-04-01', '2026-04-01T00:00Z', '2026-04-01T00:00:00Z'])
    assert.equal(read(text), Date.parse('2026-04-01T00:00:00Z'), text);
});

test('Evidence is shown field by field, and that nothing was verified', () => {
  const key = vcek(maker('Turin')).key;
  const bytes = report('Turin', key);
  bytes.fill(0, 0x2a0);
  const shown = showEvidenceFile(file('unsigned.bin', bytes));
  assert.ok(typeof shown !== 'string');
  assert.match(shown.text, /^AMD SEV-SNP attestation report\. Nothing was verified: /);
  assert.match(shown.text, /\nreportedTcb:\n {2}fmc: 1\n {2}bootloader: 4\n/);
  assert.match(shown.text, /\nmeasurement: (14){48}\n/);
  const { kind, verified, product } = shown.json as Record<string, unknown>;
  assert.deepEqual([kind, verified, product], ['sev-snp', false, 'Turin']);
});

test('every recorded quote and report is shown', { skip }, () => {
  const expected: [file: string, what: RegExp][] = [
    ['sgx/a-config-and-swhardening.quote', /^Intel quote\..*\n.*\n {2}mrenclave: [0-9a-f]{64}\n.*fmspc: /s],
    ['tdx/d-uptodate-v5.quote', /\n {2}mrtd: [0-9a-f]{96}\n.*\n {2}- name: Intel SGX PCK Certificate\n/s],
    ['snp/vlek-milan-report.bin', /\nsigningKey: VLEK\n/],
    ['tpm/rsa-evidence.json', /^TPM quote\..*\nresetCount: 2\n.*\n {2}0: 0{64}\n/s],
    ['tpm/keylime-quote.out', /\n {2}- hashAlgorithm: 11\n {4}registers: 15, 16, 22\n/],
  ];
  for (const [name, what] of expected) {
    const shown = showEvidenceFile(recordedFile(name));
    assert.ok(typeof shown !== 'string');
    assert.match(shown.text, what, name);
    assert.doesNotThrow(() => JSON.stringify(shown.json));
  }
});

test('what is no Evidence is refused', () => {
  const bad: [content: string | Buffer, what: RegExp][] = [
    ['', /it is no quote/],
    ['hello, world', /it is no quote/],
    [Buffer.alloc(2000), /it is no quote/],
    [Buffer.alloc(1184), /has version 0/],
    ['{"tpm_quote": 1}', /it is not Evidence/],
    [Buffer.from('HCLA'), /ends early/],
    [Buffer.from('ff5443478018', 'hex'), /ends early/],
    [Buffer.from('03000200000000', 'hex'), /./],
    [Buffer.alloc(300_000), /more than/],
  ];
  for (const [content, message] of bad)
    assert.throws(() => showEvidenceFile(file('bad', content)), { code: 'FILE_INVALID', message });
});

test('what comes from Evidence cannot move the cursor', () => {
  const shown = fields({
    'na\x1b[2Jme': 'a\nb\x1b]0;title\x07',
    list: ['\x9b', { deep: '\u202e' }],
    when: undefined,
  });
  assert.doesNotMatch(shown, /[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]/);
  assert.equal(shown.split('\n').length, 5);
});

test('times, truths and lists are readable', () => {
  const value = { validUntil: 0, yes: true, no: false, none: [], some: [1, 2], deep: { deeper: { x: 1 } } };
  assert.equal(
    fields(value),
    'validUntil: 1970-01-01T00:00:00Z\nyes: yes\nno: no\nnone: none\nsome: 1, 2\ndeep:\n  deeper:\n    x: 1\n',
  );
});

test('the command exits with 0 for what is genuine, and with its error otherwise', { skip }, () => {
  const scone = (...args: string[]) => run(executables().scone, ['evidence', ...args], { HOME: folder });
  const quote = recordedFile('tdx/f-debug-v4.quote');
  const collateral = ['--collateral', recordedFile('intel-2026-03')];
  const good = scone('verify', quote, ...collateral, '--at', '2026-04-01T00:00:00Z');
  assert.deepEqual([good.status, good.stderr], [0, '']);
  assert.match(good.stdout, /^Verdict: OutOfDate\n/);
  const parsed: Record<string, unknown> = JSON.parse(scone('show', quote, '--json').stdout);
  assert.deepEqual([parsed.kind, parsed.verified], ['intel', false]);
  const late = scone('verify', quote, ...collateral);
  assert.equal(late.status, 77);
  assert.match(late.stderr, /Code: COLLATERAL_INVALID, exit status 77/);
  assert.equal(scone('verify', quote, '--at', 'noon').status, 64);
  assert.equal(scone('show', folder).status, 65);
});
