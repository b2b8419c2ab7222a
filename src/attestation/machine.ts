/**
 * What hardware has measured of a machine, and what a policy expects of it: in both, names and values are those of the
 * sections `tdx`, `sev_snp` and `tpm` of a service's `attestation`.
 */

export type MachineKind = 'tdx' | 'sev_snp' | 'tpm';

/** Parts of an AMD platform's firmware whose versions count (SEV-SNP ABI §2.3); FMC from Turin on. */
export const tcbParts = ['bootloader', 'tee', 'snp', 'microcode', 'fmc'] as const;
export type Tcb = Partial<Record<(typeof tcbParts)[number], number>>;

/** Processor generations of SEV-SNP. */
export const products = ['Milan', 'Genoa', 'Turin'] as const;

export interface Machine {
  kind: MachineKind;
  /** Measurements by name; of `sev_snp` also `vmpl` and `product`. */
  values: Readonly<Record<string, string>>;
  /** Of `sev_snp`: what the firmware was when it reported. */
  tcb?: Tcb;
}

export interface ExpectedMachine {
  /** For each name the values of which it must have one. */
  values: Readonly<Record<string, readonly string[]>>;
  minimumTcb?: Tcb;
}

/** Machines of each kind that a service may run on. */
export type ExpectedMachines = Readonly<Partial<Record<MachineKind, ExpectedMachine>>>;

/** Names of what is not as expected. */
export function differences({ values }: Machine, expected: ExpectedMachine): string[] {
  return Object.entries(expected.values)
    .filter(([name, admitted]) => !admitted.includes(values[name] ?? ''))
    .map(([name]) => name);
}

/**
 * Whether the firmware is older than the policy asks, or the policy asks for nothing: AMD publishes no list of what is
 * out of date, so somebody has to say.
 */
export function isOutdated({ tcb }: Machine, expected: ExpectedMachine | undefined): boolean {
  if (!tcb) return false;
  const minimum = Object.entries(expected?.minimumTcb ?? {}) as [keyof Tcb, number][];
  return minimum.length === 0 || minimum.some(([part, least]) => (tcb[part] ?? 0) < least);
}

/** Measurements that say nothing, as they are of what was not used. */
const isUnused = (value: string) => /^0{2,}$/.test(value);

/** The machine as a policy would have it, in one line of YAML. */
export function describeMachine({ kind, values, tcb }: Machine): string {
  const used = Object.entries(values).filter(([, value]) => !isUnused(value));
  const pairs = used.length > 0 ? used : Object.entries(values);
  const inner =
    kind === 'tpm'
      ? [`pcrs: {${pairs.map(([name, value]) => `${name.slice(3)}: "${value}"`).join(', ')}}`]
      : pairs.map(([name, value]) =>
          name === 'product' ? `products: [${value}]` : `${name}: ${name === 'vmpl' ? value : `"${value}"`}`,
        );
  if (tcb) inner.push(`minimum_tcb: {${tcbOf(tcb)}}`);
  return `${kind}: {${inner.join(', ')}}`;
}

/** What a policy asks for, a line for each measurement. */
export function describeExpected(kind: MachineKind, { values, minimumTcb }: ExpectedMachine): string[] {
  return [
    ...Object.entries(values).map(([name, admitted]) => `${kind} ${name}: ${admitted.join(' or ')}`),
    ...(minimumTcb ? [`${kind} firmware at least ${tcbOf(minimumTcb)}`] : []),
  ];
}

function tcbOf(tcb: Tcb): string {
  return Object.entries(tcb)
    .map(([part, version]) => `${part}: ${version}`)
    .join(', ');
}
