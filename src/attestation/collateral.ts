import type { EnclaveIdentity, TcbInfo } from './intel/collateral.ts';
import type { Certificate } from './x509/certificate.ts';
import type { RevocationList } from './x509/revocation.ts';

/**
 * What makers of hardware publish, and what Evidence is checked with (RFC 9334: Endorsements). A bag: every document in
 * it speaks for itself by its signature, and verifiers look for what they need in it, so that it matters neither where a
 * document came from nor what its file was called. Everything in it is parsed, once.
 */
export interface Collateral {
  certificates: readonly Certificate[];
  revocationLists: readonly RevocationList[];
  tcbInfos: readonly TcbInfo[];
  enclaveIdentities: readonly EnclaveIdentity[];
}
