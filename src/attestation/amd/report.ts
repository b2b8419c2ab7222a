import { Malformed, type Reader, reader } from '../bytes.ts';
import type { products } from '../machine.ts';

/** Each has a root certificate of its own. */
export type Product = (typeof products)[number];

/** Security versions of the firmware's parts (AMD 56860, TCB_VERSION); `fmc` on Turin alone. */
export interface TcbVersion {
  fmc?: number;
  bootloader: number;
  tee: number;
  snp: number;
  microcode: number;
}

/** What an attestation report says, byte strings in hexadecimal. */
export interface SnpFields {
  version: number;
  guestSvn: number;
  /** The policy as a number, 16 digits. */
  guestPolicy: string;
  policy: SnpPolicy;
  familyId: string;
  imageId: string;
  /** Privilege level of who asked, 0 being the highest. */
  vmpl: number;
  platformInfo: SnpPlatformInfo;
  /** Bits of it that are not known here, where newer firmware has set some. */
  unknownPlatformInfo?: string;
  signingKey: 'VCEK' | 'VLEK';
  isAuthorKeyEnabled: boolean;
  reportData: string;
  measurement: string;
  hostData: string;
  idKeyDigest: string;
  authorKeyDigest: string;
  reportId: string;
  /** Report id of the migration agent, where there is one. */
  migrationAgent?: string;
  /** From version 3. */
  cpu?: { family: number; model: number; stepping: number };
  /** Told by the processor's numbers; before version 3 only a Turin is known, by its short chip id. */
  product?: Product;
  /** Not where the platform masks it. */
  chipId?: string;
  currentTcb: TcbVersion;
  reportedTcb: TcbVersion;
  committedTcb: TcbVersion;
  launchTcb: TcbVersion;
  /** Of the firmware, as in 1.55.40. */
  currentVersion: string;
  committedVersion: string;
  /** From version 4; which mitigations they stand for differs between products. */
  launchMitigations?: string;
  currentMitigations?: string;
}

/** What whoever started the guest allows (AMD 56860, Guest Policy). */
export interface SnpPolicy {
  /** Least version of the firmware's interface. */
  abi: string;
  smtAllowed: boolean;
  migrationAgentAllowed: boolean;
  debug: boolean;
  singleSocket: boolean;
  cxlAllowed: boolean;
  aes256XtsRequired: boolean;
  raplDisabled: boolean;
  ciphertextHidingRequired: boolean;
  pageSwapDisabled: boolean;
}

/** What is switched on in the platform (PLATFORM_INFO). */
export interface SnpPlatformInfo {
  smtEnabled: boolean;
  tsmeEnabled: boolean;
  eccEnabled: boolean;
  raplDisabled: boolean;
  ciphertextHiding: boolean;
  aliasCheckComplete: boolean;
  tioEnabled: boolean;
}

export interface SnpReport {
  fields: SnpFields;
  /** The bytes that are signed. */
  signed: Buffer;
  /** ECDSA on P-384 with SHA-384: r and s, 48 bytes each, big-endian. */
  signature: Buffer;
}

export const REPORT_SIZE = 1184;
const SIGNED_SIZE = 0x2a0;
const OLDEST = 2;
const NEWEST = 5;
const ECDSA_P384_SHA384 = 1;
const LOWEST_VMPL = 3;

/**
 * Reads an attestation report (AMD 56860, ATTESTATION_REPORT) of version 2 to 5.
 * @throws Malformed
 */
export function parseSnpReport(bytes: Buffer): SnpReport {
  if (bytes.length !== REPORT_SIZE)
    throw new Malformed(`an SEV-SNP report has ${REPORT_SIZE} bytes, not ${bytes.length}`);
  const r = reader(bytes, 'the SEV-SNP report');
  const version = r.u32le();
  if (version < OLDEST || version > NEWEST)
    throw new Malformed(`the SEV-SNP report has version ${version}; ${OLDEST} to ${NEWEST} are known`);
  const isTurin = layoutOf(bytes, version) === 'Turin';
  const tcb = () => tcbVersion(r.part(8, 'a TCB version'), isTurin);
  const hex = (length: number) => r.bytes(length).toString('hex');
  const guestSvn = r.u32le();
  const written = r.u64le();
  const policy = guestPolicy(written);
  const familyId = hex(16);
  const imageId = hex(16);
  const vmpl = r.u32le();
  if (vmpl > LOWEST_VMPL) throw new Malformed('the SEV-SNP report was asked for by the host, not by a guest');
  const algorithm = r.u32le();
  if (algorithm !== ECDSA_P384_SHA384)
    throw new Malformed(`the SEV-SNP report has the signature algorithm ${algorithm}`);
  const currentTcb = tcb();
  const info = r.u64le();
  const unknownInfo = info & ~KNOWN_INFO;
  const keys = keyInfo(r.u32le());
  r.zeros(4);
  const reportData = hex(64);
  const measurement = hex(48);
  const hostData = hex(32);
  const idKeyDigest = hex(48);
  const authorKeyDigest = hex(48);
  const reportId = hex(32);
  const migrationAgent = hex(32);
  const reportedTcb = tcb();
  const cpu = version >= 3 ? { family: r.u8(), model: r.u8(), stepping: r.u8() } : undefined;
  r.zeros(cpu ? 21 : 24);
  const chipId = hex(64);
  const committedTcb = tcb();
  const currentVersion = firmwareVersion(r);
  const committedVersion = firmwareVersion(r);
  const launchTcb = tcb();
  // Defined by version 5; firmware of Turin fills them in before.
  const mitigations = version >= 4 ? { launch: r.u64le(), current: r.u64le() } : undefined;
  r.zeros(mitigations ? 152 : 168);
  const signed = bytes.subarray(0, SIGNED_SIZE);
  const signature = Buffer.concat([component(r), component(r)]);
  r.zeros(r.remaining);
  const product = cpu ? productOf(cpu) : isTurin ? 'Turin' : undefined;
  return {
    fields: {
      version,
      guestSvn,
      guestPolicy: written.toString(16).padStart(16, '0'),
      policy,
      familyId,
      imageId,
      vmpl,
      platformInfo: platformInfo(info),
      ...(unknownInfo !== 0n && { unknownPlatformInfo: unknownInfo.toString(16).padStart(16, '0') }),
      ...keys,
      reportData,
      measurement,
      hostData,
      idKeyDigest,
      authorKeyDigest,
      reportId,
      ...(!/^(f*|0*)$/.test(migrationAgent) && { migrationAgent }),
      ...(cpu && { cpu }),
      ...(product && { product }),
      ...(!/^0*$/.test(chipId) && { chipId }),
      currentTcb,
      reportedTcb,
      committedTcb,
      launchTcb,
      currentVersion,
      committedVersion,
      ...(mitigations && {
        launchMitigations: mitigations.launch.toString(16).padStart(16, '0'),
        currentMitigations: mitigations.current.toString(16).padStart(16, '0'),
      }),
    },
    signed,
    signature,
  };
}

