import { failure } from '../errors.ts';
import { endorsementKey } from './amd/certificate.ts';
import { certificatePath } from './amd/key-service.ts';
import { type Collateral, type CollateralFile, fileOf, mergeCollateral } from './collateral.ts';
import { signerOf, TCB_SIGNING } from './intel/verify.ts';
import type { Certificate } from './x509/certificate.ts';
import { type ChainOptions, outside, verifyChain } from './x509/chain.ts';
import { isIssuedBy, type RevocationList } from './x509/revocation.ts';

/** One document of a bag of collateral, as it is kept and replaced. */
export interface Document {
  /** Names what it is about; a newer document with the same key takes its place. */
  key: string;
  /** Milliseconds since 1970. */
  from: number;
  until: number;
  bag: Partial<Collateral>;
  file: CollateralFile;
}

/**
 * Takes a bag apart. What is of no use by itself (certificates that a quote brings along) is left out.
 * @param name of the file that it came in; AMD's roots have a list for each kind of key, which only that tells
 */
export function documentsOf(bag: Collateral, name = ''): Document[] {
  const document = (key: string | undefined, from: number, until: number, single: Partial<Collateral>) =>
    key === undefined ? [] : [{ key, from, until, bag: single, file: { name: key, bytes: fileOf(single) } }];
  return [
    ...bag.certificates.flatMap((each) =>
      document(certificateKey(each), each.notBefore, each.notAfter, { certificates: [each] }),
    ),
    ...bag.revocationLists.flatMap((each) =>
      document(listKey(each, name), each.thisUpdate, each.nextUpdate, { revocationLists: [each] }),
    ),
    ...bag.tcbInfos.flatMap((each) => {
      const { id, fmspc, pceId } = each.content;
      const key = `intel/tcb-info/${id.toLowerCase()}/${fmspc}/${pceId}`;
      return document(key, each.issued, each.nextUpdate, { tcbInfos: [each] });
    }),
    ...bag.enclaveIdentities.flatMap((each) =>
      document(`intel/identity/${each.content.id}`, each.issued, each.nextUpdate, {
        enclaveIdentities: [each],
      }),
    ),
  ];
}

function certificateKey(certificate: Certificate): string | undefined {
  const amd = endorsementKey(certificate);
  if (amd?.kind === 'VLEK') return `vlek/${certificate.fingerprint}`;
  if (amd?.hardwareId !== undefined) return certificatePath(amd.product, amd.hardwareId, amd.tcb);
  const { commonName, x509 } = certificate;
  return x509.ca || commonName === TCB_SIGNING ? `certificate/${commonName}` : undefined;
}

function listKey({ issuerName }: RevocationList, name: string): string {
  if (!issuerName.startsWith('ARK-')) return `crl/${issuerName}`;
  return `crl/${issuerName}/${/vlek/i.test(name) ? 'vlek' : 'vcek'}`;
}

/**
 * Makes sure that a document is its maker's own, and in date.
 * @param others certificates that it may need: those it came with, and those at hand
 * @param roots SHA-256 of the roots that are trusted, hexadecimal
 * @throws Failure COLLATERAL_INVALID or CERTIFICATE_REVOKED
 */
export function checkDocument(
  { key, from, until, bag }: Document,
  others: Collateral,
  roots: ReadonlySet<string>,
  at: number,
): void {
  const invalid = (detail: string) => failure('COLLATERAL_INVALID', { what: key, detail });
  if (at < from || at > until) throw invalid(outside(from, until, at));
  const { certificates, revocationLists, tcbInfos, enclaveIdentities } = mergeCollateral(bag);
  const options: ChainOptions = { ...others, roots, at, revocation: 'where given' };
  for (const certificate of certificates) verifyChain(certificate, key, options);
  for (const list of revocationLists) {
    const issuer = others.certificates.find(
      (each) => each.commonName === list.issuerName && isIssuedBy(list, each),
    );
    if (!issuer) throw invalid('nobody is at hand who has signed it');
    verifyChain(issuer, key, options);
  }
  for (const document of [...tcbInfos, ...enclaveIdentities]) {
    const signer = signerOf(document, options);
    if (!signer) throw invalid('nobody is at hand who has signed it');
    if ('refusal' in signer) throw signer.refusal;
  }
}
