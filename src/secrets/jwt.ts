import { createHash, createPublicKey, type KeyObject, sign } from 'node:crypto';
import { readPrivateKey } from '../quick-key.ts';

/** A JSON Web Token to be made. */
export interface JwtRequest {
  /** PKCS#8 in DER, of a P-384 key. */
  privateKey: Buffer;
  /** Its claims as JSON of a map, which has no `iat`, `nbf` and `exp`. */
  payload: string;
  /** Milliseconds from `now`; whole seconds count. */
  validFor: number;
  /** Milliseconds since 1970. */
  now: number;
}

/**
 * Makes a JWT (RFC 7519) signed with ES384 (RFC 7518 §3.4) that is valid from now on. The key id in its header is
 * the thumbprint of the public key (RFC 7638).
 * @throws TypeError where the key is another than of P-384
 */
export async function signJwt({ privateKey, payload, validFor, now }: JwtRequest): Promise<string> {
  const key = readPrivateKey(privateKey);
  if (key.asymmetricKeyDetails?.namedCurve !== 'secp384r1') throw new TypeError('ES384 takes a key of P-384');
  const iat = Math.floor(now / 1000);
  const header = { alg: 'ES384', typ: 'JWT', kid: thumbprint(key) };
  const times = JSON.stringify({ iat, nbf: iat, exp: iat + Math.floor(validFor / 1000) });
  const claims = payload === '{}' ? times : `${payload.slice(0, -1)},${times.slice(1)}`;
  const content = [JSON.stringify(header), claims]
    .map((part) => Buffer.from(part).toString('base64url'))
    .join('.');
  return `${content}.${(await signature(key, content)).toString('base64url')}`;
}

/** The required members alone, in this order. */
function thumbprint(key: KeyObject): string {
  const { crv, kty, x, y } = createPublicKey(key).export({ format: 'jwk' });
  return createHash('sha256').update(JSON.stringify({ crv, kty, x, y })).digest('base64url');
}

/** As JOSE has it: both numbers in 48 bytes each. */
const signature = (key: KeyObject, content: string) =>
  new Promise<Buffer>((resolve, reject) =>
    sign('sha384', Buffer.from(content), { key, dsaEncoding: 'ieee-p1363' }, (error, bytes) =>
      error ? reject(error) : resolve(bytes),
    ),
  );
