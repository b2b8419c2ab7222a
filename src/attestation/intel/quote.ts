import { Malformed, type Reader, reader } from '../bytes.ts';

/**
 * Quotes of Intel SGX and TDX: version 3 (SGX ECDSA Quote Library Reference, Appendix A.4), versions 4 and 5 (TDX DCAP
 * Quoting Library API, Appendix A.3). All numbers are little-endian; byte strings are given in hexadecimal.
 */
export interface Quote {
  header: QuoteHeader;
  body: QuoteBody;
  /** Header and body as they are signed. */
  signed: Buffer;
  authentication: Authentication;
}

export interface QuoteHeader {
  version: 3 | 4 | 5;
  tee: 'sgx' | 'tdx';
  /** Security versions of quoting enclave and provisioning certification enclave; of version 3 alone. */
  qeSvn?: number;
  pceSvn?: number;
  qeVendorId: string;
  /** Names the quoting enclave's installation, and so the platform; what `INTEL_QE_ID:` stands for in a policy. */
  qeId: string;
}

export type QuoteBody = EnclaveReport | DomainReport;

/** Report of an enclave (Intel SDM 3D, REPORT). */
export interface EnclaveReport {
  type: 'sgx';
  cpuSvn: string;
  miscselect: string;
  attributes: string;
  mrenclave: string;
  mrsigner: string;
  isvprodid: number;
  isvsvn: number;
  reportData: string;
}

/** Report of a trust domain (Intel TDX Module Base Architecture, TDREPORT). */
export interface DomainReport {
  type: 'td-1.0' | 'td-1.5';
  teeTcbSvn: string;
  mrseam: string;
  mrsignerseam: string;
  seamattributes: string;
  tdattributes: string;
  xfam: string;
  mrtd: string;
  mrconfigid: string;
  mrowner: string;
  mrownerconfig: string;
  rtmr0: string;
  rtmr1: string;
  rtmr2: string;
  rtmr3: string;
  reportData: string;
  /** Of 1.5: what the module's version is now, which may have been replaced while the domain ran. */
  teeTcbSvn2?: string;
  mrservicetd?: string;
}

/** Who vouches for the quote. */
export interface Authentication {
  /** Over {@link Quote.signed}: ECDSA with SHA-256 on P-256, r and s. */
  signature: Buffer;
  /** Public key on P-256, x and y. */
  attestationKey: Buffer;
  qeReport: EnclaveReport;
  /** As it is signed by the PCK. */
  qeReportBytes: Buffer;
  qeReportSignature: Buffer;
  qeAuthenticationData: Buffer;
  /** That of the PCK and its issuers, as PEM, or in DER one after the other. */
  certificates: Buffer;
}

const INTEL = '939a7233f79c4ca9940a0db3957f0607';
const ECDSA_P256 = 2;
const PCK_CHAIN = 5;
const QE_REPORT = 6;
const tees: Readonly<Record<number, QuoteHeader['tee']>> = { 0: 'sgx', 129: 'tdx' };
const LARGEST = 64 * 1024;

const SGX_REPORT = 384;
const TD_10_REPORT = 584;
const TD_15_REPORT = 648;

/** @throws Malformed */
export function parseQuote(bytes: Buffer): Quote {
  if (bytes.length > LARGEST) throw new Malformed(`a quote has more than ${LARGEST} bytes`);
  const quote = reader(bytes, 'the quote');
  const header = parseHeader(quote);
  const body = parseBody(quote, header);
  const signed = bytes.subarray(0, quote.offset);
  const authentication = parseAuthentication(quote.part(quote.u32le(), 'the signature data'), header.version);
  // Drivers hand on a buffer of fixed size.
  quote.zeros(quote.remaining);
  return { header, body, signed, authentication };
}

function parseHeader(quote: Reader): QuoteHeader {
  const version = quote.u16le();
  if (version !== 3 && version !== 4 && version !== 5)
    throw new Malformed(`a quote of version ${version} is not known`);
  const keyType = quote.u16le();
  if (keyType !== ECDSA_P256) throw new Malformed(`the attestation key has the type ${keyType}`);
  const teeType = quote.u32le();
  const tee = tees[teeType];
  if (!tee || (version === 3 && tee !== 'sgx'))
    throw new Malformed(`the TEE type ${teeType} does not go with version ${version}`);
  const svns = { qeSvn: quote.u16le(), pceSvn: quote.u16le() };
  const qeVendorId = hex(quote, 16);
  if (qeVendorId !== INTEL) throw new Malformed("the quoting enclave is not Intel's");
  const userData = hex(quote, 20);
  return { version, tee, ...(version === 3 && svns), qeVendorId, qeId: userData.slice(0, 32) };
}

