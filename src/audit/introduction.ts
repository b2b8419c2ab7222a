import { createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import * as v from 'valibot';
import { publicKeyDigest } from '../policy/key-hash.ts';
import type { Identity } from '../protocol/certificate.ts';
import { readPublicKey } from '../quick-key.ts';
import { parsePublicKey } from '../secrets/private-key.ts';
import { publicKey } from './tree-head.ts';

/**
 * By what an audit log is known as that of a CAS, without asking it: the key that people know the CAS by has signed the key
 * of the log (ECDSA with SHA-256).
 */
export const introduction = v.object({
  /** Public key of the CAS, and of its audit log: SPKI, PEM. */
  casKey: v.pipe(v.string(), v.maxLength(1024)),
  auditLogKey: v.pipe(v.string(), v.maxLength(1024)),
  keySignature: v.pipe(v.string(), v.maxLength(512), v.base64()),
});

const CONTEXT = 'envcas audit log key 1\n';

export function introduce({ key }: { key: string }, identity: Identity): v.InferOutput<typeof introduction> {
  const signer = createPrivateKey(identity.key);
  return {
    casKey: createPublicKey(signer).export({ type: 'spki', format: 'pem' }) as string,
    auditLogKey: key,
    keySignature: sign('sha256', Buffer.from(CONTEXT + key), signer).toString('base64'),
  };
}

/** @returns the key of the log and the SHA-256 of the CAS's; undefined of what is no introduction */
export function readIntroduction(entry: unknown): { key: KeyObject; cas: Buffer } | undefined {
  const parsed = v.safeParse(introduction, entry);
  if (!parsed.success) return undefined;
  const { casKey, auditLogKey, keySignature } = parsed.output;
  const key = publicKey(auditLogKey);
  try {
    const spki = parsePublicKey(casKey);
    if (!key || typeof spki === 'string') return undefined;
    const cas = readPublicKey(spki);
    if (!verify('sha256', Buffer.from(CONTEXT + auditLogKey), cas, Buffer.from(keySignature, 'base64')))
      return undefined;
    return { key, cas: publicKeyDigest(cas) };
  } catch {
    return undefined;
  }
}
