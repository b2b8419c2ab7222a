import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto';
import { Failure, failure } from '../../errors.ts';
import { invalidEvidence, refusing } from '../bytes.ts';
import type { Collateral } from '../collateral.ts';
import { type Certificate, mayBeUsedFor } from '../x509/certificate.ts';
import { type Chain, type ChainOptions, outside, verifyChain } from '../x509/chain.ts';
import type { EnclaveIdentity, SignedText } from './collateral.ts';
import { isOnP256, type PckExtension, pckCertificates, pckExtension } from './pck.ts';
import { type EnclaveReport, parseQuote, type Quote, type QuoteBody, type QuoteHeader } from './quote.ts';
import {
  categories,
  converge,
  isMasked,
  type Level,
  moduleLevel,
  platformLevel,
  quotingEnclaveLevel,
  relaunchStatus,
  type Status,
} from './tcb.ts';

/** SHA-256 of Intel's SGX root certificate, which is that of TDX too. */
export const intelRoots: ReadonlySet<string> = new Set([
  '44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3',
]);

/** What a verified quote says, and how good the platform is. Plain data; byte strings in hexadecimal. */
export interface IntelVerdict extends Omit<QuoteHeader, 'tee'> {
  root: 'sgx' | 'tdx';
  body: QuoteBody;
  /** Whoever administers the host may read and change what runs in the enclave or domain. */
  debug: boolean;
  status: Status;
  platform: Level;
  /** The TDX module, where Intel describes it by itself. */
  module?: Level & { id: string };
  qe: Level;
  /** Of all parts. */
  advisories: readonly string[];
  /** In the words of `tolerate`; debug mode is beside them. */
  weaknesses: readonly string[];
  pck: PckExtension & { serial: string; issuer: string };
  tcbEvaluationDataNumber: number;
  /** When the first of collateral and certificates runs out, in milliseconds since 1970. */
  validUntil: number;
}

const PCK_ISSUERS = ['Intel SGX PCK Platform CA', 'Intel SGX PCK Processor CA'];
export const TCB_SIGNING = 'Intel SGX TCB Signing';

/**
 * Verifies a quote of Intel SGX or TDX, in the order of Intel's own library. A status that asks for something is for an
 * appraisal to look at; one that no policy can tolerate refuses.
 * @param at milliseconds since 1970
 * @param roots SHA-256 of the DER of the root certificates that are trusted, hexadecimal
 * @throws Failure EVIDENCE_INVALID, COLLATERAL_MISSING, COLLATERAL_INVALID, CERTIFICATE_REVOKED or TCB_UNACCEPTABLE
 */
export function verifyIntelQuote(
  bytes: Buffer,
  collateral: Collateral,
  at: number,
  roots: ReadonlySet<string> = intelRoots,
): IntelVerdict {
  return refusing(() => {
    const quote = parseQuote(bytes);
    const { header, body } = quote;
    const options: ChainOptions = { ...collateral, roots, at, revocation: 'required' };
    const { chain, pck, extension } = verifyPck(quote, options);
    const domain = body.type === 'sgx' ? undefined : body;
    const { fmspc, pceId } = extension;

    const tcbInfo = newest(
      collateral.tcbInfos.filter(
        ({ content }) =>
          content.id === (domain ? 'TDX' : 'SGX') && content.fmspc === fmspc && content.pceId === pceId,
      ),
      `the TCB information of ${header.tee.toUpperCase()} for FMSPC ${fmspc} and PCE id ${pceId}`,
      options,
    );
    const identity = newest(
      collateral.enclaveIdentities.filter(({ content }) => content.id === (domain ? 'TD_QE' : 'QE')),
      `the identity of the quoting enclave of ${header.tee.toUpperCase()}`,
      options,
    );
    const module = domain && moduleLevel(tcbInfo.document.content, domain);
    verifyQuotingEnclave(quote, pck, identity.document.content);
    const qe = quotingEnclaveLevel(identity.document.content, quote.authentication.qeReport.isvsvn);
    verifyQuote(quote);
    const platform = platformLevel(tcbInfo.document.content, extension, domain);

    const levels = [platform, qe, ...(module ? [module] : [])];
    const relaunch =
      domain && relaunchStatus(tcbInfo.document.content, extension, domain, { platform, qe, module });
    const status = relaunch ?? converge(levels);
    const advisories = [...new Set(levels.flatMap((level) => level.advisories))].toSorted();
    const { tee, ...rest } = header;
    return {
      root: tee,
      ...rest,
      body,
      debug: isDebug(body),
      status,
      platform,
      ...(module && { module }),
      qe,
      advisories,
      weaknesses: [
        ...new Set([
          ...categories[status],
          ...(isDoubtful(body) ? ['insecure-configuration'] : []),
          ...(extension.smtEnabled ? ['hyperthreading'] : []),
        ]),
      ],
      pck: { ...extension, serial: pck.serial, issuer: chain.certificates[1]?.commonName ?? '' },
      tcbEvaluationDataNumber: tcbInfo.document.content.tcbEvaluationDataNumber,
      validUntil: Math.min(chain.validUntil, tcbInfo.validUntil, identity.validUntil),
    };
  });
}

