import { type KeyObject, randomBytes, sign } from 'node:crypto';
import type { Product, TcbVersion } from '../../../src/attestation/amd/report.ts';
import type { Collateral } from '../../../src/attestation/collateral.ts';
import { type Certificate, parseCertificate } from '../../../src/attestation/x509/certificate.ts';
import { parseRevocationList } from '../../../src/attestation/x509/revocation.ts';
import {
  type CertificateOptions,
  certificate,
  type Issuer,
  ia5String,
  integer,
  type Minted,
  newKey,
} from '../../support/pki.ts';

/** A maker of processors like AMD, reports of its machines, and all that may be wrong with either. */

export const at = Date.parse('2026-01-01T00:00:00Z');
export const AMD = '1.3.6.1.4.1.3704.1';
const keyCertSign = 5;
const cRLSign = 6;

export interface Maker {
  product: Product;
  ark: Minted;
  ask: Minted;
  asvk: Minted;
  roots: ReadonlySet<string>;
}

/** Serial numbers of the issuers of endorsement keys. */
export const askSerial = 65_537;
export const asvkSerial = 65_538;

export function maker(product: Product): Maker {
  const ark = certificate({
    commonName: `ARK-${product}`,
    key: newKey('RSA'),
    ca: true,
    usages: [keyCertSign, cRLSign],
  });
  const issuer = (commonName: string, serial: number) =>
    certificate({
      commonName,
      serial,
      key: newKey('RSA'),
      issuer: ark,
      ca: 0,
      usages: [keyCertSign, cRLSign],
    });
  return {
    product,
    ark,
    ask: issuer(`SEV-${product}`, askSerial),
    asvk: issuer(`SEV-VLEK-${product}`, asvkSerial),
    roots: new Set([parseCertificate(ark.der).fingerprint]),
  };
}

export const tcbOf = (product: Product): TcbVersion => ({
  ...(product === 'Turin' && { fmc: 1 }),
  bootloader: 4,
  tee: 2,
  snp: 24,
  microcode: 219,
});

export const chipIdOf = (product: Product): Buffer =>
  Buffer.concat([Buffer.alloc(8, 0xc1), Buffer.alloc(56, product === 'Turin' ? 0 : 0xc2)]);

export interface EndorsementOptions extends Partial<CertificateOptions> {
  /** Name in the extension. */
  name?: string;
  tcb?: TcbVersion;
  hardwareId?: Buffer;
  /** Extensions that are left out. */
  without?: string;
}

function endorsement(product: Product, options: EndorsementOptions, own: { id: string; content: Buffer }) {
  const { tcb = tcbOf(product), name = `${product}-B1`, without, ...rest } = options;
  const levels: [string, number | undefined][] = [
    ['3.1', tcb.bootloader],
    ['3.2', tcb.tee],
    ['3.3', tcb.snp],
    ['3.8', tcb.microcode],
    ['3.9', tcb.fmc],
  ];
  return certificate({
    commonName: 'SEV-VCEK',
    serial: 0,
    extensions: [
      { id: `${AMD}.1`, content: integer(product === 'Turin' ? 1 : 0) },
      { id: `${AMD}.2`, content: ia5String(name) },
      ...levels.flatMap(([id, level]) =>
        level === undefined ? [] : [{ id: `${AMD}.${id}`, content: integer(level) }],
      ),
      own,
    ].filter(({ id }) => id !== without),
    ...rest,
    key: rest.key ?? newKey('P-384'),
  });
}

/** The key of one chip at one version of its firmware. */
export function vcek({ product, ask }: Maker, options: EndorsementOptions = {}): Minted {
  const { hardwareId = chipIdOf(product).subarray(0, product === 'Turin' ? 8 : 64), ...rest } = options;
  return endorsement(product, { issuer: ask, ...rest }, { id: `${AMD}.4`, content: hardwareId });
}

/** The key that a provider is given for its machines. */
export function vlek({ product, asvk }: Maker, options: EndorsementOptions = {}): Minted {
  return endorsement(
    product,
    { commonName: 'SEV-VLEK', issuer: asvk, ...options },
    { id: `${AMD}.5`, content: ia5String('CN=cc-example.test') },
  );
}

