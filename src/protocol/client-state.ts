import { closeSync, existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { failure } from '../errors.ts';
import { homeFolder } from '../platform/home.ts';
import { lockFile } from '../platform/libc.ts';
import {
  makePrivateDirectory,
  openLock,
  readPrivate,
  requireOwnFolder,
  writePrivate,
} from '../platform/private-file.ts';
import { type Address, formatAddress } from '../policy/address.ts';
import { publicKeyDigest } from '../policy/key-hash.ts';
import { firstCertificate } from '../secrets/x509.ts';

/** Who says which key a CAS must have, where it is from this state. */
export const PINNED_BY_ATTEST = 'by `scone cas attest`';

/** What `scone` remembers for its user: who the user is, and which CASes were attested. */
const clientState = v.looseObject({
  default_cas: v.optional(v.string()),
  /** PKCS#8 key, then certificate, both PEM. */
  identity: v.optional(v.string()),
  cas_db: v.optional(
    v.record(
      v.string(),
      v.looseObject({
        url: v.string(),
        /** Certificate chain of the CAS as PEM; its first key is pinned. */
        chain: v.string(),
        /** Address of the enclave port, where it is not the default. */
        enclave: v.optional(v.string()),
      }),
    ),
    {},
  ),
});
export type ClientState = v.InferOutput<typeof clientState>;

export function clientStatePath(env: NodeJS.ProcessEnv): string {
  return env.SCONE_CLI_CONFIG || join(homeFolder(env), '.cas', 'config.json');
}

/** @throws Failure FILE_INVALID, or STATE_UNUSABLE where other users may read it, or could have made it */
export function readClientState(env: NodeJS.ProcessEnv): ClientState {
  const path = clientStatePath(env);
  if (existsSync(dirname(path))) requireOwnFolder(dirname(path));
  const text = readPrivate(path);
  if (!text) return { cas_db: {} };
  // The file holds a private key, so no message quotes from it.
  let content: unknown;
  try {
    content = JSON.parse(text.toString());
  } catch {
    throw failure('FILE_INVALID', { path, detail: 'it is not JSON' });
  }
  const parsed = v.safeParse(clientState, content);
  if (parsed.success && !Array.isArray(content)) return parsed.output;
  throw failure('FILE_INVALID', {
    path,
    detail: `unexpected value at ${(parsed.issues && v.getDotPath(parsed.issues[0])) ?? 'the top'}`,
  });
}

/** Milliseconds; a change takes a few. */
const LOCK_PATIENCE = 5_000;

/** Changes the state; of two processes that do so at once, neither undoes what the other did. */
export function updateClientState(
  env: NodeJS.ProcessEnv,
  change: (state: ClientState) => ClientState,
): ClientState {
  const path = clientStatePath(env);
  makePrivateDirectory(dirname(path));
  requireOwnFolder(dirname(path));
  const lockPath = `${path}.lock`;
  const lock = openLock(lockPath);
  try {
    if (!lockFile(lock, LOCK_PATIENCE))
      throw failure('STATE_UNUSABLE', { path: lockPath, detail: 'another process holds it' });
    const state = change(readClientState(env));
    writePrivate(path, Buffer.from(`${JSON.stringify(state, null, 2)}\n`), 'replace');
    return state;
  } finally {
    closeSync(lock);
  }
}

/** Digest of the key pinned for the CAS with this enclave port, or undefined. */
export function pinnedKey(env: NodeJS.ProcessEnv, cas: Address): Buffer | undefined {
  const { cas_db } = readClientState(env);
  const wanted = formatAddress(cas);
  const entry = Object.values(cas_db).find(({ enclave }) => enclave === wanted);
  return entry && chainKey(env, entry.chain);
}

/** Digest of the key in the first certificate of a chain. */
export function chainKey(env: NodeJS.ProcessEnv, chain: string): Buffer {
  try {
    return publicKeyDigest(firstCertificate(chain).publicKey);
  } catch {
    throw failure('FILE_INVALID', { path: clientStatePath(env), detail: 'a chain in it is no certificate' });
  }
}
