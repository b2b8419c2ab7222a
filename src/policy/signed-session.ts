import { createHash, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { createBase58check } from '@scure/base';
import * as v from 'valibot';
import { type Failure, failure } from '../errors.ts';
import { readPublicKey } from '../quick-key.ts';
import { parsePublicKey } from '../secrets/private-key.ts';
import { formatKeyHash, publicKeyDigest } from './key-hash.ts';
import { formatPath, type Path } from './problem.ts';
import { list, object } from './shapes.ts';

/** Largest text of a session, in bytes, and most signatures under it. */
export const signedSessionLimits = { policy: 2 * 1024 * 1024, signatures: 16 } as const;

/** A public key in PEM has 211 characters at most, and a signature in base64 140; text around a PEM is allowed. */
const LONGEST_SIGNER = 4096;
const LONGEST_SIGNATURE = 1024;

const text = v.string('expected a text');

const signedSession = object({
  policy: v.pipe(
    text,
    v.maxBytes(signedSessionLimits.policy, `it has more than ${signedSessionLimits.policy} bytes`),
    // UTF-8 has no lone surrogates, so that several texts would be signed by the same signature.
    v.check((policy) => policy.isWellFormed(), 'it is no well-formed Unicode'),
  ),
  signatures: v.pipe(
    list(
      object({
        signer: v.pipe(text, v.maxLength(LONGEST_SIGNER, `longer than ${LONGEST_SIGNER} characters`)),
        signature: v.pipe(
          text,
          v.maxLength(LONGEST_SIGNATURE, `longer than ${LONGEST_SIGNATURE} characters`),
          v.check((base64) => Buffer.from(base64, 'base64').toString('base64') === base64, 'expected base64'),
        ),
      }),
    ),
    v.minLength(1, 'nobody has signed'),
    v.maxLength(signedSessionLimits.signatures, `more than ${signedSessionLimits.signatures} signatures`),
  ),
});

/**
 * The text of a session, and who agrees with it. A signer is a public key in PEM (SubjectPublicKeyInfo); a signature
 * is base64 of Ed25519 (RFC 8032), or of ECDSA on P-384 with SHA-384 in DER (RFC 3279 §2.2.3), as openssl makes them.
 */
export type SignedSession = v.InferOutput<typeof signedSession>;

const PREFIX = 'envcas signed session, version 1\n';

/**
 * The bytes that a signature is over: a line that names the purpose, then the text of the session in UTF-8. The line
 * separates the domains: a signature that the same key made for something else never counts for a session, nor
 * one of a session for anything else.
 */
export function messageToSign(policy: string): Buffer {
  return Buffer.from(PREFIX + policy);
}

/** Whether a text is meant as a signed session: a JSON object with the keys that one has. */
export function isSignedSession(text: string): boolean {
  if (!/^\s*\{/.test(text)) return false;
  try {
    const content: unknown = JSON.parse(text);
    return typeof content === 'object' && content !== null && 'policy' in content && 'signatures' in content;
  } catch {
    return false;
  }
}

/**
 * Reads a signed session. Whether its signatures verify is for {@link verifySignatures} to say.
 * @throws Failure SIGNED_SESSION_INVALID
 */
export function parseSignedSession(text: string): SignedSession {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    // A message of the parser would quote from the session.
    throw invalid([], 'it is not JSON');
  }
  return checked(content);
}

function checked(content: unknown): SignedSession {
  const parsed = v.safeParse(signedSession, content, { abortEarly: true });
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw invalid(issue.path?.map(({ key }) => key as string | number) ?? [], issue.message);
  }
  for (const [index, { signer }] of parsed.output.signatures.entries()) {
    const key = readSigner(signer);
    if (typeof key === 'string') throw invalid(['signatures', index, 'signer'], key);
  }
  return parsed.output;
}

function invalid(path: Path, problem: string): Failure {
  return failure('SIGNED_SESSION_INVALID', {
    detail: path.length > 0 ? `${formatPath(path)}: ${problem}` : problem,
  });
}

/**
 * Adds the signature of a key, in the place of one that the same key made before. Those of others are kept unseen.
 * @param session a text, or one that is signed already
 * @throws Failure SIGNED_SESSION_INVALID where the result would be none, or the key is of another type
 */
export function signSession(session: SignedSession | string, privateKey: KeyObject): SignedSession {
  const publicKey = createPublicKey(privateKey);
  const algorithm = algorithmOf(publicKey);
  if (!algorithm) throw invalid(['signer'], SIGNER_EXPECTED);
  const { policy } = unsigned(session);
  const signature = sign(algorithm.hash, messageToSign(policy), privateKey);
  return withSignature(session, publicKey, signature);
}

