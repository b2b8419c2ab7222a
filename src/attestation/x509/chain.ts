import { type Failure, failure } from '../../errors.ts';
import { isQuick } from '../../quick-key.ts';
import { invalidEvidence } from '../bytes.ts';
import type { Certificate } from './certificate.ts';
import { children, parseDer, smallInteger, tags } from './der.ts';
import { isIssuedBy, type RevocationList } from './revocation.ts';

/** What a chain is checked with. */
export interface ChainOptions {
  /** Certificates that issuers are looked for among, in any order. */
  certificates: readonly Certificate[];
  revocationLists: readonly RevocationList[];
  /** SHA-256 of the DER of the roots that are trusted, hexadecimal. */
  roots: ReadonlySet<string>;
  /** Milliseconds since 1970. */
  at: number;
  /**
   * `required`: every issuer on the way must have a list, in date. `where given`: one that has none in
   * `revocationLists` may go without, and the result says so.
   */
  revocation: 'required' | 'where given';
  /** Critical extensions that may be there beside {@link understood}, by object identifier. */
  understood?: readonly string[];
  /** The error where no issuer is found; EVIDENCE_INVALID where this is absent. */
  noIssuer?: (subject: Certificate) => Failure;
}

export interface Chain {
  /** From the certificate that was asked about to the root. */
  certificates: readonly Certificate[];
  /** Whether a list of each issuer was looked at. */
  isRevocationChecked: boolean;
  /** When the first of certificates and lists runs out, in milliseconds since 1970. */
  validUntil: number;
}

const LONGEST = 8;
/** Critical extensions that are understood: basicConstraints and keyUsage. */
const understood = ['2.5.29.19', '2.5.29.15'];

/**
 * Checks that a certificate comes from a trusted root (RFC 5280 §6.1, as far as vendors of hardware use it): signatures,
 * names, dates, who may issue and to what depth, critical extensions, revocation.
 * @param what the certificate is, for what is said when it is not
 * @throws Failure EVIDENCE_INVALID, COLLATERAL_MISSING, COLLATERAL_INVALID or CERTIFICATE_REVOKED
 */
export function verifyChain(leaf: Certificate, what: string, options: ChainOptions): Chain {
  const certificates = chainOf(leaf, what, options);
  let isRevocationChecked = true;
  let validUntil = Math.min(...certificates.map(({ notAfter }) => notAfter));
  // Only who is known to be an issuer has a say in what is revoked.
  for (const [index, issuer] of certificates.entries()) {
    const subject = certificates[index - 1];
    if (!subject) continue;
    const lists = listsOf(issuer, options);
    if (lists.some((list) => list.revoked.has(subject.serial)))
      throw failure('CERTIFICATE_REVOKED', { certificate: subject.commonName, serial: subject.serial });
    if (lists[0]) validUntil = Math.min(validUntil, lists[0].nextUpdate);
    else isRevocationChecked = false;
  }
  return { certificates, isRevocationChecked, validUntil };
}

/** From a certificate to a trusted root, all of them in date. */
function chainOf(leaf: Certificate, what: string, options: ChainOptions): Certificate[] {
  const { at, roots } = options;
  const certificates = [leaf];
  for (let subject = leaf; ; ) {
    checkDates(subject, what, at);
    const unknown = subject.critical.find(
      (oid) => !understood.includes(oid) && !options.understood?.includes(oid),
    );
    if (unknown !== undefined)
      throw invalid(what, `${subject.commonName} has the critical extension ${unknown}`);
    if (roots.has(subject.fingerprint)) return certificates;
    if (certificates.length === LONGEST) throw invalid(what, 'its chain is too long');
    const issuer = issuerOf(subject, options, certificates.length - 1);
    if (!issuer)
      throw (
        options.noIssuer?.(subject) ??
        invalid(what, `nobody who may has issued ${subject.commonName}: no chain to a trusted root`)
      );
    certificates.push(issuer);
    subject = issuer;
  }
}

