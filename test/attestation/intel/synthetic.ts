import { createHash, createPublicKey, type KeyObject, randomBytes, sign } from 'node:crypto';
import { type Collateral, parseCollateral } from '../../../src/attestation/collateral.ts';
import type { LevelStatus } from '../../../src/attestation/intel/tcb.ts';
import { parseCertificate } from '../../../src/attestation/x509/certificate.ts';
import {
  type CertificateOptions,
  certificate,
  der,
  integer,
  type Minted,
  newKey,
  objectIdentifier,
  octetString,
  type RevocationListOptions,
  revocationList,
  sequence,
} from '../../support/pki.ts';

/** A maker of processors like Intel, quotes of its platforms, and all that may be wrong with either. */

export const at = Date.parse('2026-01-01T00:00:00Z');
const DAY = 24 * 3600 * 1000;
const SGX = '1.2.840.113741.1.13.1';
const digitalSignature = 0;
const keyCertSign = 5;
const cRLSign = 6;

export const issuing = { ca: true, usages: [keyCertSign, cRLSign] } as const;
export const signing = { ca: false, usages: [digitalSignature] } as const;

export interface PckOptions extends Partial<CertificateOptions> {
  components?: readonly number[];
  pceSvn?: number;
  fmspc?: string;
  pceId?: string;
  smtEnabled?: boolean;
  cpuSvn?: Buffer;
  /** Object identifiers, behind that of SGX, that are left out. */
  without?: string;
  /** DER of what is there beside the usual. */
  more?: Buffer;
}

export const fmspc = '00906ed50000';
export const components = Array.from({ length: 16 }, () => 5);

const enumerated = (value: number) => der(0x0a, Buffer.of(value));
const boolean = (value: boolean) => der(0x01, Buffer.of(value ? 0xff : 0));

function sgxExtension(options: PckOptions): Buffer {
  const { components: svns = components, pceSvn = 13, smtEnabled, without } = options;
  const entry = (id: string, value: Buffer): [string, Buffer] => [
    id,
    sequence(objectIdentifier(`${SGX}.${id}`), value),
  ];
  const list = (entries: [string, Buffer][], ...more: Buffer[]) =>
    sequence(...more, ...entries.filter(([id]) => id !== without).map(([, bytes]) => bytes));
  const tcb = list([
    ...svns.map((svn, index) => entry(`2.${index + 1}`, integer(svn))),
    entry('2.17', integer(pceSvn)),
    entry('2.18', octetString(options.cpuSvn ?? Buffer.from(svns))),
  ]);
  const more = options.more ? [options.more] : [];
  const entries: [string, Buffer][] = [
    entry('1', octetString(Buffer.alloc(16, 0xaa))),
    entry('2', tcb),
    entry('3', octetString(Buffer.from(options.pceId ?? '0000', 'hex'))),
    entry('4', octetString(Buffer.from(options.fmspc ?? fmspc, 'hex'))),
    entry('5', enumerated(1)),
    ...(smtEnabled === undefined
      ? []
      : [
          entry('6', octetString(Buffer.alloc(16, 0xbb))),
          entry(
            '7',
            list([
              entry('7.1', boolean(false)),
              entry('7.2', boolean(false)),
              entry('7.3', boolean(smtEnabled)),
            ]),
          ),
        ]),
  ];
  return list(entries, ...more);
}

/** Root, issuers and keys of the maker. */
export interface Maker {
  root: Minted;
  platformCa: Minted;
  tcbSigning: Minted;
  roots: ReadonlySet<string>;
}

export function maker(
  options: {
    root?: Partial<CertificateOptions>;
    platformCa?: Partial<CertificateOptions>;
    tcbSigning?: Partial<CertificateOptions>;
  } = {},
): Maker {
  const root = certificate({ commonName: 'Intel SGX Root CA', ...issuing, ...options.root });
  const below = { issuer: root };
  return {
    root,
    platformCa: certificate({
      commonName: 'Intel SGX PCK Platform CA',
      ...below,
      ...issuing,
      ca: 0,
      ...options.platformCa,
    }),
    tcbSigning: certificate({
      commonName: 'Intel SGX TCB Signing',
      ...below,
      ...signing,
      ...options.tcbSigning,
    }),
    roots: new Set([parseCertificate(root.der).fingerprint]),
  };
}

