import { DatabaseSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';
import { parentPort } from 'node:worker_threads';
import * as v from 'valibot';
import { type CollateralFile, collateralFiles } from '../attestation/collateral.ts';
import { judgeCollateral } from '../attestation/documents.ts';
import { type ErrorCode, Failure, reason } from '../errors.ts';
import { InvalidText } from '../policy/problem.ts';
import { checkSection, type Section } from '../policy/sections.ts';
import { hashedPart, isImported, parseSession, type SecretDefinition } from '../policy/session.ts';
import { isSignedSession, parseSignedSession, verifySignatures } from '../policy/signed-session.ts';
import { type Definition, makeSecret, parseValue } from '../secrets/generate.ts';
import { formatSecret, type SecretKind, SecretUnusable } from '../secrets/kinds.ts';
import { Secret } from '../secrets/secret.ts';
import type { CertificateRequest } from '../secrets/x509-issuer.ts';
import { parseJson } from './body.ts';
import { largeParts, openWritten, sealWritten } from './written-version.ts';

/** A secret as it goes from thread to thread. */
export interface BareSecret {
  kind: SecretKind;
  secret: Uint8Array;
  chain?: Uint8Array[] | undefined;
  privateKey?: Uint8Array | undefined;
}

/** What takes long, and is done in a thread of its own (threads.ts). */
const jobs = {
  /** Text and signers of a signed session, or null where it is none. */
  readSigned(content: string): { text: string; signers: string[] } | null {
    if (!isSignedSession(content)) return null;
    const signed = parseSignedSession(content);
    return { text: signed.policy, signers: verifySignatures(signed).map((key) => key.toString('hex')) };
  },
  /** What of a session decides over an upload of it, and what is made of the session to be stored. */
  parseSession(text: string) {
    const { session, warnings, unsupported } = parseSession(text);
    const { services: _, images: __, volumes: ___, security: ____, ...deciding } = session;
    return {
      session: deciding,
      ...{ warnings, unsupported },
      hashed: Buffer.from(hashedPart(session)),
      given: new Map(session.secrets.flatMap(givenValue)),
      // The text as it was uploaded: a CAS fills in no template variables.
      parts: largeParts(session, text),
    };
  },
  /** Files of a request, each of which has hundreds of kilobytes at most. */
  readCollateral: (text: string) => parseJson(text, v.strictObject({ files: collateralFiles })).files,
  judgeCollateral: ({ files, others, ...rest }: Parameters<typeof judgeCollateral>[0]) =>
    judgeCollateral({ files: files.map(asBuffers), others: others.map(asBuffers), ...rest }),
  openWritten,
  sealWritten,
  checkSection: ({ name, value }: { name: Section; value: unknown }) => checkSection(name, value),
  /** Of a database that is there. */
  checkpoint(path: string) {
    const address = pathToFileURL(path);
    address.search = '?mode=rw';
    const db = new DatabaseSync(address);
    try {
      db.exec('PRAGMA wal_checkpoint(PASSIVE)');
    } finally {
      db.close();
    }
  },
  async issueCertificate(request: CertificateRequest): Promise<Uint8Array> {
    const { issueCertificate } = await import('../secrets/x509-issuer.ts');
    try {
      return await issueCertificate(withBuffers(request));
    } catch (error) {
      throw new SecretUnusable(reason(error));
    }
  },
  makeSecret: async ({ definition, now }: { definition: Definition & { name: string }; now: number }) =>
    (await makeSecret(definition, now))?.reveal(),
  formatSecret: ({ kind, secret, chain, privateKey, format }: BareSecret & { format: string }) =>
    formatSecret(
      {
        kind,
        secret: new Secret(secret),
        ...(chain && { chain: chain.map((der) => Buffer.from(der)) }),
        ...(privateKey && { privateKey: new Secret(privateKey) }),
      },
      format,
    ),
};

const asBuffers = ({ name, bytes }: CollateralFile): CollateralFile => ({ name, bytes: Buffer.from(bytes) });

/** Buffers come to a thread as plain bytes. */
const withBuffers = ({
  publicKey,
  privateKey,
  issuer,
  ...request
}: CertificateRequest): CertificateRequest => ({
  ...request,
  publicKey: Buffer.from(publicKey),
  ...(privateKey && { privateKey: Buffer.from(privateKey) }),
  ...(issuer && {
    issuer: { certificate: Buffer.from(issuer.certificate), privateKey: Buffer.from(issuer.privateKey) },
  }),
});

/** Bytes of a secret that is written in the policy; to read a key or a certificate takes a millisecond. */
function givenValue(definition: SecretDefinition): [string, Uint8Array][] {
  const value = isImported(definition) ? undefined : parseValue(definition);
  return Buffer.isBuffer(value) ? [[definition.name, value]] : [];
}

export type Jobs = typeof jobs;
export type Job = keyof Jobs;

/** How a job has ended. */
export type Outcome =
  | { done: unknown }
  | { invalidText: InvalidText['problems'] }
  | { secretUnusable: string }
  | { failure: { code: ErrorCode; values: Failure['values'] } }
  | { failed: string };

parentPort?.on('message', async ({ job, input }: { job: Job; input: never }) => {
  parentPort?.postMessage('begun');
  const outcome = await outcomeOf(job, input);
  const bytes = 'done' in outcome && outcome.done instanceof Uint8Array ? outcome.done : undefined;
  // Handed over where they are all of their memory: to copy megabytes takes milliseconds there.
  const isAll = bytes?.length === bytes?.buffer.byteLength;
  parentPort?.postMessage(outcome, bytes && isAll ? [bytes.buffer as ArrayBuffer] : []);
});

async function outcomeOf(job: Job, input: never): Promise<Outcome> {
  try {
    return { done: await jobs[job](input) };
  } catch (error) {
    if (error instanceof InvalidText) return { invalidText: error.problems };
    if (error instanceof Failure) return { failure: { code: error.code, values: error.values } };
    if (error instanceof SecretUnusable) return { secretUnusable: error.message };
    return { failed: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
}
