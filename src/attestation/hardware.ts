import { failure } from '../errors.ts';
import { endorsementKey } from './amd/certificate.ts';
import { parseCertificateTable } from './amd/certificate-table.ts';
import { type KeyServicePaths, keyServicePaths, pathOf } from './amd/key-service.ts';
import { parseSnpReport } from './amd/report.ts';
import { type SnpVerdict, verifySnpReport } from './amd/verify.ts';
import { invalidEvidence, Malformed, refusing } from './bytes.ts';
import type { Claims } from './claims.ts';
import { type Collateral, mergeCollateral } from './collateral.ts';
import type { HardwareEvidence } from './hardware-evidence.ts';
import { pckCertificates, pckExtension } from './intel/pck.ts';
import { parseQuote } from './intel/quote.ts';
import { type IntelVerdict, intelRoots, verifyIntelQuote } from './intel/verify.ts';
import { parsePublicArea } from './tpm/structures.ts';
import { type TpmVerdict, verifyTpmQuote } from './tpm/verify.ts';
import { verifyChain } from './x509/chain.ts';

/** What hardware Evidence is checked with (RFC 9334: Endorsements). */
export interface Endorsements {
  collateral: Collateral;
  /** SHA-256 of the DER of roots to trust instead of the makers' own, hexadecimal. */
  roots?: ReadonlySet<string>;
  /** Of a TPM whose attestation key somebody trusts: what it is known by. */
  platform?: string | undefined;
}

/** What hardware says, in the words of {@link Claims}. */
export interface HardwareClaims
  extends Pick<
    Claims,
    'root' | 'platform' | 'debug' | 'machine' | 'weaknesses' | 'advisories' | 'unchecked' | 'reportData'
  > {
  /** Of an enclave, which is its own launcher. */
  enclave?: Pick<Claims, 'measurement' | 'signer'>;
  /** Of a TPM: how often it was reset and resumed, by the name of its attestation key. */
  boot?: { key: string; resetCount: number; restartCount: number };
}

/**
 * Verifies Evidence from hardware.
 * @param at milliseconds since 1970
 * @throws Failure as {@link verifyEvidence}
 */
export function verifyHardware(
  evidence: HardwareEvidence,
  endorsements: Endorsements,
  at: number,
): HardwareClaims {
  const { collateral, roots } = endorsements;
  switch (evidence.type) {
    case 'sgx':
    case 'tdx':
      return intelClaims(verifyIntelQuote(decode(evidence.quote), collateral, at, roots), evidence.type);
    case 'sev-snp': {
      const certificates = refusing(() => parseCertificateTable(decode(evidence.certificates)));
      const all = mergeCollateral(collateral, { certificates });
      return snpClaims(verifySnpReport(decode(evidence.report), all, at, roots));
    }
    case 'tpm': {
      const { message, signature, key, pcrs } = evidence;
      const verdict = verifyTpmQuote({
        message: decode(message),
        signature: decode(signature),
        key: decode(key),
        pcrs,
      });
      return tpmClaims(verdict, endorsements.platform);
    }
  }
}

const decode = (base64: string) => Buffer.from(base64, 'base64');

export function intelClaims(verdict: IntelVerdict, expected: 'sgx' | 'tdx'): HardwareClaims {
  const { root, body, debug, weaknesses, advisories, qeId } = verdict;
  if (root !== expected) throw invalidEvidence(`it is a quote of ${root}, not of ${expected}`);
  const claims = {
    root,
    platform: `INTEL_QE_ID:${qeId}`,
    debug,
    weaknesses,
    advisories,
    reportData: Buffer.from(body.reportData, 'hex'),
  };
  if (body.type === 'sgx') {
    const { mrenclave, mrsigner, isvprodid, isvsvn } = body;
    return { ...claims, enclave: { measurement: mrenclave, signer: { mrsigner, isvprodid, isvsvn } } };
  }
  const { mrtd, rtmr0, rtmr1, rtmr2, rtmr3, mrconfigid, mrowner, mrownerconfig, mrservicetd } = body;
  const values = {
    ...{ mrtd, rtmr0, rtmr1, rtmr2, rtmr3, mrconfigid, mrowner, mrownerconfig },
    ...{ attributes: body.tdattributes, ...(mrservicetd !== undefined && { mrservicetd }) },
  };
  return { ...claims, machine: { kind: 'tdx', values } };
}

