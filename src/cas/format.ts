import { formatSecret, isSlow, type TypedSecret } from '../secrets/kinds.ts';
import { inThread } from './threads.ts';

/**
 * The bytes that stand in the place of a reference, as formatSecret gives them.
 * @throws SecretUnusable
 */
export async function formatted(typed: TypedSecret, format: string): Promise<Buffer> {
  if (!isSlow(typed, format)) return formatSecret(typed, format);
  const { kind, secret, chain, privateKey } = typed;
  const bare = { kind, secret: secret.reveal(), chain, privateKey: privateKey?.reveal() };
  return Buffer.from(await inThread('short', 'formatSecret', { ...bare, format }));
}