/** The certificate of the platform's key, from the quote itself. */
function verifyPck({ authentication }: Quote, options: ChainOptions) {
  const { pck, certificates: own } = pckCertificates(authentication);
  const chain = verifyChain(pck, 'the PCK certificate', {
    ...options,
    certificates: [...own, ...options.certificates],
  });
  if (!mayBeUsedFor(pck, 'digitalSignature') || pck.x509.ca)
    throw invalidEvidence(`the certificate of ${pck.commonName} is not that of a PCK`);
  const issuer = chain.certificates[1]?.commonName ?? 'nobody';
  if (chain.certificates.length !== 3 || !PCK_ISSUERS.includes(issuer))
    throw invalidEvidence(`the PCK certificate was issued by ${issuer}`);
  return { chain, pck, extension: pckExtension(pck) };
}

/** A document that counts, and until when. */
interface Valid<Document> {
  document: Document;
  validUntil: number;
}

/** The newest that Intel has signed among several about the same; it must be in date. */
function newest<Document extends SignedText>(
  documents: readonly Document[],
  what: string,
  options: ChainOptions,
): Valid<Document> {
  if (documents.length === 0) throw failure('COLLATERAL_MISSING', { what });
  const invalidCollateral = (detail: string) => failure('COLLATERAL_INVALID', { what, detail });
  let refusal: Failure | undefined;
  for (const document of documents.toSorted((a, b) => b.issued - a.issued)) {
    const { issued, nextUpdate } = document;
    const chain = signerOf(document, options);
    if (!chain) refusal ??= invalidCollateral('Intel has not signed it');
    else if ('refusal' in chain) refusal ??= chain.refusal;
    else if (options.at < issued || options.at > nextUpdate)
      refusal ??= invalidCollateral(outside(issued, nextUpdate, options.at));
    else return { document, validUntil: Math.min(nextUpdate, chain.validUntil) };
  }
  throw refusal ?? failure('COLLATERAL_MISSING', { what });
}

/**
 * The chain of the certificate that has signed a document, or why it does not count; undefined where none has. Intel has
 * issued the certificate anew for the same key, with the same serial number.
 */
export function signerOf(
  document: SignedText,
  options: ChainOptions,
): Chain | { refusal: Failure } | undefined {
  const signers = options.certificates.filter(
    (certificate) =>
      certificate.commonName === TCB_SIGNING &&
      mayBeUsedFor(certificate, 'digitalSignature') &&
      hasSigned(certificate, document),
  );
  let refusal: Failure | undefined;
  for (const signer of signers)
    try {
      const chain = verifyChain(signer, 'the certificate of the TCB signing key', options);
      if (chain.certificates.length === 2) return chain;
      refusal ??= failure('COLLATERAL_INVALID', {
        what: 'the certificate of the TCB signing key',
        detail: 'the root has not issued it itself',
      });
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      refusal ??= error;
    }
  return refusal && { refusal };
}

/** Fingerprints of those who have signed a document. */
const signatures = new WeakMap<SignedText, Set<string>>();

function hasSigned({ fingerprint, x509 }: Certificate, document: SignedText): boolean {
  const signers = signatures.get(document) ?? new Set<string>();
  signatures.set(document, signers);
  if (signers.has(fingerprint)) return true;
  const result = isSigned(Buffer.from(document.text), x509.publicKey, document.signature);
  if (result) signers.add(fingerprint);
  return result;
}

