import { Malformed } from '../bytes.ts';
import type { Certificate } from '../x509/certificate.ts';
import { parseDer, smallInteger, tags } from '../x509/der.ts';
import type { Product, SnpFields, TcbVersion } from './report.ts';

/**
 * SHA-256 of the DER of AMD's root keys ARK-Milan, ARK-Genoa and ARK-Turin, as its key service gives them out
 * (https://kdsintf.amd.com/vcek/v1/Milan/cert_chain and so on).
 */
export const amdRoots: ReadonlySet<string> = new Set([
  '69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd',
  '4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1',
  '1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a',
]);

/** A key that signs reports: a chip's own (VCEK), or one that a cloud provider is given for its chips (VLEK). */
export interface EndorsementKey {
  certificate: Certificate;
  kind: SnpFields['signingKey'];
  product: Product;
  /** What the key is derived from, so that it signs for these versions alone. */
  tcb: TcbVersion;
  /** Of a VCEK: the beginning of the chip's id, hexadecimal. */
  hardwareId?: string;
  /** Of a VLEK: the provider. */
  cspId?: string;
}

const kinds = new Map<string, EndorsementKey['kind']>([
  ['SEV-VCEK', 'VCEK'],
  ['SEV-VLEK', 'VLEK'],
]);

/** Names in certificates, and whose root they come from. */
const products = new Map<string, Product>([
  ['Milan', 'Milan'],
  ['Genoa', 'Genoa'],
  ['Bergamo', 'Genoa'],
  ['Siena', 'Genoa'],
  ['Turin', 'Turin'],
]);

const AMD = '1.3.6.1.4.1.3704.1';
const PRODUCT = `${AMD}.2`;
const BOOTLOADER = `${AMD}.3.1`;
const TEE = `${AMD}.3.2`;
const SNP = `${AMD}.3.3`;
const MICROCODE = `${AMD}.3.8`;
const FMC = `${AMD}.3.9`;
const HARDWARE_ID = `${AMD}.4`;
const CSP_ID = `${AMD}.5`;
/** Bytes of a chip's id that count. */
export const hardwareIdSize: Record<Product, number> = { Milan: 64, Genoa: 64, Turin: 8 };

/**
 * Reads the extensions of an endorsement key's certificate (AMD 57230 §3); its signature is another matter.
 * @returns undefined where the certificate is not one, or one that cannot be read
 */
export function endorsementKey(certificate: Certificate): EndorsementKey | undefined {
  const kind = kinds.get(certificate.commonName);
  if (!kind) return undefined;
  try {
    return read(certificate, kind);
  } catch (error) {
    if (error instanceof Malformed) return undefined;
    throw error;
  }
}

function read(certificate: Certificate, kind: EndorsementKey['kind']): EndorsementKey {
  const content = (oid: string) => {
    const bytes = certificate.extensions.get(oid);
    if (!bytes) throw new Malformed(`${certificate.commonName} has no extension ${oid}`);
    return bytes;
  };
  const number = (oid: string) => smallInteger(parseDer(content(oid), tags.integer));
  const text = (oid: string) => parseDer(content(oid), tags.ia5String).content.toString('latin1');
  // Milan-B0 is a stepping of Milan.
  const [name = ''] = text(PRODUCT).split('-');
  const product = products.get(name);
  if (!product) throw new Malformed(`${certificate.commonName} is for the product ${name}`);
  const { namedCurve } = certificate.x509.publicKey.asymmetricKeyDetails ?? {};
  if (namedCurve !== 'secp384r1') throw new Malformed(`${certificate.commonName} has no key on P-384`);
  return {
    certificate,
    kind,
    product,
    tcb: {
      ...(product === 'Turin' && { fmc: number(FMC) }),
      bootloader: number(BOOTLOADER),
      tee: number(TEE),
      snp: number(SNP),
      microcode: number(MICROCODE),
    },
    ...(kind === 'VCEK' ? { hardwareId: content(HARDWARE_ID).toString('hex') } : { cspId: text(CSP_ID) }),
  };
}