export interface ReportOptions {
  version?: number;
  policy?: bigint;
  vmpl?: number;
  algorithm?: number;
  platformInfo?: bigint;
  flags?: number;
  cpu?: readonly [family: number, model: number, stepping: number];
  reportedTcb?: TcbVersion;
  chipId?: Buffer;
  reportData?: Buffer;
  /** Bytes that are put over the rest before it is signed, by their offset. */
  patches?: Readonly<Record<number, Buffer>>;
}

const cpus: Record<Product, readonly [number, number, number]> = {
  Milan: [0x19, 0x01, 1],
  Genoa: [0x19, 0x11, 1],
  Turin: [0x1a, 0x02, 1],
};
const SIGNED = 0x2a0;
export const VLEK_FLAG = 1 << 2;

/** A report as the firmware of a product makes it, without a signature. */
export function unsignedReport(product: Product, options: ReportOptions = {}): Buffer {
  const { version = 5, cpu = cpus[product], reportedTcb = tcbOf(product), chipId } = options;
  const report = Buffer.alloc(1184);
  report.writeUInt32LE(version, 0);
  report.writeUInt32LE(7, 4);
  report.writeBigUInt64LE(options.policy ?? 0x3_0137n, 8);
  report.fill(0x11, 0x10, 0x20).fill(0x12, 0x20, 0x30);
  report.writeUInt32LE(options.vmpl ?? 1, 0x30);
  report.writeUInt32LE(options.algorithm ?? 1, 0x34);
  const tcb = (version: TcbVersion) => tcbBytes(product, version);
  report.set(tcb(tcbOf(product)), 0x38);
  report.writeBigUInt64LE(options.platformInfo ?? 0x24n, 0x40);
  report.writeUInt32LE(options.flags ?? 0, 0x48);
  report.set(options.reportData ?? Buffer.alloc(64, 0x13), 0x50);
  report.fill(0x14, 0x90, 0xc0).fill(0x15, 0xc0, 0xe0).fill(0x16, 0xe0, 0x110).fill(0x17, 0x110, 0x140);
  report.fill(0x18, 0x140, 0x160).fill(0xff, 0x160, 0x180);
  report.set(tcb(reportedTcb), 0x180);
  if (version >= 3) report.set(cpu, 0x188);
  report.set(chipId ?? chipIdOf(product), 0x1a0);
  report.set(tcb(tcbOf(product)), 0x1e0);
  report.set([40, 55, 1, 0, 29, 55, 1, 0], 0x1e8);
  report.set(tcb(tcbOf(product)), 0x1f0);
  if (version >= 5) report.writeBigUInt64LE(3n, 0x1f8);
  if (version >= 5) report.writeBigUInt64LE(7n, 0x200);
  for (const [offset, bytes] of Object.entries(options.patches ?? {})) report.set(bytes, Number(offset));
  return report;
}

/** As `unsignedReport`, signed. */
export function report(product: Product, key: KeyObject, options: ReportOptions = {}): Buffer {
  return signReport(unsignedReport(product, options), key);
}

export function signReport(unsigned: Buffer, key: KeyObject): Buffer {
  const signature = sign('sha384', unsigned.subarray(0, SIGNED), { key, dsaEncoding: 'ieee-p1363' });
  const signed = Buffer.from(unsigned).fill(0, SIGNED);
  signed.set(Buffer.from(signature.subarray(0, 48)).reverse(), SIGNED);
  signed.set(Buffer.from(signature.subarray(48)).reverse(), SIGNED + 72);
  return signed;
}

function tcbBytes(product: Product, { fmc = 0, bootloader, tee, snp, microcode }: TcbVersion): number[] {
  return product === 'Turin'
    ? [fmc, bootloader, tee, snp, 0, 0, 0, microcode]
    : [bootloader, tee, 0, 0, 0, 0, snp, microcode];
}

/** A bag of certificates and revocation lists, in no particular order. */
export function bag(certificates: readonly { der: Buffer }[], lists: readonly Buffer[] = []): Collateral {
  return {
    certificates: certificates.map(({ der }): Certificate => parseCertificate(der)),
    revocationLists: lists.map(parseRevocationList),
    tcbInfos: [],
    enclaveIdentities: [],
  };
}

/** Somebody of the same name with another key. */
export function impostor({ commonName, key }: Issuer): Issuer {
  return { commonName, key: newKey(key.asymmetricKeyType === 'rsa' ? 'RSA' : 'P-384') };
}

export const noise = (length: number) => randomBytes(length);
