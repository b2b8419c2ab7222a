import { type Collateral as OtherCollateral, verify } from '@phala/dcap-qvl';
import type { Collateral } from '../../../src/attestation/collateral.ts';
import { pckCertificates, pckExtension } from '../../../src/attestation/intel/pck.ts';
import { parseQuote } from '../../../src/attestation/intel/quote.ts';
import { pem } from '../../support/pki.ts';

/** Another verifier of quotes, for comparison. */

/** Collateral for a quote, as it wants it. */
export function otherCollateral(quote: Buffer, bag: Collateral): OtherCollateral {
  const { header, authentication } = parseQuote(quote);
  const { pck, certificates: own } = pckCertificates(authentication);
  const [tee, identity] = header.tee === 'sgx' ? ['SGX', 'QE'] : ['TDX', 'TD_QE'];
  const { fmspc } = pckExtension(pck);
  const tcbInfo = bag.tcbInfos.find(({ content }) => content.id === tee && content.fmspc === fmspc);
  const enclave = bag.enclaveIdentities.find(({ content }) => content.id === identity);
  const list = (name: string) => [
    ...(bag.revocationLists.find(({ issuerName }) => issuerName === name)?.der ?? []),
  ];
  const chainOf = (...names: string[]) =>
    names
      .map((name) => [...bag.certificates, ...own].find(({ commonName }) => commonName === name))
      .map((each) => (each ? pem(each.x509.raw, 'CERTIFICATE') : ''))
      .join('');
  const issuer = own[1]?.commonName ?? '';
  const signing = chainOf('Intel SGX TCB Signing', 'Intel SGX Root CA');
  if (!tcbInfo || !enclave) throw new Error('there is no collateral for the quote');
  return {
    pck_crl_issuer_chain: chainOf(issuer, 'Intel SGX Root CA'),
    root_ca_crl: list('Intel SGX Root CA'),
    pck_crl: list(issuer),
    tcb_info_issuer_chain: signing,
    tcb_info: tcbInfo.text,
    tcb_info_signature: [...tcbInfo.signature],
    qe_identity_issuer_chain: signing,
    qe_identity: enclave.text,
    qe_identity_signature: [...enclave.signature],
  };
}

export function otherVerdict(quote: Buffer, collateral: OtherCollateral, at: number) {
  const { status, advisory_ids } = verify(quote, collateral, Math.floor(at / 1000));
  return { status, advisories: [...new Set(advisory_ids)].toSorted() };
}