export function pck(by: Maker, options: PckOptions = {}): Minted {
  return certificate({
    commonName: 'Intel SGX PCK Certificate',
    issuer: by.platformCa,
    ...signing,
    ...options,
    extensions: [{ id: SGX, content: sgxExtension(options) }, ...(options.extensions ?? [])].filter(
      ({ id }) => id !== options.without,
    ),
  });
}

export interface LevelOptions {
  status?: LevelStatus;
  advisories?: readonly string[];
}

const iso = (time: number) => new Date(time).toISOString().replace('.000Z', 'Z');
const dates = { issueDate: iso(at - 10 * DAY), nextUpdate: iso(at + 20 * DAY) };
const level = (tcb: object, { status = 'UpToDate', advisories }: LevelOptions) => ({
  tcb,
  tcbDate: '2025-01-01T00:00:00Z',
  tcbStatus: status,
  ...(advisories && { advisoryIDs: advisories }),
});
const svns = (values: readonly number[]) => values.map((svn) => ({ svn }));

export interface TcbLevelOptions extends LevelOptions {
  sgx?: readonly number[];
  pcesvn?: number;
  tdx?: readonly number[];
}

const zeros = Array.from({ length: 16 }, () => 0);
export const mrsignerseam = '0'.repeat(96);

/** Content of TCB information. */
export function tcbInfo(tee: 'SGX' | 'TDX', levels: readonly TcbLevelOptions[], more: object = {}): object {
  return {
    id: tee,
    version: 3,
    ...dates,
    fmspc,
    pceId: '0000',
    tcbType: 0,
    tcbEvaluationDataNumber: 17,
    ...(tee === 'TDX' && {
      tdxModule: { mrsigner: mrsignerseam, attributes: '0'.repeat(16), attributesMask: 'F'.repeat(16) },
      tdxModuleIdentities: [moduleIdentity('TDX_01', [{ isvsvn: 4 }])],
    }),
    tcbLevels: levels.map(({ sgx = components, pcesvn = 13, tdx = zeros, ...rest }) =>
      level(
        {
          sgxtcbcomponents: svns(sgx),
          pcesvn,
          ...(tee === 'TDX' && { tdxtcbcomponents: svns(tdx) }),
        },
        rest,
      ),
    ),
    ...more,
  };
}

export function moduleIdentity(
  id: string,
  levels: readonly ({ isvsvn: number } & LevelOptions)[],
  more: object = {},
) {
  return {
    id,
    mrsigner: mrsignerseam,
    attributes: '0'.repeat(16),
    attributesMask: 'F'.repeat(16),
    tcbLevels: levels.map(({ isvsvn, ...rest }) => level({ isvsvn }, rest)),
    ...more,
  };
}

export const qeMrsigner = '8c'.repeat(32);
export const qe = { miscselect: '00000000', attributes: `11${'0'.repeat(30)}`, isvprodid: 1, isvsvn: 8 };

/** Content of the identity of a quoting enclave. */
export function identity(
  tee: 'SGX' | 'TDX',
  levels: readonly ({ isvsvn: number } & LevelOptions)[],
  more: object = {},
): object {
  return {
    id: tee === 'TDX' ? 'TD_QE' : 'QE',
    version: 2,
    ...dates,
    tcbEvaluationDataNumber: 17,
    miscselect: qe.miscselect,
    miscselectMask: 'FFFFFFFF',
    attributes: qe.attributes,
    attributesMask: `FB${'F'.repeat(14)}${'0'.repeat(16)}`,
    mrsigner: qeMrsigner.toUpperCase(),
    isvprodid: qe.isvprodid,
    tcbLevels: levels.map(({ isvsvn, ...rest }) => level({ isvsvn }, rest)),
    ...more,
  };
}

