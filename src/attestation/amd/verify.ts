import { verify } from 'node:crypto';
import { failure } from '../../errors.ts';
import { invalidEvidence, refusing } from '../bytes.ts';
import type { Collateral } from '../collateral.ts';
import { tcbParts } from '../machine.ts';
import { mayBeUsedFor } from '../x509/certificate.ts';
import { type Chain, type ChainOptions, verifyChain } from '../x509/chain.ts';
import { amdRoots, type EndorsementKey, endorsementKey } from './certificate.ts';
import { hardwareIdOf } from './key-service.ts';
import { parseSnpReport, type SnpFields, type SnpReport, type TcbVersion } from './report.ts';

/** What a verified SEV-SNP report says, and how far it was checked. Plain data. */
export interface SnpVerdict extends SnpFields {
  root: 'sev-snp';
  product: EndorsementKey['product'];
  /** The host may read and change the guest's memory. */
  debug: boolean;
  /** In the words of `tolerate`. Whether {@link SnpFields.reportedTcb} is good enough is for a policy to say. */
  weaknesses: readonly string[];
  /** The cloud provider whose key (VLEK) has signed. */
  cspId?: string;
  /** Whether the root's revocation list was at hand. It covers the issuers of endorsement keys, and AMD gives no other. */
  isRevocationChecked: boolean;
  /** When the first of certificates and lists runs out, in milliseconds since 1970. */
  validUntil: number;
}

/**
 * Verifies an attestation report of a guest of SEV-SNP: that a key signed it which AMD has certified for this chip (or
 * provider) and these versions of firmware. Which guest it is, and whether that is good enough, is for an appraisal.
 * @param at milliseconds since 1970
 * @param roots SHA-256 of the DER of the root certificates that are trusted, hexadecimal
 * @throws Failure EVIDENCE_INVALID, COLLATERAL_MISSING, COLLATERAL_INVALID or CERTIFICATE_REVOKED
 */
export function verifySnpReport(
  report: Buffer,
  collateral: Collateral,
  at: number,
  roots: ReadonlySet<string> = amdRoots,
): SnpVerdict {
  return refusing(() => {
    const parsed = parseSnpReport(report);
    const { fields } = parsed;
    const key = signerOf(parsed, collateral, at);
    const chain = verifyChain(key.certificate, `the ${key.kind}`, {
      ...collateral,
      roots,
      at,
      revocation: 'where given',
    });
    checkIssuers(key, chain);
    const { platformInfo, policy } = fields;
    return {
      root: 'sev-snp',
      ...fields,
      product: key.product,
      debug: policy.debug,
      weaknesses: [
        ...(platformInfo.smtEnabled ? ['hyperthreading'] : []),
        ...(isDoubtful(fields) ? ['insecure-configuration'] : []),
      ],
      ...(key.cspId !== undefined && { cspId: key.cspId }),
      isRevocationChecked: isRootListChecked(chain, { ...collateral, roots, at }),
      validUntil: chain.validUntil,
    };
  });
}

/**
 * Whether memory modules may lie about their size, which makes two addresses of one (CVE-2024-21944), an agent may move the
 * guest with all that is in it elsewhere, or the platform says what is not known here.
 */
function isDoubtful({ platformInfo, unknownPlatformInfo, policy }: SnpFields): boolean {
  return (
    !platformInfo.aliasCheckComplete || policy.migrationAgentAllowed || unknownPlatformInfo !== undefined
  );
}

/** The key that has signed the report, among all that are certified for what it says. */
function signerOf(
  { fields, signed, signature }: SnpReport,
  { certificates }: Collateral,
  at: number,
): EndorsementKey {
  if (fields.signingKey === 'VCEK' && fields.chipId === undefined)
    throw invalidEvidence('it is signed by a chip’s key (VCEK) but hides which chip it is');
  const matching = certificates.flatMap((each) => endorsementKey(each) ?? []).filter(isFor(fields));
  if (matching.length === 0) throw failure('COLLATERAL_MISSING', { what: describe(fields) });
  const signers = matching.filter(({ certificate }) =>
    verify('sha384', signed, { key: certificate.x509.publicKey, dsaEncoding: 'ieee-p1363' }, signature),
  );
  const [first] = signers;
  if (!first) throw invalidEvidence('its signature is not that of the key that it names');
  // A certificate that was renewed is for the same key.
  return (
    signers.find(({ certificate: { notBefore, notAfter } }) => notBefore <= at && at <= notAfter) ?? first
  );
}

function isFor(fields: SnpFields): (key: EndorsementKey) => boolean {
  const { signingKey, product, reportedTcb } = fields;
  return (key) =>
    key.kind === signingKey &&
    (product === undefined ? key.product !== 'Turin' : key.product === product) &&
    tcbParts.every((level) => key.tcb[level] === reportedTcb[level]) &&
    (key.kind === 'VLEK' || key.hardwareId === hardwareIdOf(fields, key.product));
}

function describe({ signingKey, chipId, reportedTcb }: SnpFields): string {
  const whose = signingKey === 'VCEK' ? `the chip ${chipId?.slice(0, 16)}…` : "the machine's provider";
  return `the certificate of the ${signingKey} of ${whose} for ${formatTcb(reportedTcb)}`;
}

/** As in `bootloader 4, tee 0, snp 24, microcode 219`. */
export function formatTcb(tcb: TcbVersion): string {
  return tcbParts.flatMap((level) => (tcb[level] === undefined ? [] : [`${level} ${tcb[level]}`])).join(', ');
}

/** A chip's key comes from SEV-Milan and ARK-Milan, a provider's from SEV-VLEK-Milan and ARK-Milan. */
function checkIssuers({ certificate, kind, product }: EndorsementKey, chain: Chain): void {
  const names = chain.certificates.slice(1).map(({ commonName }) => commonName);
  const expected = [kind === 'VLEK' ? `SEV-VLEK-${product}` : `SEV-${product}`, `ARK-${product}`];
  if (names.join() !== expected.join())
    throw invalidEvidence(`the ${kind} for ${product} is issued by ${names.join(', ') || 'nobody'}`);
  if (!mayBeUsedFor(certificate, 'digitalSignature')) throw invalidEvidence(`the ${kind} may not sign`);
}

/** AMD's issuers have no lists of their own; the root's says whether they are still good. */
function isRootListChecked({ certificates }: Chain, options: Omit<ChainOptions, 'revocation'>): boolean {
  const [, issuer] = certificates;
  return (
    issuer !== undefined &&
    verifyChain(issuer, "the endorsement key's issuer", { ...options, revocation: 'where given' })
      .isRevocationChecked
  );
}
