import { parseSnpReport } from '../../attestation/amd/report.ts';
import { type AzureReport, parseAzureReport } from '../../attestation/azure.ts';
import { Malformed } from '../../attestation/bytes.ts';
import { pckCertificates, pckExtension } from '../../attestation/intel/pck.ts';
import { parseQuote } from '../../attestation/intel/quote.ts';
import { parseQuoteInfo } from '../../attestation/tpm/structures.ts';
import type { TpmQuote } from '../../attestation/tpm/verify.ts';
import type { Certificate } from '../../attestation/x509/certificate.ts';
import { formatTime } from '../../attestation/x509/chain.ts';
import { causes, failure } from '../../errors.ts';
import { readInput } from '../input.ts';
import type { Output } from '../output.ts';
import { fields } from './fields.ts';
import { type EvidenceKind, kindOf, LARGEST, names } from './kind.ts';
import { parseTpmBundle } from './tpm.ts';

/** `scone evidence show FILE`: what is written in Evidence. */
export function showEvidenceFile(file: string): Output {
  const bytes = readInput(file, LARGEST);
  const kind = kindOf(bytes, file);
  try {
    const content = contents[kind](bytes, file);
    return {
      text: `${names[kind]}. Nothing was verified: whoever has made it may have written what he likes.\n\n${fields(content)}`,
      json: { kind, verified: false, ...content },
    };
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    throw failure('FILE_INVALID', { path: file, detail: causes(error).join(': ') });
  }
}

const contents: Record<EvidenceKind, (bytes: Buffer, file: string) => object> = {
  intel: quoteContent,
  'sev-snp': (bytes) => parseSnpReport(bytes).fields,
  azure: (bytes) => azureContent(parseAzureReport(bytes)),
  tpm: (bytes) => tpmContent(bytes),
  'tpm-bundle': (bytes, file) => bundleContent(parseTpmBundle(bytes, file)),
};

function quoteContent(bytes: Buffer): object {
  const { header, body, authentication } = parseQuote(bytes);
  const { pck, certificates } = pckCertificates(authentication);
  return {
    header,
    body,
    qeReport: authentication.qeReport,
    platform: pckExtension(pck),
    certificates: certificates.map(certificateContent),
  };
}

function certificateContent({ commonName, serial, notBefore, notAfter }: Certificate): object {
  return { name: commonName, serial, from: formatTime(notBefore), until: formatTime(notAfter) };
}

function azureContent({ hardware, hardwareReport, runtimeData }: AzureReport): object {
  return {
    hardware,
    hardwareReport:
      hardware === 'sev-snp' ? parseSnpReport(hardwareReport).fields : hardwareReport.toString('hex'),
    runtimeData: runtimeData.toString(),
  };
}

function tpmContent(message: Buffer): object {
  const { extraData, clock, selections, pcrDigest, ...others } = parseQuoteInfo(message);
  return {
    reportData: extraData.toString('hex'),
    clock: String(clock),
    ...others,
    selections: selections.map(({ algorithm, registers }) => ({ hashAlgorithm: algorithm, registers })),
    pcrDigest: pcrDigest.toString('hex'),
  };
}

function bundleContent({ message, pcrs }: TpmQuote): object {
  return { ...tpmContent(message), pcrs };
}