const plain = (data: Buffer, key: KeyObject) => sign('sha256', data, { key, dsaEncoding: 'ieee-p1363' });

/** A document as Intel serves it. */
export function signedDocument(
  name: 'tcbInfo' | 'enclaveIdentity',
  content: object,
  by: { key: KeyObject },
): Buffer {
  const text = JSON.stringify(content);
  const signature = plain(Buffer.from(text), by.key).toString('hex');
  return Buffer.from(`{"${name}":${text},"signature":"${signature}"}`);
}

/** An enclave's report, 384 bytes. */
export function enclaveReport(options: {
  miscselect?: string;
  attributes?: string;
  mrenclave?: string;
  mrsigner?: string;
  isvprodid?: number;
  isvsvn?: number;
  reportData: Buffer;
}): Buffer {
  const report = Buffer.alloc(384);
  const hex = (text: string, offset: number) => Buffer.from(text, 'hex').copy(report, offset);
  hex(options.miscselect ?? '00000000', 16);
  hex(options.attributes ?? `05${'0'.repeat(14)}e7${'0'.repeat(14)}`, 48);
  hex(options.mrenclave ?? 'a1'.repeat(32), 64);
  hex(options.mrsigner ?? 'a2'.repeat(32), 128);
  report.writeUInt16LE(options.isvprodid ?? 3, 256);
  report.writeUInt16LE(options.isvsvn ?? 7, 258);
  options.reportData.copy(report, 320);
  return report;
}

export interface DomainOptions {
  kind?: '1.0' | '1.5';
  teeTcbSvn?: string;
  teeTcbSvn2?: string;
  mrsignerseam?: string;
  seamattributes?: string;
  tdattributes?: string;
  mrservicetd?: string;
  reportData?: Buffer;
}

const VERSION_1 = `0401${'0'.repeat(28)}`;
/** Measurements of the domain, by the byte that they consist of. */
export const domainValues = {
  mrtd: '11'.repeat(48),
  mrconfigid: '12'.repeat(48),
  mrowner: '13'.repeat(48),
  mrownerconfig: '14'.repeat(48),
  rtmr0: '20'.repeat(48),
  rtmr1: '21'.repeat(48),
  rtmr2: '22'.repeat(48),
  rtmr3: '23'.repeat(48),
};

/** A trust domain's report: 584 bytes, or 648. */
export function domainReport(options: DomainOptions = {}): Buffer {
  const { mrtd, mrconfigid, mrowner, mrownerconfig, rtmr0, rtmr1, rtmr2, rtmr3 } = domainValues;
  const { reportData = Buffer.alloc(64) } = options;
  const fields = [
    options.teeTcbSvn ?? VERSION_1,
    '0f'.repeat(48),
    options.mrsignerseam ?? mrsignerseam,
    options.seamattributes ?? '0'.repeat(16),
    options.tdattributes ?? '0000001000000000',
    'e7'.padEnd(16, '0'),
    ...[mrtd, mrconfigid, mrowner, mrownerconfig, rtmr0, rtmr1, rtmr2, rtmr3],
    reportData.toString('hex'),
    ...(options.kind === '1.5'
      ? [options.teeTcbSvn2 ?? VERSION_1, options.mrservicetd ?? '0'.repeat(96)]
      : []),
  ];
  return Buffer.from(fields.join(''), 'hex');
}

export interface QuoteOptions {
  /** 3 of SGX and 4 of TDX by default. */
  version?: 3 | 4 | 5;
  body: Buffer;
  tee: 'sgx' | 'tdx';
  pck: Minted;
  /** Certificates that follow that of the PCK. */
  chain: readonly Minted[];
  /** What follows the digest in the report data of the quoting enclave, where zeros belong. */
  qeRest?: Buffer;
  /** What the quoting enclave says of itself. */
  qe?: Partial<Parameters<typeof enclaveReport>[0]>;
  /** Bytes that are put over header and body before they are signed, by their offset. */
  patches?: Readonly<Record<number, Buffer>>;
  /** What the quoting enclave's report is signed with, and the quote. */
  reportKey?: KeyObject;
  quoteKey?: KeyObject;
}

