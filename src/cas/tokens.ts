import { createHash } from 'node:crypto';
import type { SecretDefinition } from '../policy/session.ts';
import { parseDuration } from '../secrets/duration.ts';
import { publicKeyOf } from '../secrets/private-key.ts';
import { renewalTime } from '../secrets/x509.ts';
import type { Cas } from './cas.ts';
import { type Issued, issuedOnce } from './issued.ts';
import { jsonInPieces } from './limits/json.ts';
import type { Pace } from './limits/pace.ts';

/** What a token is made of. */
interface TokenParts {
  definition: Extract<SecretDefinition, { kind: 'jwt' }>;
  /** Of its signer, PKCS#8 in DER. */
  privateKey: Buffer;
  /** By name, with variables filled in. */
  claims: ReadonlyMap<string, string>;
  /** Whether one of them is the launcher's measurement. */
  namesLauncher: boolean;
}

/**
 * The token of a secret: issued on first use, and again before it runs out or when it would say something else. One that
 * names its launcher is signed each time, since there can be as many as launchers.
 */
export async function tokenOf(
  cas: Cas,
  session: string,
  { definition, privateKey, claims, namesLauncher }: TokenParts,
  pace: Pace,
): Promise<Issued> {
  const validFor = parseDuration(definition.validity.for) ?? 0;
  const make = async (now: number) => {
    const { signJwt } = await import('../secrets/jwt.ts');
    const payload = Buffer.concat(await jsonInPieces(pace, claims)).toString();
    const token = await signJwt({ privateKey, payload, validFor, now });
    return {
      content: Buffer.from(token),
      from: Math.floor(now / 1000) * 1000,
      renew: renewalTime(now, now + validFor),
    };
  };
  if (namesLauncher) return make(cas.clock());
  const parts = [publicKeyOf(privateKey).toString('hex'), validFor, [...claims]];
  const hash = createHash('sha256');
  for (const piece of await jsonInPieces(pace, parts)) hash.update(piece);
  const madeOf = hash.digest('hex');
  // All that it is made of counts, so a new version of the session alone is no reason for another.
  return issuedOnce(cas, { session, number: 0, name: definition.name, madeOf, make });
}
