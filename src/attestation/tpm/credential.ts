import {
  constants,
  createCipheriv,
  createHash,
  createHmac,
  diffieHellman,
  generateKeyPairSync,
  publicEncrypt,
  randomBytes,
} from 'node:crypto';
import { failure } from '../../errors.ts';
import { invalidEvidence, Malformed, refusing } from '../bytes.ts';
import { type Certificate, parseCertificate } from '../x509/certificate.ts';
import { type ChainOptions, verifyChain } from '../x509/chain.ts';
import { attributes, type PublicArea, padded, parsePublicArea } from './structures.ts';

/** What the TPM is to open, which only the one can that has both keys. */
export interface Credential {
  /** TPM2B_ID_OBJECT */
  credentialBlob: Buffer;
  /** TPM2B_ENCRYPTED_SECRET */
  encryptedSecret: Buffer;
}

/** Of SHA-256. */
const DIGEST = 32;
const AES_128 = 128;

/**
 * Makes a credential (TPM2_MakeCredential; TPM 2.0 Library Part 1 §24, Annexes B.10 and C.6): a secret that just the TPM
 * with the endorsement key can open, and only if it has the key with the name too.
 * @param endorsementKey TPMT_PUBLIC: RSA, or ECC on P-256
 * @param name of the attestation key
 * @param secret at most 32 bytes
 * @throws Malformed
 */
export function makeCredential(endorsementKey: Buffer, name: Buffer, secret: Buffer): Credential {
  const area = parsePublicArea(endorsementKey);
  if (secret.length > DIGEST) throw new Malformed(`a secret of more than ${DIGEST} bytes`);
  if (area.nameHash !== 'sha256') throw new Malformed('an endorsement key of another hash than SHA-256');
  const { seed, encryptedSecret } = area.type === 'rsa' ? sealRsa(area) : sealEcc(area);
  const encryptionKey = kdfA(seed, 'STORAGE', name, Buffer.alloc(0), AES_128);
  const cipher = createCipheriv('aes-128-cfb', encryptionKey, Buffer.alloc(16));
  const identity = Buffer.concat([cipher.update(sized(secret)), cipher.final()]);
  const integrityKey = kdfA(seed, 'INTEGRITY', Buffer.alloc(0), Buffer.alloc(0), 256);
  const integrity = createHmac('sha256', integrityKey).update(identity).update(name).digest();
  return {
    credentialBlob: sized(Buffer.concat([sized(integrity), identity])),
    encryptedSecret: sized(encryptedSecret),
  };
}

/** RSA: the seed is encrypted with OAEP under the label IDENTITY (Annex B.10.4). */
function sealRsa({ key }: PublicArea) {
  const seed = randomBytes(DIGEST);
  const oaepLabel = Buffer.from('IDENTITY\0');
  const padding = constants.RSA_PKCS1_OAEP_PADDING;
  return { seed, encryptedSecret: publicEncrypt({ key, padding, oaepHash: 'sha256', oaepLabel }, seed) };
}

/** ECC: the seed is derived from a key agreement with a key made for it (Annex C.6.1). */
function sealEcc({ key }: PublicArea) {
  if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1')
    throw new Malformed('an endorsement key on another curve than P-256');
  const own = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const shared = diffieHellman({ privateKey: own.privateKey, publicKey: key });
  const point = own.publicKey.export({ format: 'jwk' });
  const coordinate = (text: string | undefined) => padded(Buffer.from(text ?? '', 'base64url'), 32);
  const [x, y] = [coordinate(point.x), coordinate(point.y)];
  const theirs = coordinate(key.export({ format: 'jwk' }).x);
  // KDFe (Part 1 §11.4.10.3).
  const seed = createHash('sha256')
    .update(Buffer.from([0, 0, 0, 1]))
    .update(shared)
    .update('IDENTITY\0')
    .update(x)
    .update(theirs)
    .digest();
  return { seed, encryptedSecret: Buffer.concat([sized(x), sized(y)]) };
}

/** KDFa with SHA-256 (Part 1 §11.4.10.2), for at most one block. */
function kdfA(key: Buffer, label: string, contextU: Buffer, contextV: Buffer, bits: number): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bits);
  return createHmac('sha256', key)
    .update(Buffer.from([0, 0, 0, 1]))
    .update(`${label}\0`)
    .update(contextU)
    .update(contextV)
    .update(length)
    .digest()
    .subarray(0, bits / 8);
}