const FAMILY = 0x188;
const CHIP_ID = 0x1a0;
const TURIN_CHIP_ID_SIZE = 8;
const ZEN5 = 0x1a;

/** Which order TCB versions are in: by the processor's family, before version 3 by the length of the chip id. */
function layoutOf(bytes: Buffer, version: number): 'Turin' | 'older' {
  if (version >= 3) return (bytes[FAMILY] ?? 0) >= ZEN5 ? 'Turin' : 'older';
  const chipId = bytes.subarray(CHIP_ID, CHIP_ID + 64);
  const isZero = (part: Buffer) => part.every((byte) => byte === 0);
  return !isZero(chipId) && isZero(chipId.subarray(TURIN_CHIP_ID_SIZE)) ? 'Turin' : 'older';
}

/** By family and model as CPUID combines them (AMD 57230); Bergamo and Siena count as Genoa. */
function productOf({ family, model }: { family: number; model: number }): Product {
  if (family === 0x19 && model <= 0x0f) return 'Milan';
  if (family === 0x19 && ((model >= 0x10 && model <= 0x1f) || (model >= 0xa0 && model <= 0xaf)))
    return 'Genoa';
  if (family === ZEN5 && model <= 0x1f) return 'Turin';
  throw new Malformed(
    `the SEV-SNP report is from a processor of family ${family}, model ${model}, which is unknown`,
  );
}

function tcbVersion(r: Reader, isTurin: boolean): TcbVersion {
  if (isTurin) {
    const [fmc, bootloader, tee, snp] = [r.u8(), r.u8(), r.u8(), r.u8()];
    r.zeros(3);
    return { fmc, bootloader, tee, snp, microcode: r.u8() };
  }
  const [bootloader, tee] = [r.u8(), r.u8()];
  r.zeros(4);
  return { bootloader, tee, snp: r.u8(), microcode: r.u8() };
}

function bits(value: bigint): (bit: number) => boolean {
  return (bit) => ((value >> BigInt(bit)) & 1n) === 1n;
}

function guestPolicy(value: bigint): SnpPolicy {
  const bit = bits(value);
  if (!bit(17) || value >> 26n !== 0n)
    throw new Malformed('the SEV-SNP report has a guest policy with bits that are unknown');
  return {
    abi: `${(value >> 8n) & 0xffn}.${value & 0xffn}`,
    smtAllowed: bit(16),
    migrationAgentAllowed: bit(18),
    debug: bit(19),
    singleSocket: bit(20),
    cxlAllowed: bit(21),
    aes256XtsRequired: bit(22),
    raplDisabled: bit(23),
    ciphertextHidingRequired: bit(24),
    pageSwapDisabled: bit(25),
  };
}

/** Bits 0 to 5, and 7. */
const KNOWN_INFO = 0xbfn;

function platformInfo(value: bigint): SnpPlatformInfo {
  const bit = bits(value);
  return {
    smtEnabled: bit(0),
    tsmeEnabled: bit(1),
    eccEnabled: bit(2),
    raplDisabled: bit(3),
    ciphertextHiding: bit(4),
    aliasCheckComplete: bit(5),
    tioEnabled: bit(7),
  };
}

function keyInfo(value: number): Pick<SnpFields, 'signingKey' | 'isAuthorKeyEnabled'> {
  const signingKey = (['VCEK', 'VLEK'] as const)[(value >> 2) & 7];
  if (value & 2 || !signingKey) throw new Malformed('the SEV-SNP report is not signed');
  if (value >>> 5) throw new Malformed('the SEV-SNP report has flags that are unknown');
  return { signingKey, isAuthorKeyEnabled: (value & 1) !== 0 };
}

/** Build, minor and major number. */
function firmwareVersion(r: Reader): string {
  const [build, minor, major] = [r.u8(), r.u8(), r.u8()];
  r.zeros(1);
  return `${major}.${minor}.${build}`;
}

/** Of a signature: 72 bytes, little-endian. */
function component(r: Reader): Buffer {
  const number = Buffer.from(r.bytes(48)).reverse();
  r.zeros(24);
  return number;
}
