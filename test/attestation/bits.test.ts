import assert from 'node:assert/strict';
import { createHash, createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { test } from 'node:test';
import { verifySnpReport } from '../../src/attestation/amd/verify.ts';
import { verifyIntelQuote } from '../../src/attestation/intel/verify.ts';
import { noTpms, verifyEndorsementKey } from '../../src/attestation/tpm/credential.ts';
import { verifyTpmQuote } from '../../src/attestation/tpm/verify.ts';
import { Failure } from '../../src/errors.ts';
import * as amd from './amd/synthetic.ts';
import * as intel from './intel/synthetic.ts';
import * as tpm from './tpm/synthetic.ts';

/** What docs/attestation.md says of each bit, and what verifiers make of Evidence where that one is another. */

/** Whether the bit is set, and what is made of it. */
interface Said {
  isSet: boolean;
  outcome: string;
}

/** By register, and by the number of a bit there. */
const said = readTable();

function readTable(): ReadonlyMap<string, ReadonlyMap<number, Said>> {
  const document = readFileSync(resolve(import.meta.dirname, '../../docs/attestation.md'), 'utf8');
  const [, rest = ''] = document.split('| register | bits | what is made of them |\n');
  const [table = ''] = rest.split('\n\n');
  const registers = new Map<string, Map<number, Said>>();
  let register = '';
  for (const row of table.split('\n')) {
    const [, name = '', bits = '', made = ''] = row.split('|').map((cell) => cell.trim());
    register = name.replaceAll('`', '') || register;
    const [, weakness, word = ''] = /^(?:`([a-z-]+)`|([a-z]+))/.exec(made) ?? [];
    const isSet = !bits.endsWith(' missing');
    const all = registers.get(register) ?? new Map<number, Said>();
    registers.set(register, all);
    for (const [, first, last = first] of bits.matchAll(/\b(\d+)(?: to (\d+))?\b/g))
      for (let bit = Number(first); bit <= Number(last); bit++) {
        assert.ok(!all.has(bit), `${register} has two rows of bit ${bit}`);
        all.set(bit, { isSet, outcome: weakness ?? word });
      }
  }
  return registers;
}

const processors = intel.maker();
const platformKey = intel.pck(processors);
const milan = amd.maker('Milan');
const chipKey = amd.vcek(milan);
const providerKey = amd.vlek(milan);
const certificates = amd.bag([milan.ark, milan.ask, milan.asvk, chipKey, providerKey]);

interface Verdict {
  debug: boolean;
  weaknesses: readonly string[];
}

function quoted(tee: 'sgx' | 'tdx', body: Buffer): Verdict {
  const chain = [processors.platformCa, processors.root];
  const version = body.length === 648 ? { version: 5 as const } : {};
  const bytes = intel.quote({ tee, body, pck: platformKey, chain, ...version });
  return verifyIntelQuote(bytes, bags[tee], intel.at, processors.roots);
}
const bags = {
  sgx: intel.collateral({ by: processors, tee: 'SGX' }),
  tdx: intel.collateral({ by: processors, tee: 'TDX' }),
};

function reported(options: amd.ReportOptions): Verdict {
  const { key } = (options.flags ?? 0) & amd.VLEK_FLAG ? providerKey : chipKey;
  return verifySnpReport(amd.report('Milan', key, options), certificates, amd.at, milan.roots);
}

function quotedByTpm(attributes: number): Verdict {
  const message = tpm.message();
  const key = tpm.publicArea(tpm.ecKey, attributes);
  verifyTpmQuote({ message, signature: tpm.signature(message, tpm.ecKey), key });
  return { debug: false, weaknesses: [] };
}

function endorsed(attributes: number): Verdict {
  const endorsementKey = tpm.publicArea(tpm.rsaKey, tpm.ENDORSEMENT);
  endorsementKey.writeUInt32BE(attributes, 4);
  verifyEndorsementKey({ endorsementKey }, { ...noTpms, trustedKeys: [endorsementName], at: 0 });
  return { debug: false, weaknesses: [] };
}
const endorsementName = createHash('sha256')
  .update(createPublicKey(tpm.rsaKey).export({ type: 'spki', format: 'der' }))
  .digest('hex');

const reportData = Buffer.alloc(64);
const enclave = (options: object) => quoted('sgx', intel.enclaveReport({ reportData, ...options }));

/** Of each register: how many bits it has, which are set where nothing is wrong, and Evidence with others. */
const registers: Record<string, { size: number; good: bigint; verify: (value: bigint) => Verdict }> = {
  'SGX ATTRIBUTES': {
    size: 64,
    good: 5n,
    verify: (value) => enclave({ attributes: hex(value, 8) + hex(0xe7n, 8) }),
  },
  'SGX XFRM': { size: 64, good: 3n, verify: (value) => enclave({ attributes: hex(5n, 8) + hex(value, 8) }) },
  'SGX MISCSELECT': { size: 32, good: 0n, verify: (value) => enclave({ miscselect: hex(value, 4) }) },
  'TDX ATTRIBUTES': {
    size: 64,
    good: 1n << 28n,
    verify: (value) => quoted('tdx', intel.domainReport({ tdattributes: hex(value, 8) })),
  },
  'TDX XFAM': {
    size: 64,
    good: 0xe7n,
    verify: (value) => {
      const body = intel.domainReport();
      body.writeBigUInt64LE(value, 128);
      return quoted('tdx', body);
    },
  },
  'TDX MRSERVICETD': {
    size: 384,
    good: 0n,
    verify: (value) => quoted('tdx', intel.domainReport({ kind: '1.5', mrservicetd: hex(value, 48) })),
  },
  'SEV-SNP POLICY': { size: 64, good: 1n << 17n, verify: (policy) => reported({ policy }) },
  'SEV-SNP PLATFORM_INFO': { size: 64, good: 1n << 5n, verify: (platformInfo) => reported({ platformInfo }) },
  'SEV-SNP flags': { size: 32, good: 0n, verify: (value) => reported({ flags: Number(value) }) },
  'TPM attestation key': {
    size: 32,
    good: BigInt(tpm.RESTRICTED_SIGNING),
    verify: (value) => quotedByTpm(Number(value)),
  },
  'TPM endorsement key': {
    size: 32,
    good: BigInt(tpm.ENDORSEMENT),
    verify: (value) => endorsed(Number(value)),
  },
};

const hex = (value: bigint, length: number) =>
  Buffer.from(value.toString(16).padStart(2 * length, '0'), 'hex')
    .reverse()
    .toString('hex');

function outcomeOf(work: () => Verdict): string {
  try {
    const { debug, weaknesses } = work();
    return [...(debug ? ['debug-mode'] : []), ...weaknesses].join() || 'nothing';
  } catch (error) {
    assert.ok(error instanceof Failure && error.code === 'EVIDENCE_INVALID', String(error));
    return 'refused';
  }
}

for (const [register, { size, good, verify }] of Object.entries(registers))
  test(`${register}: what is made of each bit is what docs/attestation.md says`, () => {
    assert.equal(
      outcomeOf(() => verify(good)),
      'nothing',
    );
    const bits = said.get(register);
    assert.deepEqual(
      [...(bits?.keys() ?? [])].toSorted((a, b) => a - b),
      Array.from({ length: size }, (_, bit) => bit),
    );
    for (const [bit, { isSet, outcome }] of bits ?? []) {
      const mask = 1n << BigInt(bit);
      assert.equal(
        outcomeOf(() => verify(isSet ? good | mask : good & ~mask)),
        outcome,
        `bit ${bit}`,
      );
    }
  });

test('docs/attestation.md numbers bits of no other register', () => {
  const numbered = [...said].flatMap(([register, bits]) => (bits.size > 0 ? [register] : []));
  assert.deepEqual(numbered.toSorted(), Object.keys(registers).toSorted());
});
