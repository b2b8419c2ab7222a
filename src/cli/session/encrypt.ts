import { encryptSession } from '../../protocol/encrypted-session.ts';
import { readInput } from '../input.ts';
import type { Output } from '../output.ts';
import { knownCas, sessionEncryptionKey } from '../state.ts';
import { loadSession, type TemplateOptions } from './file.ts';
import { signWithOwnKey } from './sign.ts';

/** Bytes of a public key in PEM, with text around it. */
const LARGEST_KEY = 65_536;

/**
 * `scone session encrypt FILE`: prints a session that only one CAS can open. A CAS takes such a session only where it
 * is signed inside, so one that is not is signed by this user.
 */
export async function encryptSessionFile(
  path: string,
  options: TemplateOptions & { cas?: string; key?: string },
): Promise<Output> {
  const key =
    options.key === undefined
      ? sessionEncryptionKey(knownCas(process.env, options.cas))
          .export({ type: 'spki', format: 'pem' })
          .toString()
      : readInput(options.key, LARGEST_KEY).toString('latin1');
  const file = await loadSession(path, options);
  const encryptedSession = await encryptSession(JSON.stringify(file.signed ?? signWithOwnKey(file)), key);
  return { text: `${encryptedSession}\n`, json: { encryptedSession } };
}