/** An issuer by name and key that may issue; one that is in date before one that is not. */
function issuerOf(
  subject: Certificate,
  { certificates, at }: ChainOptions,
  below: number,
): Certificate | undefined {
  const candidates = certificates.filter(
    (candidate) =>
      candidate.fingerprint !== subject.fingerprint &&
      candidate.subject === subject.issuer &&
      // It heeds keyUsage too.
      candidate.x509.ca &&
      below <= pathLength(candidate) &&
      hasIssued(candidate, subject),
  );
  return candidates.find((each) => each.notBefore <= at && at <= each.notAfter) ?? candidates[0];
}

/** Fingerprints of those who have issued a certificate. Of others nothing is kept: anybody can make up any number. */
const issued = new WeakMap<Certificate, Set<string>>();

function hasIssued(issuer: Certificate, subject: Certificate): boolean {
  const issuers = issued.get(subject) ?? new Set<string>();
  issued.set(subject, issuers);
  if (issuers.has(issuer.fingerprint)) return true;
  const result =
    subject.x509.checkIssued(issuer.x509) &&
    isQuick(issuer.x509.publicKey) &&
    subject.x509.verify(issuer.x509.publicKey);
  if (result) issuers.add(issuer.fingerprint);
  return result;
}

const BASIC_CONSTRAINTS = '2.5.29.19';

/** How many issuers there may be below one (RFC 5280 §4.2.1.9). */
function pathLength({ extensions }: Certificate): number {
  const content = extensions.get(BASIC_CONSTRAINTS);
  if (!content) return Number.POSITIVE_INFINITY;
  // SEQUENCE { BOOLEAN ca, INTEGER pathLenConstraint }
  const length = children(parseDer(content, tags.sequence)).find(({ tag }) => tag === tags.integer);
  return length ? smallInteger(length) : Number.POSITIVE_INFINITY;
}

/**
 * An issuer's lists: first the newest one that is in date, then all others. AMD's roots have two lists each, of different
 * certificates; and what was revoked once stays revoked.
 */
function listsOf(issuer: Certificate, { revocationLists, revocation, at }: ChainOptions): RevocationList[] {
  const what = `the revocation list of ${issuer.commonName}`;
  const lists = revocationLists.filter(({ issuerName }) => issuerName === issuer.commonName);
  if (lists.length === 0) {
    if (revocation === 'where given') return [];
    throw failure('COLLATERAL_MISSING', { what });
  }
  const signed = lists.filter((list) => isIssuedBy(list, issuer));
  if (signed.length === 0)
    throw failure('COLLATERAL_INVALID', { what, detail: 'it was signed by somebody else' });
  const newestFirst = signed.toSorted((a, b) => b.thisUpdate - a.thisUpdate);
  const current = newestFirst.find(({ thisUpdate, nextUpdate }) => thisUpdate <= at && at <= nextUpdate);
  if (current) return [current, ...signed];
  const [{ thisUpdate, nextUpdate } = { thisUpdate: 0, nextUpdate: 0 }] = newestFirst;
  throw failure('COLLATERAL_INVALID', { what, detail: outside(thisUpdate, nextUpdate, at) });
}

function checkDates({ notBefore, notAfter, commonName }: Certificate, what: string, at: number): void {
  if (at < notBefore || at > notAfter)
    throw invalid(what, `${commonName}: ${outside(notBefore, notAfter, at)}`);
}

/** Says of something with dates that the time is not between them. */
export function outside(from: number, until: number, at: number): string {
  const [start, end, now] = [from, until, at].map(formatTime);
  return at < from
    ? `it is good from ${start}, and it is ${now}`
    : `it was good until ${end}, and it is ${now}`;
}

/** ISO 8601 in UTC, to the second. */
export function formatTime(time: number): string {
  return new Date(time).toISOString().replace(/\.\d+Z$/, 'Z');
}

function invalid(what: string, detail: string) {
  return invalidEvidence(`${what}: ${detail}`);
}