function sized(bytes: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** Whose TPMs are trusted. */
export interface TrustedTpms extends Pick<ChainOptions, 'certificates' | 'revocationLists' | 'roots'> {
  /** Endorsement keys that an operator trusts by name: SHA-256 of the public key (SubjectPublicKeyInfo), hexadecimal. */
  trustedKeys: readonly string[];
}

export const noTpms: TrustedTpms = {
  certificates: [],
  revocationLists: [],
  roots: new Set(),
  trustedKeys: [],
};

/** PolicyA of the TCG (EK Credential Profile §B.6.2). */
const POLICY_A = '837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa';

/** Whether a key is of the template L-1 (EK Credential Profile §B.3.3): with keys of others a TPM would be several. */
const isTheOne = ({ type, key, policy, nameHash }: PublicArea): boolean =>
  type === 'rsa' &&
  key.asymmetricKeyDetails?.modulusLength === 2048 &&
  nameHash === 'sha256' &&
  policy.toString('hex') === POLICY_A;

/** Extensions of endorsement key certificates that may be critical (TCG EK Credential Profile §3.2). */
const SUBJECT_ALT_NAME = '2.5.29.17';
const EXTENDED_KEY_USAGE = '2.5.29.37';
/** tcg-kp-EKCertificate */
const FOR_ENDORSEMENT = '2.23.133.8.1';

/**
 * Checks that an endorsement key is that of a TPM which somebody vouches for: its maker, by a certificate, or an operator.
 * @param endorsementKey TPMT_PUBLIC
 * @param certificate DER
 * @returns SHA-256 of its public key, hexadecimal, by which the TPM is known
 * @throws Failure TPM_UNTRUSTED, EVIDENCE_INVALID or CERTIFICATE_REVOKED
 */
export function verifyEndorsementKey(
  { endorsementKey, certificate }: { endorsementKey: Buffer; certificate?: Buffer | undefined },
  { trustedKeys, at, ...trusted }: TrustedTpms & { at: number },
): { ek: string; trustedBy: 'certificate' | 'name' } {
  return refusing(() => {
    const area = parsePublicArea(endorsementKey);
    const { fixedTpm, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt } = attributes;
    const { sign, encryptedDuplication, x509sign, reserved } = attributes;
    const needed = fixedTpm | fixedParent | sensitiveDataOrigin | adminWithPolicy | restricted | decrypt;
    if (
      (area.attributes & needed) !== needed ||
      area.attributes & (sign | encryptedDuplication | x509sign | reserved)
    )
      throw invalidEvidence('the endorsement key has not the attributes of one');
    const spki = area.key.export({ type: 'spki', format: 'der' });
    const ek = createHash('sha256').update(spki).digest('hex');
    if (trustedKeys.includes(ek)) return { ek, trustedBy: 'name' };
    const untrusted = (detail: string) => failure('TPM_UNTRUSTED', { key: ek, detail });
    if (!certificate) throw untrusted('it has no certificate');
    if (!isTheOne(area))
      throw untrusted(
        'a certificate counts for its RSA key of 2048 bits alone (template L-1), of which each TPM has one',
      );
    const parsed = parseCertificate(certificate);
    if (!parsed.x509.publicKey.export({ type: 'spki', format: 'der' }).equals(spki))
      throw untrusted('its certificate is for another key');
    if (trusted.roots.size === 0) throw untrusted('no maker is trusted');
    const { certificates } = verifyChain(parsed, 'the certificate of the endorsement key', {
      ...trusted,
      at,
      revocation: 'where given',
      noIssuer: (subject) =>
        untrusted(
          `no certificate that is given has issued ${subject.commonName}, so there is no chain to a root`,
        ),
      understood: [SUBJECT_ALT_NAME, EXTENDED_KEY_USAGE],
    });
    if (parsed.x509.ca) throw untrusted(`${parsed.commonName} is an authority, no endorsement key`);
    const misused = certificates.find((each) => isForOther(each, each === parsed));
    if (misused)
      throw untrusted(
        `${misused.commonName} is not for endorsement keys (extended key usage ${FOR_ENDORSEMENT})`,
      );
    return { ek, trustedBy: 'certificate' };
  });
}

/** Whether it does not say that it is for this; of issuers it counts where it is critical. */
function isForOther({ critical, x509 }: Certificate, isOfKey: boolean): boolean {
  const isLimited = isOfKey || critical.includes(EXTENDED_KEY_USAGE);
  return isLimited && !(x509.keyUsage ?? []).includes(FOR_ENDORSEMENT);
}
