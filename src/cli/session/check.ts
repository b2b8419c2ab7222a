import { formatKeyHash } from '../../policy/key-hash.ts';
import { signerDigest } from '../../policy/signed-session.ts';
import type { Output } from '../output.ts';
import { loadSession, type TemplateOptions } from './file.ts';

/** `scone session check FILE`: prints the session with its template variables filled in. */
export async function checkSession(file: string, options: TemplateOptions): Promise<Output> {
  const { text, signed } = await loadSession(file, options);
  const signers = (signed?.signatures ?? []).flatMap(({ signer }) => {
    const digest = signerDigest(signer);
    return typeof digest === 'string' ? [] : [formatKeyHash(digest)];
  });
  return { text, json: { session: text, signers } };
}
