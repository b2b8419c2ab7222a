import type { KeyObject } from 'node:crypto';

/** Public exponents of RSA that anybody uses; one as long as the key has a check of a signature take as long as making it. */
const LARGEST_EXPONENT = 2n ** 32n;

/** Whether to check a signature of a key is quick. */
export const isQuick = ({ asymmetricKeyDetails }: KeyObject): boolean =>
  (asymmetricKeyDetails?.publicExponent ?? 0n) < LARGEST_EXPONENT;
