import { generateKeyPairSync, randomBytes, webcrypto } from 'node:crypto';
import { X509CertificateGenerator } from '@peculiar/x509';
import type { Identity } from '../src/protocol/certificate.ts';

const BITS = 3072;
const RSA = { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
const EC = { name: 'ECDSA', namedCurve: 'P-256' };

const toNumber = (text = '') => BigInt(`0x${Buffer.from(text, 'base64url').toString('hex')}`);
function toText(number: bigint): string {
  const digits = number.toString(16);
  return Buffer.from(digits.padStart(digits.length + (digits.length % 2), '0'), 'hex').toString('base64url');
}

/** By Euclid's extended algorithm. */
function inverse(number: bigint, modulus: bigint): bigint | undefined {
  let [a, b, x, y] = [modulus, number % modulus, 0n, 1n];
  while (b !== 0n) {
    const times = a / b;
    [a, b, x, y] = [b, a - times * b, y, x - times * y];
  }
  return a === 1n ? ((x % modulus) + modulus) % modulus : undefined;
}

/** An RSA key whose public exponent is as long as its modulus, so that to verify takes as long as to sign. */
async function dearKey() {
  const made = generateKeyPairSync('rsa', { modulusLength: BITS }).privateKey.export({ format: 'jwk' });
  const [p, q] = [toNumber(made.p) - 1n, toNumber(made.q) - 1n];
  for (;;) {
    const e = (toNumber(randomBytes(BITS / 8).toString('base64url')) % (p * q)) | 1n;
    const d = inverse(e, p * q);
    if (d === undefined) continue;
    const open = { kty: 'RSA', n: made.n ?? '', e: toText(e) };
    const whole = { ...made, ...open, d: toText(d), dp: toText(d % p), dq: toText(d % q) };
    return {
      privateKey: await webcrypto.subtle.importKey('jwk', whole, RSA, true, ['sign']),
      publicKey: await webcrypto.subtle.importKey('jwk', open, RSA, true, ['verify']),
    };
  }
}

/** An identity whose certificate comes with issuers, each of which takes milliseconds to be verified. */
export async function dearChain(issuers: number): Promise<Identity> {
  const leaf = await webcrypto.subtle.generateKey(EC, true, ['sign', 'verify']);
  const { privateKey, publicKey } = await dearKey();
  let certificate = '';
  for (let at = 0; at <= issuers; at++) {
    const made = await X509CertificateGenerator.create({
      ...{ serialNumber: '01', subject: `CN=${at}`, issuer: `CN=${at + 1}` },
      ...{ notBefore: new Date(Date.now() - 1000), notAfter: new Date(Date.now() + 86_400_000) },
      ...{ signingAlgorithm: RSA, signingKey: privateKey, publicKey: at === 0 ? leaf.publicKey : publicKey },
    });
    certificate += `${made.toString('pem')}\n`;
  }
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', leaf.privateKey)).toString('base64');
  return { key: `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n`, certificate };
}
