/** What a policy can `tolerate`, and what it means to do so. */
export const weaknesses: Readonly<Record<string, string>> = {
  'debug-mode':
    'software Evidence, or an enclave that can be looked into: the administrator of its host can forge it',
  hyperthreading: 'another program on the same core can observe it',
  'insecure-igpu': "the processor's graphics unit can observe it",
  'software-hardening-needed': 'it is safe only if the program itself was hardened',
  'aepic-leak': 'stale data of the processor can be read (INTEL-SA-00657)',
  'insecure-configuration':
    'the firmware, machine or enclave is not set up as is advised, or in a way unknown here',
  'outdated-tcb': 'firmware or microcode lacks published corrections',
  'maa-managed-tcb': 'Microsoft Azure Attestation says what counts as secure',
  'local-attestation-trust-cas-tcb': 'on the host of the CAS, the platform is not looked at again',
};

/** With its meaning, where it is known. */
export function explainWeakness(name: string): string {
  return Object.hasOwn(weaknesses, name) ? `${name}: ${weaknesses[name]}` : name;
}