export function snpClaims(verdict: SnpVerdict): HardwareClaims {
  const { debug, weaknesses, chipId, cspId, product, isRevocationChecked } = verdict;
  return {
    root: 'sev-snp',
    // A provider's key does not tell which of its machines it is, unless they say so themselves.
    platform: chipId === undefined ? `AMD_PROVIDER:${cspId ?? ''}` : `AMD_CHIP_ID:${chipId}`,
    debug,
    weaknesses,
    ...(!isRevocationChecked && { unchecked: `the revocation list of ARK-${product}` }),
    reportData: Buffer.from(verdict.reportData, 'hex'),
    machine: {
      kind: 'sev_snp',
      values: {
        measurement: verdict.measurement,
        guest_policy: verdict.guestPolicy,
        host_data: verdict.hostData,
        id_key_digest: verdict.idKeyDigest,
        author_key_digest: verdict.authorKeyDigest,
        family_id: verdict.familyId,
        image_id: verdict.imageId,
        vmpl: String(verdict.vmpl),
        product,
      },
      tcb: verdict.reportedTcb,
    },
  };
}

function tpmClaims(verdict: TpmVerdict, platform: string | undefined): HardwareClaims {
  const { keyName: key, resetCount, restartCount, pcrs = {} } = verdict;
  if (key === undefined || platform === undefined)
    throw failure('TPM_UNKNOWN', { key: key ?? 'without a name' });
  const values = Object.entries(pcrs).map(([register, value]) => [`pcr${register}`, value]);
  return {
    root: 'tpm',
    platform,
    debug: false,
    reportData: Buffer.from(verdict.reportData, 'hex'),
    machine: { kind: 'tpm', values: Object.fromEntries(values) },
    boot: { key, resetCount, restartCount },
  };
}

/** What is needed to check hardware Evidence, beside what comes with it. */
export type Need =
  | { kind: 'intel'; tee: 'sgx' | 'tdx'; fmspc: string; pceId: string; ca: 'platform' | 'processor' }
  | { kind: 'amd'; signingKey: 'VCEK' | 'VLEK'; paths: KeyServicePaths }
  /** Name of the attestation key, hexadecimal. */
  | { kind: 'tpm'; key: string };
export type CollateralNeed = Exclude<Need, { kind: 'tpm' }>;

/**
 * What to look for. Of Intel only a certificate that Intel has issued makes anybody look, since there are services to ask.
 * @throws Failure EVIDENCE_INVALID
 */
export function needOf(
  evidence: HardwareEvidence,
  { roots = intelRoots, at }: { roots?: ReadonlySet<string> | undefined; at: number },
): Need {
  return refusing(() => {
    switch (evidence.type) {
      case 'sgx':
      case 'tdx': {
        const { header, authentication } = parseQuote(decode(evidence.quote));
        const { pck, certificates } = pckCertificates(authentication);
        const options = { certificates, revocationLists: [], roots, at, revocation: 'where given' } as const;
        verifyChain(pck, 'the PCK certificate', options);
        const { fmspc, pceId } = pckExtension(pck);
        const ca = pck.issuer.includes('PCK Platform CA') ? 'platform' : 'processor';
        return { kind: 'intel', tee: header.tee, fmspc, pceId, ca };
      }
      case 'sev-snp': {
        const { fields } = parseSnpReport(decode(evidence.report));
        const keys = parseCertificateTable(decode(evidence.certificates)).flatMap(
          (each) => endorsementKey(each) ?? [],
        );
        // Before version 3 only the certificate of its key tells.
        const product = fields.product ?? keys[0]?.product;
        const paths = product && keyServicePaths({ ...fields, product });
        if (!paths)
          throw new Malformed('a report before version 3 does not tell the generation of its processor');
        const { certificate, ...others } = paths;
        const isThere = keys.some(
          (key) => certificate !== undefined && pathOf(key) === certificate && at <= key.certificate.notAfter,
        );
        return { kind: 'amd', signingKey: fields.signingKey, paths: isThere ? others : paths };
      }
      case 'tpm':
        return { kind: 'tpm', key: tpmKeyName(evidence) };
    }
  });
}

/** Name of the attestation key of a TPM's quote, hexadecimal. @throws Failure EVIDENCE_INVALID */
export function tpmKeyName({ key }: Extract<HardwareEvidence, { type: 'tpm' }>): string {
  return refusing(() => parsePublicArea(decode(key)).name.toString('hex'));
}
