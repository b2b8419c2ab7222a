import type { KeyObject } from 'node:crypto';
import { Malformed } from '../bytes.ts';
import { type Certificate, parseCertificate, pemBlocks } from '../x509/certificate.ts';
import {
  boolean,
  children,
  type Element,
  expect,
  objectIdentifier,
  parseDer,
  smallInteger,
  tags,
} from '../x509/der.ts';
import type { Authentication } from './quote.ts';

/**
 * What Intel certifies about a platform in the certificate of its provisioning certification key (Intel SGX PCK
 * Certificate and CRL Profile Specification §1.3.5). Byte strings are in hexadecimal.
 */
export interface PckExtension {
  ppid: string;
  /** Security versions of the sixteen components. */
  components: readonly number[];
  pceSvn: number;
  cpuSvn: string;
  pceId: string;
  /** Names the kind of platform. */
  fmspc: string;
  sgxType: 'Standard' | 'Scalable' | 'ScalableWithIntegrity';
  /** Of platforms that Intel knows as a whole (Platform CA). */
  platformInstanceId?: string;
  dynamicPlatform?: boolean;
  cachedKeys?: boolean;
  smtEnabled?: boolean;
}

const PCK = 'Intel SGX PCK Certificate';
/** PCK, its issuer, root. */
const MOST = 3;

/**
 * The certificates that a quote brings along: few, and on the curve that Intel uses, since anybody can send one and make
 * others verify signatures.
 * @returns all of them, and the one of the PCK
 * @throws Malformed
 */
export function pckCertificates({ certificates: bytes }: Authentication): {
  pck: Certificate;
  certificates: readonly Certificate[];
} {
  const isDer = bytes[0] === tags.sequence;
  const all = isDer
    ? children({ tag: 0, content: bytes, encoded: bytes }).map(({ encoded }) => encoded)
    : pemBlocks(bytes.toString('latin1'), 'CERTIFICATE');
  if (all.length > MOST) throw new Malformed(`the quote holds more than ${MOST} certificates`);
  const certificates = all.map(parseCertificate);
  const other = certificates.find(({ x509 }) => !isOnP256(x509.publicKey));
  if (other) throw new Malformed(`${other.commonName} has no key on P-256`);
  const pck = certificates.find(({ commonName }) => commonName === PCK);
  if (!pck) throw new Malformed('the quote holds no PCK certificate');
  return { pck, certificates };
}

export function isOnP256({ asymmetricKeyDetails }: KeyObject): boolean {
  return asymmetricKeyDetails?.namedCurve === 'prime256v1';
}

const SGX = '1.2.840.113741.1.13.1';
const sgxTypes = ['Standard', 'Scalable', 'ScalableWithIntegrity'] as const;
const COMPONENTS = 16;

/** @throws Malformed */
export function pckExtension({ extensions }: Certificate): PckExtension {
  const content = extensions.get(SGX);
  if (!content) throw new Malformed('the PCK certificate says nothing of the platform');
  const values = valuesOf(parseDer(content, tags.sequence), SGX);
  const value = (id: string) => {
    const element = values.get(id);
    if (!element) throw new Malformed(`the PCK certificate lacks ${SGX}.${id}`);
    return element;
  };
  const bytes = (id: string, length: number) => {
    const { content: octets } = expect(value(id), tags.octetString);
    if (octets.length !== length)
      throw new Malformed(`the PCK certificate has a wrong length of ${SGX}.${id}`);
    return octets.toString('hex');
  };
  const configuration = valuesOf(values.get('7'), `${SGX}.7`);
  const flag = (id: string) => {
    const element = configuration.get(id);
    return element && boolean(element);
  };
  const tcb = valuesOf(value('2'), `${SGX}.2`);
  const tcbValue = (id: number) => tcb.get(String(id));
  const sgxType = sgxTypes[smallInteger(value('5'), tags.enumerated)];
  const cpuSvn = expect(tcbValue(18), tags.octetString).content;
  if (!sgxType || cpuSvn.length !== COMPONENTS)
    throw new Malformed('the PCK certificate is of an unknown type');
  const [dynamicPlatform, cachedKeys, smtEnabled] = ['1', '2', '3'].map(flag);
  return {
    ppid: bytes('1', 16),
    components: Array.from({ length: COMPONENTS }, (_, index) => smallInteger(tcbValue(index + 1))),
    pceSvn: smallInteger(tcbValue(17)),
    cpuSvn: cpuSvn.toString('hex'),
    pceId: bytes('3', 2),
    fmspc: bytes('4', 6),
    sgxType,
    ...(values.has('6') && { platformInstanceId: bytes('6', 16) }),
    ...(dynamicPlatform !== undefined && { dynamicPlatform }),
    ...(cachedKeys !== undefined && { cachedKeys }),
    ...(smtEnabled !== undefined && { smtEnabled }),
  };
}

/** Values by what their object identifiers have behind that of the list. */
function valuesOf(list: Element | undefined, base: string): Map<string, Element> {
  const values = new Map<string, Element>();
  if (!list) return values;
  for (const entry of children(expect(list, tags.sequence))) {
    const [id, element] = children(expect(entry, tags.sequence));
    const name = objectIdentifier(id);
    if (!element || !name.startsWith(`${base}.`))
      throw new Malformed(`the PCK certificate has ${name} in ${base}`);
    const short = name.slice(base.length + 1);
    if (values.has(short)) throw new Malformed(`the PCK certificate has ${name} twice`);
    values.set(short, element);
  }
  return values;
}
