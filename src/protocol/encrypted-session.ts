import { createPublicKey, type KeyObject } from 'node:crypto';
import { CompactEncrypt, compactDecrypt } from 'jose';
import * as v from 'valibot';
import { type Failure, failure } from '../errors.ts';
import { formatKeyHash, publicKeyDigest } from '../policy/key-hash.ts';
import { readPublicKey } from '../quick-key.ts';
import { parsePublicKey } from '../secrets/private-key.ts';

/**
 * A session that only one CAS can open: a JWE in compact form (RFC 7516), whose content is the text of a session, or
 * of a signed one. There is one recipient, so its key is agreed on directly (ECDH-ES, RFC 7518 §4.6, with X25519 of
 * RFC 8037 §3.2) and nothing is wrapped; the content is under AES-256-GCM. X25519, since such a key can do nothing
 * else: it can be mistaken for none that signs or speaks TLS, and there are no points off the curve to look out for.
 *
 * It hides a text and says nothing of where it comes from: whoever sees one can send it to the CAS, under any name.
 * A signature inside says who stands behind it.
 */
const ALGORITHM = 'ECDH-ES';
const ENCRYPTION = 'A256GCM';
const TYPE = 'envcas-session+jwe';

/** Longest encrypted session, in characters; four for three bytes of the session. */
export const ENCRYPTED_SESSION_LIMIT = 3 * 1024 * 1024;
/** A header has 280 characters or so. */
const LONGEST_HEADER = 1024;

const header = v.strictObject({
  alg: v.literal(ALGORITHM),
  enc: v.literal(ENCRYPTION),
  typ: v.literal(TYPE),
  kid: v.string(),
  epk: v.strictObject({ kty: v.literal('OKP'), crv: v.literal('X25519'), x: v.string() }),
});

const invalid = (detail: string): Failure => failure('ENCRYPTED_SESSION_INVALID', { detail });

/**
 * @param text a session, or a signed one
 * @param publicKeyPem the X25519 key of the CAS (SubjectPublicKeyInfo, RFC 8410)
 * @throws Failure ENCRYPTED_SESSION_INVALID where the key is another one, or the text too large
 */
export async function encryptSession(text: string, publicKeyPem: string): Promise<string> {
  const spki = parsePublicKey(publicKeyPem);
  if (typeof spki === 'string') throw invalid(`the key of the CAS: ${spki}`);
  const key = readPublicKey(spki);
  if (key.asymmetricKeyType !== 'x25519') throw invalid('the key of the CAS: expected an X25519 key');
  const kid = formatKeyHash(publicKeyDigest(key));
  const encrypted = await new CompactEncrypt(Buffer.from(text))
    .setProtectedHeader({ alg: ALGORITHM, enc: ENCRYPTION, typ: TYPE, kid })
    .encrypt(key);
  checkLength(encrypted);
  return encrypted;
}

/** Whether a text is meant as an encrypted session: it begins as a JWE of this type does. */
export function isEncryptedSession(text: string): boolean {
  return v.is(v.looseObject({ typ: v.literal(TYPE) }), readHeader(text.trimStart()));
}

/**
 * Opens a session that was encrypted for this key. What is wrong with its outer form is told in detail, as it is there
 * for all to see; beyond that, only whether it is for another key, or does not decrypt.
 * @param privateKey X25519
 * @throws Failure ENCRYPTED_SESSION_INVALID
 */
export async function decryptSession(encrypted: string, privateKey: KeyObject): Promise<string> {
  checkLength(encrypted);
  const jwe = encrypted.trim();
  const parts = jwe.split('.', 6);
  const [, encryptedKey, iv, , tag] = parts;
  // Base64url can spell the same bytes in several ways; only the shortest is taken.
  const isPlain = parts.every((part) => Buffer.from(part, 'base64url').toString('base64url') === part);
  if (parts.length !== 5 || !isPlain || encryptedKey !== '' || iv?.length !== 16 || tag?.length !== 22)
    throw invalid('it has another form');
  const read = v.safeParse(header, readHeader(jwe));
  if (!read.success) throw invalid('it is encrypted in another way than is accepted');
  if (read.output.kid !== formatKeyHash(publicKeyDigest(createPublicKey(privateKey))))
    throw invalid('it is for another CAS');
  try {
    const { plaintext } = await compactDecrypt(jwe, privateKey, {
      keyManagementAlgorithms: [ALGORITHM],
      contentEncryptionAlgorithms: [ENCRYPTION],
    });
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(plaintext);
  } catch {
    throw invalid('it does not decrypt');
  }
}

/** Header of a JWE as it stands there, or undefined. */
function readHeader(jwe: string): unknown {
  const end = jwe.slice(0, LONGEST_HEADER + 1).indexOf('.');
  if (end < 0) return undefined;
  try {
    return JSON.parse(Buffer.from(jwe.slice(0, end), 'base64url').toString());
  } catch {
    return undefined;
  }
}

function checkLength(encrypted: string): void {
  if (encrypted.length > ENCRYPTED_SESSION_LIMIT)
    throw invalid(`it has more than ${ENCRYPTED_SESSION_LIMIT} characters`);
}
