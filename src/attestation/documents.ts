import { Failure, failure } from '../errors.ts';
import { endorsementKey } from './amd/certificate.ts';
import { pathOf } from './amd/key-service.ts';
import {
  type Collateral,
  type CollateralFile,
  fileOf,
  mergeCollateral,
  parseCollateral,
} from './collateral.ts';
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
  if (amd) return pathOf(amd);
  const { commonName, x509 } = certificate;
  return x509.ca || commonName === TCB_SIGNING ? `certificate/${commonName}` : undefined;
}

function listKey({ issuerName }: RevocationList, name: string): string {
  if (!issuerName.startsWith('ARK-')) return `crl/${issuerName}`;
  return `crl/${issuerName}/${/vlek/i.test(name) ? 'vlek' : 'vcek'}`;
}

/**
 * What Intel counts its evaluations of platforms by. It signs those of before anew, too, for whoever asks for them, so that a
 * date alone does not tell what is newer.
 */
export function evaluationOf({ bag: { tcbInfos = [], enclaveIdentities = [] } }: Document): number {
  return [...tcbInfos, ...enclaveIdentities][0]?.content.tcbEvaluationDataNumber ?? 0;
}

/** Sorts documents so that each comes after those that it is checked by: roots, issuers, other certificates, lists. */
export function issuersFirst(a: Document, b: Document): number {
  return rank(a) - rank(b);
}

function rank({ bag: { certificates = [], revocationLists } }: Document): number {
  const [certificate] = certificates;
  if (!certificate) return revocationLists ? 3 : 4;
  if (certificate.subject === certificate.issuer) return 0;
  return certificate.x509.ca ? 1 : 2;
}

/**
 * Says why a document does not count; undefined of one that is its maker's own, and in date.
 * @param others documents that count: nobody else is asked whether a signature is theirs, as each costs time
 * @param roots SHA-256 of the roots that are trusted, hexadecimal
 */
function objectionTo(
  { key, from, until, bag }: Document,
  others: Collateral,
  roots: ReadonlySet<string>,
  at: number,
): string | undefined {
  if (at < from || at > until) return outside(from, until, at);
  const { certificates, revocationLists, tcbInfos, enclaveIdentities } = mergeCollateral(bag);
  const options: ChainOptions = { ...others, roots, at, revocation: 'where given' };
  try {
    for (const certificate of certificates) verifyChain(certificate, key, options);
    for (const list of revocationLists) {
      const issuer = others.certificates.find(
        (each) => each.commonName === list.issuerName && isIssuedBy(list, each),
      );
      if (!issuer) return UNSIGNED;
      verifyChain(issuer, key, options);
    }
    for (const document of [...tcbInfos, ...enclaveIdentities]) {
      const signer = signerOf(document, options);
      if (!signer) return UNSIGNED;
      if ('refusal' in signer) throw signer.refusal;
    }
    return undefined;
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    return error.code === 'EVIDENCE_INVALID'
      ? 'no chain leads from it to a root of its maker'
      : error.message;
  }
}

const UNSIGNED = 'nobody is at hand who has signed it';

/** Documents that may come at once. */
const MOST_AT_ONCE = 256;

/** A document, and why it does not count, where it does not. */
export interface Judged extends Pick<Document, 'key' | 'until'> {
  objection?: string | undefined;
  /** Its place among all that came. */
  position: number;
  /** The document alone, and the name of the file that it came in. */
  name: string;
  bytes: Uint8Array;
}

/**
 * Reads and verifies files, issuers before what they have issued.
 * @param others files of documents that count
 * @param roots as {@link objectionTo} takes them
 * @throws Failure COLLATERAL_INVALID
 */
export function judgeCollateral({
  files,
  others,
  roots,
  at,
}: {
  files: readonly CollateralFile[];
  others: readonly CollateralFile[];
  roots: ReadonlySet<string>;
  at: number;
}): Judged[] {
  const found = files.flatMap((file) =>
    documentsOf(parseCollateral([file]), file.name).map((document) => ({ document, name: file.name })),
  );
  const numbered = found.map((each, position) => ({ ...each, position }));
  if (found.length > MOST_AT_ONCE)
    throw failure('COLLATERAL_INVALID', {
      what: 'what was sent',
      detail: `there are more than ${MOST_AT_ONCE} documents in it`,
    });
  let known = parseCollateral(others);
  return numbered
    .toSorted((a, b) => issuersFirst(a.document, b.document))
    .map(({ document, name, position }) => {
      const { key, until, file, bag } = document;
      const objection = objectionTo(document, known, roots, at);
      if (objection === undefined) known = mergeCollateral(known, bag);
      return { key, until, name, position, bytes: file.bytes, ...(objection !== undefined && { objection }) };
    });
}
