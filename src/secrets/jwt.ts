import { createPrivateKey, createPublicKey } from 'node:crypto';
import { calculateJwkThumbprint, SignJWT } from 'jose';

/** A JSON Web Token to be made. */
export interface JwtRequest {
  /** PKCS#8 in DER, of a P-384 key. */
  privateKey: Buffer;
  /** Its claims, but for `iat`, `nbf` and `exp`. */
  payload: Record<string, string>;
  /** Milliseconds from `now`; whole seconds count. */
  validFor: number;
  /** Milliseconds since 1970. */
  now: number;
}

/**
 * Makes a JWT (RFC 7519) signed with ES384 (RFC 7518 §3.4) that is valid from now on. The key id in its header is
 * the thumbprint of the public key (RFC 7638).
 */
export async function signJwt({ privateKey, payload, validFor, now }: JwtRequest): Promise<string> {
  const key = createPrivateKey({ key: privateKey, format: 'der', type: 'pkcs8' });
  const issued = Math.floor(now / 1000);
  const publicKey = createPublicKey(key).export({ format: 'jwk' });
  return new SignJWT(payload)
    .setProtectedHeader({ alg: 'ES384', typ: 'JWT', kid: await calculateJwkThumbprint({ ...publicKey }) })
    .setIssuedAt(issued)
    .setNotBefore(issued)
    .setExpirationTime(issued + Math.floor(validFor / 1000))
    .sign(key);
}