/** ECDSA with SHA-256 on P-256; the signature is r and s. */
function isSigned(data: Buffer, key: KeyObject, signature: Buffer): boolean {
  return isOnP256(key) && verify('sha256', data, { key, dsaEncoding: 'ieee-p1363' }, signature);
}

/** The platform's key vouches for the quoting enclave, and that for its attestation key. */
function verifyQuotingEnclave(
  { authentication }: Quote,
  pck: Certificate,
  identity: EnclaveIdentity['content'],
): void {
  const { qeReportBytes, qeReportSignature, qeReport, attestationKey, qeAuthenticationData } = authentication;
  if (!isSigned(qeReportBytes, pck.x509.publicKey, qeReportSignature))
    throw invalidEvidence("the signature of the quoting enclave's report is wrong");
  const digest = createHash('sha256').update(attestationKey).update(qeAuthenticationData).digest('hex');
  if (qeReport.reportData !== digest.padEnd(128, '0'))
    throw invalidEvidence('the quoting enclave does not vouch for the attestation key');
  const wrong = wrongIn(qeReport, identity);
  if (wrong !== undefined)
    throw invalidEvidence(`the quoting enclave is not the one that Intel knows: ${wrong}`);
}

function wrongIn(report: EnclaveReport, identity: EnclaveIdentity['content']): string | undefined {
  if (!isMasked(report.miscselect, identity.miscselectMask, identity.miscselect)) return 'MISCSELECT';
  if (!isMasked(report.attributes, identity.attributesMask, identity.attributes)) return 'ATTRIBUTES';
  if (report.mrsigner !== identity.mrsigner) return 'MRSIGNER';
  if (report.isvprodid !== identity.isvprodid) return 'ISVPRODID';
  return undefined;
}

function verifyQuote({ signed, authentication: { attestationKey, signature } }: Quote): void {
  const coordinate = (from: number) => attestationKey.subarray(from, from + 32).toString('base64url');
  const jwk = { kty: 'EC', crv: 'P-256', x: coordinate(0), y: coordinate(32) };
  if (!isSigned(signed, createPublicKey({ format: 'jwk', key: jwk }), signature))
    throw invalidEvidence('the signature of the quote is wrong');
}

/** DEBUG: bit 1 of an enclave's attributes; of a domain's the group TUD, bits 0 to 7 (TDX Module ABI, ATTRIBUTES). */
function isDebug(body: QuoteBody): boolean {
  const [attributes = 0] = Buffer.from(body.type === 'sgx' ? body.attributes : body.tdattributes, 'hex');
  return (attributes & (body.type === 'sgx' ? 0x02 : 0xff)) !== 0;
}

const maskOf = (...bits: number[]) => bits.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);

/** Bits that are known of an enclave's attributes, INIT to AEXNOTIFY, and of what a fault leaves behind. */
const ENCLAVE = maskOf(0, 1, 2, 4, 5, 6, 7, 10);
const MISCELLANEOUS = maskOf(0, 1);

/** Bits of a domain's attributes that say nothing against it: LASS, PKS, KL and PERFMON. */
const HARMLESS = maskOf(27, 30, 31, 63);
const TUD = 0xffn;
const SEPT_VE_DISABLE = maskOf(28);

/**
 * Whether a bit is set whose meaning is not known here. Of a domain also whether the operator may move its memory elsewhere, by
 * a service domain of his that is bound to it or may be (MIGRATABLE); or interrupt its kernel anywhere, by taking memory away.
 */
function isDoubtful(body: QuoteBody): boolean {
  if (body.type === 'sgx') {
    const unknown = littleEndian(body.attributes, 8) & ~ENCLAVE;
    return unknown !== 0n || (littleEndian(body.miscselect, 4) & ~MISCELLANEOUS) !== 0n;
  }
  const { tdattributes, mrservicetd = '' } = body;
  return (littleEndian(tdattributes, 8) & ~(HARMLESS | TUD)) !== SEPT_VE_DISABLE || /[^0]/.test(mrservicetd);
}

/** The first bytes of a field as a number. */
function littleEndian(hex: string, length: number): bigint {
  return BigInt(`0x${Buffer.from(hex, 'hex').subarray(0, length).reverse().toString('hex')}`);
}
