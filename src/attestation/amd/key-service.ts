import { type EndorsementKey, hardwareIdSize } from './certificate.ts';
import type { Product, SnpFields, TcbVersion } from './report.ts';

/** Paths at AMD's key service, https://kdsintf.amd.com (AMD 57230 §4). */
export interface KeyServicePaths {
  product: Product;
  /** The certificate of the key that signed the report. There is none for a VLEK: its provider hands it on. */
  certificate?: string;
  /** ARK and ASK, or ARK and ASVK, as PEM. */
  chain: string;
  /** The root's revocation list, as DER. */
  revocationList: string;
}

/** @returns undefined where a report does not tell of which product its processor is */
export function keyServicePaths(fields: SnpFields): KeyServicePaths | undefined {
  const { product, signingKey } = fields;
  if (!product) return undefined;
  const base = `/${signingKey === 'VLEK' ? 'vlek' : 'vcek'}/v1/${product}`;
  const hardwareId = hardwareIdOf(fields, product);
  return {
    product,
    ...(signingKey === 'VCEK' &&
      hardwareId !== undefined && { certificate: certificatePath(product, hardwareId, fields.reportedTcb) }),
    chain: `${base}/cert_chain`,
    revocationList: `${base}/crl`,
  };
}

/** The part of the chip's id that its certificate names, hexadecimal. */
export function hardwareIdOf({ chipId }: SnpFields, product: Product): string | undefined {
  return chipId?.slice(0, 2 * hardwareIdSize[product]);
}

/** Path of the certificate of a key; undefined of a VLEK. */
export function pathOf({ product, hardwareId, tcb }: EndorsementKey): string | undefined {
  return hardwareId === undefined ? undefined : certificatePath(product, hardwareId, tcb);
}

function certificatePath(product: Product, hardwareId: string, tcb: TcbVersion): string {
  return `/vcek/v1/${product}/${hardwareId}?${query(tcb)}`;
}

function query({ fmc, bootloader, tee, snp, microcode }: TcbVersion): string {
  const levels = { fmc, bl: bootloader, tee, snp, ucode: microcode };
  return Object.entries(levels)
    .flatMap(([name, level]) => (level === undefined ? [] : [`${name}SPL=${level}`]))
    .join('&');
}
