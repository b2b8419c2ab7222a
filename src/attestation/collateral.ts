import * as v from 'valibot';
import { causes, failure } from '../errors.ts';
import { Malformed } from './bytes.ts';
import { base64 } from './hardware-evidence.ts';
import { type EnclaveIdentity, parseIntelCollateral, type TcbInfo } from './intel/collateral.ts';
import { type Certificate, parseCertificate, pemBlocks } from './x509/certificate.ts';
import { parseRevocationList, type RevocationList } from './x509/revocation.ts';

/**
 * What makers of hardware publish, and what Evidence is checked with (RFC 9334: Endorsements). A bag: every document in
 * it speaks for itself by its signature, and verifiers look for what they need in it, so that it matters neither where a
 * document came from nor what its file was called. Everything in it is parsed, once.
 */
export interface Collateral {
  certificates: readonly Certificate[];
  revocationLists: readonly RevocationList[];
  tcbInfos: readonly TcbInfo[];
  enclaveIdentities: readonly EnclaveIdentity[];
}

export const emptyCollateral: Collateral = {
  certificates: [],
  revocationLists: [],
  tcbInfos: [],
  enclaveIdentities: [],
};

export function mergeCollateral(...bags: readonly Partial<Collateral>[]): Collateral {
  return {
    certificates: bags.flatMap(({ certificates = [] }) => certificates),
    revocationLists: bags.flatMap(({ revocationLists = [] }) => revocationLists),
    tcbInfos: bags.flatMap(({ tcbInfos = [] }) => tcbInfos),
    enclaveIdentities: bags.flatMap(({ enclaveIdentities = [] }) => enclaveIdentities),
  };
}

export interface CollateralFile {
  name: string;
  bytes: Buffer;
}

/**
 * Reads collateral, told by its content: certificates and revocation lists in PEM or DER (lists also in hexadecimal, as a
 * caching service gives them), Intel's JSON. Anything else is passed over, so that a folder may hold quotes too.
 * @throws Failure COLLATERAL_INVALID, which names the file
 */
export function parseCollateral(files: readonly CollateralFile[]): Collateral {
  return mergeCollateral(
    ...files.map(({ name, bytes }) => {
      try {
        return parseFile(bytes);
      } catch (error) {
        if (!(error instanceof Malformed)) throw error;
        throw failure('COLLATERAL_INVALID', { what: name, detail: causes(error).join(': ') });
      }
    }),
  );
}

const SEQUENCE = 0x30;

function parseFile(bytes: Buffer): Partial<Collateral> {
  const text = bytes.toString('latin1');
  // JSON can have certificates in it, too.
  if (/^\s*\{/.test(text)) return parseIntelCollateral(bytes.toString()) ?? {};
  if (text.includes('-----BEGIN '))
    return {
      certificates: pemBlocks(text, 'CERTIFICATE').map(parseCertificate),
      revocationLists: pemBlocks(text, 'X509 CRL').map(parseRevocationList),
    };
  if (/^\s*30[0-9a-f]{2}([0-9a-f]{2})*\s*$/i.test(text)) return parseBinary(Buffer.from(text.trim(), 'hex'));
  return bytes[0] === SEQUENCE ? parseBinary(bytes) : {};
}

/** A certificate or a revocation list. */
function parseBinary(der: Buffer): Partial<Collateral> {
  try {
    return { revocationLists: [parseRevocationList(der)] };
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    return { certificates: [parseCertificate(der)] };
  }
}

/** Bytes of a file, which are 1 MiB of base64. */
const LARGEST = 3 << 18;

/** Collateral as it travels. */
export const collateralFiles = v.pipe(
  v.array(
    v.pipe(
      v.strictObject({ name: v.pipe(v.string(), v.maxLength(300)), content: base64(LARGEST) }),
      v.transform(({ name, content }): CollateralFile => ({ name, bytes: Buffer.from(content, 'base64') })),
    ),
  ),
  v.maxLength(64),
);

/** A bag with one document in it, as a file that {@link parseCollateral} reads. */
export function fileOf(bag: Partial<Collateral>): Buffer {
  const { certificates, revocationLists, tcbInfos, enclaveIdentities } = mergeCollateral(bag);
  return Buffer.concat([
    ...certificates.map(({ x509 }) => x509.raw),
    ...revocationLists.map(({ der }) => der),
    ...tcbInfos.map((info) => signedJson('tcbInfo', info)),
    ...enclaveIdentities.map((identity) => signedJson('enclaveIdentity', identity)),
  ]);
}

/** All of a bag, each document as a file of its own. */
export function fileList(bag: Collateral): v.InferInput<typeof collateralFiles> {
  const file = (name: string, single: Partial<Collateral>) => ({
    name,
    content: fileOf(single).toString('base64'),
  });
  return [
    ...bag.certificates.map((each) => file(each.commonName, { certificates: [each] })),
    ...bag.revocationLists.map((each) =>
      file(`revocation list of ${each.issuerName}`, { revocationLists: [each] }),
    ),
    ...bag.tcbInfos.map((each) => file(`TCB information ${each.content.fmspc}`, { tcbInfos: [each] })),
    ...bag.enclaveIdentities.map((each) =>
      file(`identity ${each.content.id}`, { enclaveIdentities: [each] }),
    ),
  ];
}

function signedJson(name: string, { text, signature }: { text: string; signature: Buffer }): Buffer {
  return Buffer.from(`{"${name}":${text},"signature":"${signature.toString('hex')}"}`);
}
