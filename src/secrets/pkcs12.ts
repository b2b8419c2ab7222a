import { createHash } from 'node:crypto';
import * as asn1js from 'asn1js';
import * as pkijs from 'pkijs';

/** What goes into a PKCS#12 file. */
export interface Pkcs12Contents {
  /** In DER. */
  certificate: Buffer;
  /** Certificates of the issuers in DER, from the nearest to the root. */
  chain: readonly Buffer[];
  /** The certificate's, PKCS#8 in DER. */
  privateKey: Buffer;
  /** What programs show as the name of both. */
  friendlyName?: string;
}

/**
 * Everybody knows the empty password, so no number of iterations would protect anything. This is the least that
 * RFC 8018 §4.2 recommends, and that no reader refuses.
 */
const ITERATIONS = 1000;
const PASSWORD = new ArrayBuffer(0);

/** Types of bags and their attributes (RFC 7292 §4.2, RFC 2985 §5.5). */
const shroudedKeyBag = '1.2.840.113549.1.12.10.1.2';
const certBag = '1.2.840.113549.1.12.10.1.3';
const x509Certificate = '1.2.840.113549.1.9.22.1';
const friendlyNameAttribute = '1.2.840.113549.1.9.20';
const localKeyIdAttribute = '1.2.840.113549.1.9.21';

/**
 * A PKCS#12 file (RFC 7292) with empty password: the key encrypted by AES-256-CBC (PBES2), since some readers take
 * no other, the certificates in the clear, all under HMAC-SHA-256.
 * @returns PFX in DER
 */
export async function pkcs12(contents: Pkcs12Contents): Promise<Buffer> {
  const { certificate, chain, privateKey } = contents;
  const attributes = attributesOf(contents);
  const safe = new pkijs.SafeContents({
    safeBags: [
      bag(shroudedKeyBag, await shroud(privateKey), attributes),
      bag(certBag, certificateBag(certificate), attributes),
      ...chain.map((issuer) => bag(certBag, certificateBag(issuer), [])),
    ],
  });
  const authenticatedSafe = new pkijs.AuthenticatedSafe({
    safeContents: [
      new pkijs.ContentInfo({
        contentType: pkijs.ContentInfo.DATA,
        content: new asn1js.OctetString({ valueHex: safe.toSchema().toBER() }),
      }),
    ],
  });
  const pfx = new pkijs.PFX({ parsedValue: { integrityMode: 0, authenticatedSafe } });
  await pfx.makeInternalValues({
    password: PASSWORD,
    iterations: ITERATIONS,
    pbkdf2HashAlgorithm: 'SHA-256',
    hmacHashAlgorithm: 'SHA-256',
  });
  return Buffer.from(pfx.toSchema().toBER());
}

/** The same for the key and its certificate, so that readers know them to belong together. */
function attributesOf({ certificate, friendlyName }: Pkcs12Contents): pkijs.Attribute[] {
  const fingerprint = new Uint8Array(createHash('sha256').update(certificate).digest());
  return [
    new pkijs.Attribute({
      type: localKeyIdAttribute,
      values: [new asn1js.OctetString({ valueHex: fingerprint })],
    }),
    ...(friendlyName
      ? [
          new pkijs.Attribute({
            type: friendlyNameAttribute,
            values: [new asn1js.BmpString({ value: friendlyName })],
          }),
        ]
      : []),
  ];
}

function bag(bagId: string, bagValue: pkijs.BagType, bagAttributes: pkijs.Attribute[]): pkijs.SafeBag {
  return new pkijs.SafeBag({ bagId, bagValue, ...(bagAttributes.length > 0 && { bagAttributes }) });
}

function certificateBag(certificate: Buffer): pkijs.CertBag {
  const certValue = new asn1js.OctetString({ valueHex: new Uint8Array(certificate) });
  return new pkijs.CertBag({ certId: x509Certificate, certValue });
}

async function shroud(privateKey: Buffer): Promise<pkijs.PKCS8ShroudedKeyBag> {
  const key = pkijs.PrivateKeyInfo.fromBER(new Uint8Array(privateKey));
  const shrouded = new pkijs.PKCS8ShroudedKeyBag({ parsedValue: key });
  await shrouded.makeInternalValues({
    password: PASSWORD,
    contentEncryptionAlgorithm: { name: 'AES-CBC', length: 256 },
    hmacHashAlgorithm: 'SHA-256',
    iterationCount: ITERATIONS,
  });
  return shrouded;
}
