import { Secret as SharedSecret, TOTP } from 'otpauth';
import { Secret } from './secret.ts';

/** Parameters of RFC 6238 that authenticator apps assume. */
const parameters = { algorithm: 'SHA1', digits: 6, period: 30 } as const;
/** Steps before and after the present one whose codes are accepted (RFC 6238 §5.2). */
const WINDOW = 1;
/** RFC 4226 §4, R6. */
const LEAST_BYTES = 16;

/**
 * Reads a shared secret from base32 (RFC 4648 §6), padding optional.
 * @returns a message where it is malformed or shorter than 128 bits
 */
export function parseSharedSecret(text: string): Secret | string {
  try {
    const bytes = SharedSecret.fromBase32(text).bytes;
    if (bytes.length >= LEAST_BYTES) return new Secret(bytes);
    return 'the shared secret of a one-time password has at least 128 bits (26 characters of base32)';
  } catch {
    return 'the shared secret of a one-time password is base32 (A-Z and 2-7)';
  }
}

/**
 * @param code what the user gave
 * @param now milliseconds since 1970
 * @returns the number of the time step that the code belongs to, or undefined where it is wrong or malformed
 */
export function matchOneTimePassword(sharedSecret: Secret, code: string, now: number): number | undefined {
  if (!/^[0-9]{6}$/.test(code)) return undefined;
  const secret = new SharedSecret({ buffer: new Uint8Array(sharedSecret.reveal()).buffer });
  const delta = TOTP.validate({ ...parameters, secret, token: code, timestamp: now, window: WINDOW });
  return delta === null ? undefined : TOTP.counter({ period: parameters.period, timestamp: now }) + delta;
}

/** The code of the step at `now`; what an authenticator app shows. */
export function oneTimePassword(sharedSecret: Secret, now: number): string {
  const secret = new SharedSecret({ buffer: new Uint8Array(sharedSecret.reveal()).buffer });
  return TOTP.generate({ ...parameters, secret, timestamp: now });
}

/**
 * The URI from which authenticator apps take a shared secret (Key URI Format of Google Authenticator), most often as
 * a QR code. A colon separates issuer and account in it, so that those of the issuer become hyphens.
 */
export function oneTimePasswordUri(sharedSecret: Secret, issuer: string, account: string): string {
  const secret = new SharedSecret({ buffer: new Uint8Array(sharedSecret.reveal()).buffer });
  return new TOTP({ ...parameters, secret, issuer: issuer.replaceAll(':', '-'), label: account }).toString();
}
