import { constants, type KeyObject, verify } from 'node:crypto';
import { Malformed } from '../bytes.ts';
import { type Certificate, mayBeUsedFor, normalSerial } from './certificate.ts';
import {
  bitString,
  boolean,
  children,
  contextTag,
  type Element,
  expect,
  objectIdentifier,
  parseDer,
  smallInteger,
  tags,
  time,
} from './der.ts';

/** A certificate revocation list (RFC 5280 §5), parsed. */
export interface RevocationList {
  der: Buffer;
  /** Distinguished name of its issuer in DER. */
  issuer: Buffer;
  issuerName: string;
  /** Milliseconds since 1970. */
  thisUpdate: number;
  nextUpdate: number;
  /** Serial numbers of the certificates that are revoked, as {@link Certificate.serial}. */
  revoked: ReadonlySet<string>;
  /** What is signed, by which algorithm, and the signature. */
  signed: Buffer;
  algorithm: SignatureAlgorithm;
  signature: Buffer;
}

const PSS = '1.2.840.113549.1.1.10';
/**
 * SHA-384, MGF1 with SHA-384, 48 bytes of salt, trailer 1 (RFC 4055 §3.1), the last also left out: what AMD uses, in both
 * spellings.
 */
const pssParameters = [
  '3039a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130a303020101',
  '3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130',
];

type SignatureAlgorithm = keyof typeof algorithms;

/** By object identifier. */
const algorithms = {
  '1.2.840.10045.4.3.2': { hash: 'sha256', type: 'ec' },
  '1.2.840.10045.4.3.3': { hash: 'sha384', type: 'ec' },
  '1.2.840.113549.1.1.11': { hash: 'sha256', type: 'rsa', padding: constants.RSA_PKCS1_PADDING },
  '1.2.840.113549.1.1.12': { hash: 'sha384', type: 'rsa', padding: constants.RSA_PKCS1_PADDING },
  '1.2.840.113549.1.1.10': {
    hash: 'sha384',
    type: 'rsa',
    padding: constants.RSA_PKCS1_PSS_PADDING,
    saltLength: 48,
  },
} as const;

const LARGEST = 4 * 1024 * 1024;

/** @throws Malformed */
export function parseRevocationList(input: Buffer): RevocationList {
  if (input.length > LARGEST) throw new Malformed(`a revocation list has more than ${LARGEST} bytes`);
  try {
    return parse(Buffer.from(input));
  } catch (error) {
    throw new Malformed('a revocation list cannot be read', { cause: error });
  }
}

/** CertificateList of RFC 5280 §5.1, version 2. */
function parse(der: Buffer): RevocationList {
  const [signed, algorithm, signature] = children(parseDer(der, tags.sequence));
  const [version, inner, issuer, thisUpdate, nextUpdate, ...rest] = children(expect(signed, tags.sequence));
  const isVersion2 = smallInteger(version) === 1;
  const isSameAlgorithm = algorithm && inner && algorithm.encoded.equals(inner.encoded);
  if (!isVersion2 || !isSameAlgorithm || !signed || !thisUpdate || !nextUpdate)
    throw new Malformed('its form is not that of version 2');
  const revoked = rest[0]?.tag === tags.sequence ? children(rest[0]) : [];
  checkExtensions(rest.find(({ tag }) => tag === contextTag(0)));
  return {
    der,
    issuer: expect(issuer, tags.sequence).encoded,
    issuerName: nameOf(issuer),
    thisUpdate: time(thisUpdate),
    nextUpdate: time(nextUpdate),
    revoked: new Set(
      revoked.map((entry) => {
        const [serial] = children(expect(entry, tags.sequence));
        return normalSerial(expect(serial, tags.integer).content.toString('hex'));
      }),
    ),
    signed: signed.encoded,
    algorithm: algorithmOf(algorithm),
    signature: bitString(signature),
  };
}

const COMMON_NAME = '2.5.4.3';

/** Common name in a distinguished name. */
function nameOf(issuer: Element | undefined): string {
  for (const set of children(expect(issuer, tags.sequence)))
    for (const attribute of children(expect(set, tags.set))) {
      const [type, value] = children(attribute);
      if (value && objectIdentifier(type) === COMMON_NAME) return value.content.toString();
    }
  return 'without a name';
}

/** Partial and indirect lists (RFC 5280 §5.2.4, §5.2.5) say so by a critical extension; they are not taken. */
function checkExtensions(extensions: Element | undefined): void {
  if (!extensions) return;
  const [list] = children(extensions);
  for (const extension of children(expect(list, tags.sequence))) {
    const [id, critical] = children(extension);
    if (critical?.tag === tags.boolean && boolean(critical))
      throw new Malformed(`it has the critical extension ${objectIdentifier(id)}`);
  }
}

function algorithmOf({ encoded }: Element): SignatureAlgorithm {
  const [id, parameters] = children(parseDer(encoded, tags.sequence));
  const name = objectIdentifier(id);
  if (!Object.hasOwn(algorithms, name)) throw new Malformed(`its signature algorithm is ${name}`);
  if (name === PSS && !pssParameters.includes(parameters?.encoded.toString('hex') ?? ''))
    throw new Malformed('its signature has unusual parameters');
  return name as SignatureAlgorithm;
}

/** Whether the issuer's key has signed the list. That it has is kept with the list. */
export function isIssuedBy(list: RevocationList, issuer: Certificate): boolean {
  const issuers = verified.get(list) ?? new Set<string>();
  verified.set(list, issuers);
  if (issuers.has(issuer.fingerprint)) return true;
  const result = mayBeUsedFor(issuer, 'cRLSign') && isSigned(list, issuer.x509.publicKey);
  if (result) issuers.add(issuer.fingerprint);
  return result;
}

const verified = new WeakMap<RevocationList, Set<string>>();

function isSigned({ algorithm, signed, signature }: RevocationList, key: KeyObject): boolean {
  const { hash, type, ...options } = algorithms[algorithm];
  return key.asymmetricKeyType === type && verify(hash, signed, { key, ...options }, signature);
}