const le16 = (value: number) => Buffer.of(value & 0xff, value >> 8);
const le32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const certificationData = (type: number, data: Buffer) =>
  Buffer.concat([le16(type), le32(data.length), data]);

export function quote(options: QuoteOptions): Buffer {
  const { tee, body, chain, patches = {} } = options;
  const version = options.version ?? (tee === 'sgx' ? 3 : 4);
  const userData = Buffer.concat([Buffer.alloc(16, 0xcd), Buffer.alloc(4)]);
  const header = Buffer.concat([
    ...[le16(version), le16(2), le32(tee === 'sgx' ? 0 : 0x81), le32(0)],
    ...[Buffer.from('939a7233f79c4ca9940a0db3957f0607', 'hex'), userData],
  ]);
  const types: Record<number, number> = { 384: 1, 584: 2, 648: 3 };
  const described = version === 5 ? [le16(types[body.length] ?? 0), le32(body.length)] : [];
  const signed = Buffer.concat([header, ...described, body]);
  for (const [offset, bytes] of Object.entries(patches)) bytes.copy(signed, Number(offset));

  const attestation = newKey('P-256');
  const { x = '', y = '' } = createPublicKey(attestation).export({ format: 'jwk' });
  const attestationKey = Buffer.concat([x, y].map((each) => Buffer.from(each, 'base64url')));
  const authentication = randomBytes(32);
  const digest = createHash('sha256').update(attestationKey).update(authentication).digest();
  const qeReport = enclaveReport({
    ...qe,
    mrsigner: qeMrsigner,
    reportData: Buffer.concat([digest, options.qeRest ?? Buffer.alloc(32)]),
    ...options.qe,
  });
  const certificates = [options.pck, ...chain].map(({ pem }) => pem).join('');
  const vouched = Buffer.concat([
    ...[qeReport, plain(qeReport, options.reportKey ?? options.pck.key)],
    ...[le16(authentication.length), authentication],
    certificationData(5, Buffer.from(`${certificates}\0`)),
  ]);
  const data = Buffer.concat([
    ...[plain(signed, options.quoteKey ?? attestation), attestationKey],
    version === 3 ? vouched : certificationData(6, vouched),
  ]);
  return Buffer.concat([signed, le32(data.length), data]);
}

export interface CollateralOptions {
  by: Maker;
  tee: 'SGX' | 'TDX';
  tcb?: object;
  identity?: object;
  tcbSigner?: { key: KeyObject };
  identitySigner?: { key: KeyObject };
  rootList?: Partial<RevocationListOptions> | 'none';
  pckList?: Partial<RevocationListOptions> | 'none';
  /** Certificates beside the usual ones. */
  certificates?: readonly Minted[];
}

const month = { thisUpdate: at - 10 * DAY, nextUpdate: at + 20 * DAY };

/** All that a quote is checked with. */
export function collateral(options: CollateralOptions): Collateral {
  const { by, tee, rootList, pckList } = options;
  const tcb = options.tcb ?? tcbInfo(tee, [{}]);
  const enclave = options.identity ?? identity(tee, [{ isvsvn: 8 }]);
  const list = (issuer: Minted, more: Partial<RevocationListOptions> | 'none' | undefined) =>
    more === 'none' ? [] : [revocationList({ issuer, ...month, ...more })];
  const files = [
    signedDocument('tcbInfo', tcb, options.tcbSigner ?? by.tcbSigning),
    signedDocument('enclaveIdentity', enclave, options.identitySigner ?? by.tcbSigning),
    ...list(by.root, rootList),
    ...list(by.platformCa, pckList),
    ...[by.root, by.platformCa, by.tcbSigning, ...(options.certificates ?? [])].map((each) => each.der),
  ];
  return parseCollateral(files.map((bytes, index) => ({ name: `file ${index}`, bytes })));
}
