import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { platformOf } from '../attestation/software.ts';
import { readOrCreatePrivate } from '../platform/private-file.ts';

/** The key that makes a LAS the one it is. */
export interface LasKey {
  private: KeyObject;
  /** Its public half, 32 bytes in hexadecimal. */
  platform: string;
}

/** Reads the Ed25519 key of a LAS (PKCS#8 PEM, mode 0600), or makes it on the first start. */
export function openLasKey(path: string): LasKey {
  const pem = readOrCreatePrivate(path, () =>
    Buffer.from(generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' })),
  );
  const key = createPrivateKey(pem);
  return { private: key, platform: platformOf(createPublicKey(key)) };
}