/**
 * Adds a signature that was made elsewhere over {@link messageToSign}, in the place of one by the same signer.
 * @param session a text, or one that is signed already
 * @param signerPem public key
 * @param signature the bytes that openssl writes
 * @throws Failure SIGNATURE_INVALID, or SIGNED_SESSION_INVALID as {@link signSession}
 */
export function addSignature(
  session: SignedSession | string,
  signerPem: string,
  signature: Buffer,
): SignedSession {
  const signer = readSigner(signerPem);
  if (typeof signer === 'string') throw invalid(['signer'], signer);
  verifySignature(messageToSign(unsigned(session).policy), signer, signature);
  return withSignature(session, signer, signature);
}

const unsigned = (session: SignedSession | string): SignedSession =>
  typeof session === 'string' ? { policy: session, signatures: [] } : session;

function withSignature(session: SignedSession | string, key: KeyObject, signature: Buffer): SignedSession {
  const { policy, signatures } = unsigned(session);
  const digest = publicKeyDigest(key);
  const others = signatures.filter(({ signer }) => {
    const other = readSigner(signer);
    return typeof other === 'string' || !publicKeyDigest(other).equals(digest);
  });
  const signer = key.export({ type: 'spki', format: 'pem' }) as string;
  return checked({ policy, signatures: [...others, { signer, signature: signature.toString('base64') }] });
}

/**
 * @returns the digest of every signer's public key (as `publicKeyDigest`), in order: all have signed this text, and
 *   no two are the same
 * @throws Failure SIGNATURE_INVALID, or SIGNED_SESSION_INVALID where a signer is no key
 */
export function verifySignatures({ policy, signatures }: SignedSession): Buffer[] {
  const digests: Buffer[] = [];
  const message = messageToSign(policy);
  for (const [index, { signer, signature }] of signatures.entries()) {
    const key = readSigner(signer);
    if (typeof key === 'string') throw invalid(['signatures', index, 'signer'], key);
    const digest = verifySignature(message, key, Buffer.from(signature, 'base64'));
    if (digests.some((other) => other.equals(digest)))
      throw failure('SIGNATURE_INVALID', { signer: formatKeyHash(digest), detail: 'it is there twice' });
    digests.push(digest);
  }
  return digests;
}

function verifySignature(message: Buffer, signer: KeyObject, signature: Buffer): Buffer {
  const digest = publicKeyDigest(signer);
  const algorithm = algorithmOf(signer);
  if (!algorithm || !verify(algorithm.hash, message, signer, signature))
    throw failure('SIGNATURE_INVALID', {
      signer: formatKeyHash(digest),
      detail: 'it is not over this text, or of another key',
    });
  return digest;
}

const base58check = createBase58check((data: Uint8Array) => createHash('sha256').update(data).digest());
const ED25519_VERSION = 10;
const SIGNER_EXPECTED = 'expected an Ed25519 or P-384 key';

/**
 * Reads a signer as an access policy names one: a public key in PEM, or the older Base58Check (version byte 10) of
 * the 32 bytes of an Ed25519 key.
 * @returns SHA-256 of its SubjectPublicKeyInfo (as `publicKeyDigest`), or a message where it is malformed
 */
export function signerDigest(text: string): Buffer | string {
  const key = text.includes('-----BEGIN ') ? readSigner(text) : readOlderSigner(text.trim());
  return typeof key === 'string' ? key : publicKeyDigest(key);
}

function readOlderSigner(text: string): KeyObject | string {
  const expected = 'expected a public key (PEM), or the older Base58Check of an Ed25519 key';
  let bytes: Uint8Array;
  try {
    bytes = base58check.decode(text);
  } catch {
    return expected;
  }
  if (bytes.length !== 33) return expected;
  if (bytes[0] !== ED25519_VERSION)
    return 'it is a key hash, or something else that is no key; expected a public key (PEM)';
  const x = Buffer.from(bytes.subarray(1)).toString('base64url');
  return createPublicKey({ format: 'jwk', key: { kty: 'OKP', crv: 'Ed25519', x } });
}

function readSigner(pem: string): KeyObject | string {
  const spki = parsePublicKey(pem);
  if (typeof spki === 'string') return spki;
  const key = readPublicKey(spki);
  if (!algorithmOf(key)) return SIGNER_EXPECTED;
  // Through JWK, which has but one form of a key: with a compressed point, one signer could count as two.
  return createPublicKey({ key: key.export({ format: 'jwk' }), format: 'jwk' });
}

/** How a key signs; Ed25519 has its own hash. */
function algorithmOf(key: KeyObject): { hash: 'sha384' | null } | undefined {
  if (key.asymmetricKeyType === 'ed25519') return { hash: null };
  return key.asymmetricKeyDetails?.namedCurve === 'secp384r1' ? { hash: 'sha384' } : undefined;
}
