/** Where collateral comes from. */
export interface Sources {
  /** Base address of Intel's certification service, or of a caching service (PCCS) in its place. */
  pccs: URL;
  /** Certificates that a caching service's own is checked by, as PEM. */
  pccsCa?: string | undefined;
  /** Base address of AMD's key distribution service. */
  kds: URL;
}

export const INTEL = 'https://api.trustedservices.intel.com';
export const AMD = 'https://kdsintf.amd.com';
/** Intel has its root's list at another place than everything else. */
const INTEL_ROOT_LIST = 'https://certificates.trustedservices.intel.com/IntelSGXRootCA.der';

/**
 * Where a document is to be had, by its key (attestation/documents.ts): Intel's API in version 4, AMD 57230.
 * @returns undefined of what no service gives
 */
export function addressOf(key: string, { pccs, kds }: Sources): URL | undefined {
  const intel = (path: string) => new URL(`${pccs.pathname.replace(/\/$/, '')}${path}`, pccs);
  const amd = (path: string) => new URL(`${kds.pathname.replace(/\/$/, '')}${path}`, kds);
  const [, tee, fmspc] = /^intel\/tcb-info\/(sgx|tdx)\/([0-9a-f]{12})\//.exec(key) ?? [];
  if (tee) return intel(`/${tee}/certification/v4/tcb?fmspc=${fmspc}`);
  const [, kind, generation] = /^certificate\/SEV-(VLEK-)?(\w+)$/.exec(key) ?? [];
  if (generation) return amd(`/${kind ? 'vlek' : 'vcek'}/v1/${generation}/cert_chain`);
  const [, product, list] = /^crl\/ARK-(\w+)\/(vcek|vlek)$/.exec(key) ?? [];
  if (product) return amd(`/${list}/v1/${product}/crl`);
  if (key.startsWith('/vcek/')) return amd(key);
  switch (key) {
    case 'intel/identity/QE':
      return intel('/sgx/certification/v4/qe/identity');
    case 'intel/identity/TD_QE':
      return intel('/tdx/certification/v4/qe/identity');
    case 'crl/Intel SGX PCK Platform CA':
      return intel('/sgx/certification/v4/pckcrl?ca=platform&encoding=der');
    case 'crl/Intel SGX PCK Processor CA':
      return intel('/sgx/certification/v4/pckcrl?ca=processor&encoding=der');
    case 'crl/Intel SGX Root CA':
      return pccs.origin === new URL(INTEL).origin
        ? new URL(INTEL_ROOT_LIST)
        : intel('/sgx/certification/v4/rootcacrl');
    default:
      return undefined;
  }
}
