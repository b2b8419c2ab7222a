import { createHash } from 'node:crypto';
import { SOFTWARE_IDENTITY } from '../policy/schema/secrets.ts';
import type { SecretDefinition } from '../policy/session.ts';
import { parseDuration } from '../secrets/duration.ts';
import { publicKeyOf } from '../secrets/private-key.ts';
import { renewalTime } from '../secrets/x509.ts';
import type { Cas } from './cas.ts';
import { type Issued, issuedOnce } from './issued.ts';

type TokenDefinition = Extract<SecretDefinition, { kind: 'jwt' }>;

/**
 * The token of a secret: issued on first use, and again before it runs out or when it would say something else. One that
 * names its launcher is signed each time, since there can be as many as launchers.
 * @param privateKey of its signer, PKCS#8 in DER
 * @param payload its claims, with variables filled in
 */
export async function tokenOf(
  cas: Cas,
  session: string,
  definition: TokenDefinition,
  privateKey: Buffer,
  payload: Record<string, string>,
): Promise<Issued> {
  const validFor = parseDuration(definition.validity.for) ?? 0;
  const make = async (now: number) => {
    const { signJwt } = await import('../secrets/jwt.ts');
    const token = await signJwt({ privateKey, payload, validFor, now });
    return {
      content: Buffer.from(token),
      from: Math.floor(now / 1000) * 1000,
      renew: renewalTime(now, now + validFor),
    };
  };
  if (Object.values(definition.payload).includes(SOFTWARE_IDENTITY)) return make(cas.clock());
  const parts = [publicKeyOf(privateKey).toString('hex'), validFor, Object.entries(payload)];
  const madeOf = createHash('sha256').update(JSON.stringify(parts)).digest('hex');
  // All that it is made of counts, so a new version of the session alone is no reason for another.
  return issuedOnce(cas, { session, number: 0, name: definition.name, madeOf, make });
}