function parseBody(quote: Reader, { version, tee }: QuoteHeader): QuoteBody {
  if (version < 5)
    return tee === 'sgx' ? parseEnclaveReport(quote.part(SGX_REPORT, 'the report')) : td(quote, '1.0');
  const type = quote.u16le();
  const size = quote.u32le();
  const expected = { 1: SGX_REPORT, 2: TD_10_REPORT, 3: TD_15_REPORT }[type];
  if (expected === undefined || size !== expected || (type === 1) !== (tee === 'sgx'))
    throw new Malformed(`a body of type ${type} with ${size} bytes does not go with ${tee}`);
  if (type === 1) return parseEnclaveReport(quote.part(SGX_REPORT, 'the report'));
  return td(quote, type === 2 ? '1.0' : '1.5');
}

function td(quote: Reader, version: '1.0' | '1.5'): DomainReport {
  return parseDomainReport(
    quote.part(version === '1.0' ? TD_10_REPORT : TD_15_REPORT, 'the report'),
    version,
  );
}

function parseEnclaveReport(report: Reader): EnclaveReport {
  const cpuSvn = hex(report, 16);
  const miscselect = hex(report, 4);
  report.bytes(28);
  const attributes = hex(report, 16);
  const mrenclave = hex(report, 32);
  report.bytes(32);
  const mrsigner = hex(report, 32);
  report.bytes(96);
  const isvprodid = report.u16le();
  const isvsvn = report.u16le();
  report.bytes(60);
  const reportData = hex(report, 64);
  report.end();
  return { type: 'sgx', cpuSvn, miscselect, attributes, mrenclave, mrsigner, isvprodid, isvsvn, reportData };
}

function parseDomainReport(report: Reader, version: '1.0' | '1.5'): DomainReport {
  const fields = {
    teeTcbSvn: hex(report, 16),
    mrseam: hex(report, 48),
    mrsignerseam: hex(report, 48),
    seamattributes: hex(report, 8),
    tdattributes: hex(report, 8),
    xfam: hex(report, 8),
    mrtd: hex(report, 48),
    mrconfigid: hex(report, 48),
    mrowner: hex(report, 48),
    mrownerconfig: hex(report, 48),
    rtmr0: hex(report, 48),
    rtmr1: hex(report, 48),
    rtmr2: hex(report, 48),
    rtmr3: hex(report, 48),
    reportData: hex(report, 64),
  };
  const added = version === '1.5' && { teeTcbSvn2: hex(report, 16), mrservicetd: hex(report, 48) };
  report.end();
  return { type: `td-${version}`, ...fields, ...added };
}

function parseAuthentication(data: Reader, version: number): Authentication {
  const signature = data.bytes(64);
  const attestationKey = data.bytes(64);
  // Versions 4 and 5 put what follows into certification data of its own.
  const inner = version === 3 ? data : certificationData(data, QE_REPORT);
  const qeReportBytes = inner.bytes(SGX_REPORT);
  const qeReportSignature = inner.bytes(64);
  const qeAuthenticationData = inner.bytes(inner.u16le());
  const chain = certificationData(inner, PCK_CHAIN);
  const certificates = chain.bytes(chain.remaining);
  inner.end();
  data.end();
  return {
    signature,
    attestationKey,
    qeReport: parseEnclaveReport(reader(qeReportBytes, "the quoting enclave's report")),
    qeReportBytes,
    qeReportSignature,
    qeAuthenticationData,
    certificates,
  };
}

function certificationData(data: Reader, expected: number): Reader {
  const type = data.u16le();
  if (type !== expected) throw new Malformed(`certification data are of the type ${type}, not ${expected}`);
  return data.part(data.u32le(), 'the certification data');
}

const hex = (from: Reader, length: number) => from.bytes(length).toString('hex');
