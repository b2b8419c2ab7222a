import type * as v from 'valibot';
import type { ExpectedMachine, ExpectedMachines, MachineKind, Tcb } from '../attestation/machine.ts';
import type { machines } from './schema/services.ts';

/**
 * What the sections `tdx`, `sev_snp` and `tpm` of a variant ask for, its variables filled in.
 * @returns nothing where there is no such section
 */
export function expectedMachines({ tdx, sev_snp, tpm }: v.InferOutput<typeof machines>): {
  machines?: ExpectedMachines;
} {
  const expected: { -readonly [Kind in MachineKind]?: ExpectedMachine } = {};
  if (tdx) expected.tdx = { values: values(tdx) };
  if (tpm) {
    const registers = Object.entries(tpm.pcrs).map(([register, value]) => [`pcr${register}`, value]);
    expected.tpm = { values: values(Object.fromEntries(registers)) };
  }
  if (sev_snp) {
    const { vmpl = 0, products, minimum_tcb, ...measurements } = sev_snp;
    expected.sev_snp = {
      // Whoever runs at a level above can ask for reports of those below.
      values: { ...values(measurements), vmpl: [String(vmpl)], ...(products && { product: products }) },
      ...(minimum_tcb && { minimumTcb: minimum_tcb as Tcb }),
    };
  }
  return Object.keys(expected).length > 0 ? { machines: expected } : {};
}

function values(section: Readonly<Record<string, unknown>>): Record<string, string[]> {
  return Object.fromEntries(
    Object.entries(section).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, Array.isArray(value) ? value.map(String) : [String(value)]]],
    ),
  );
}
