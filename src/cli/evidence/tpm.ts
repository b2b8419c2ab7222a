import { createPublicKey } from 'node:crypto';
import * as v from 'valibot';
import type { TpmQuote } from '../../attestation/tpm/verify.ts';
import { failure } from '../../errors.ts';
import { readInput } from '../input.ts';

/** Files that belong to a TPM's quote, as tpm2_quote(1) and tpm2_createak(1) write them. */
export interface TpmFiles {
  signature?: string;
  key?: string;
  pcrs?: string;
  eventLog?: string;
}

/** Bytes of a file, but for an event log. */
const LARGEST = 64 * 1024;
const LARGEST_LOG = 4 * 1024 * 1024;

const base64 = v.pipe(
  v.string(),
  v.maxLength(LARGEST),
  v.base64(),
  v.transform((text) => Buffer.from(text, 'base64')),
);
/** A quote with all that belongs to it: the key is SubjectPublicKeyInfo, the registers are those from 0 on. */
const bundle = v.object({
  ak_public: base64,
  tpm_quote: v.object({
    message: base64,
    signature: base64,
    pcrs: v.pipe(v.array(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))), v.maxLength(24)),
  }),
});

/**
 * A quote, and the files that the user has named with it.
 * @throws Failure USAGE or FILE_INVALID
 */
export function readTpmQuote(message: Buffer, files: TpmFiles): TpmQuote {
  const { signature, key, pcrs, eventLog } = files;
  if (signature === undefined || key === undefined)
    throw failure('USAGE', { detail: "a TPM's quote is verified with --signature and --key" });
  return {
    message,
    signature: readInput(signature, LARGEST),
    key: readKey(key),
    ...(pcrs !== undefined && { pcrs: readInput(pcrs, LARGEST) }),
    ...(eventLog !== undefined && { eventLog: readInput(eventLog, LARGEST_LOG) }),
  };
}

function readKey(file: string): TpmQuote['key'] {
  const bytes = readInput(file, LARGEST);
  return bytes.includes('-----BEGIN ') ? publicKey(file, { key: bytes, format: 'pem' }) : bytes;
}

/** @throws Failure FILE_INVALID */
export function parseTpmBundle(bytes: Buffer, file: string): TpmQuote {
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), bundle), bytes.toString());
  if (!parsed.success) {
    const place = v.getDotPath(parsed.issues[0]) ?? 'the top';
    throw failure('FILE_INVALID', { path: file, detail: `it is not Evidence: unexpected at ${place}` });
  }
  const { ak_public, tpm_quote } = parsed.output;
  return {
    message: tpm_quote.message,
    signature: tpm_quote.signature,
    key: publicKey(file, { key: ak_public, format: 'der', type: 'spki' }),
    pcrs: Object.fromEntries(tpm_quote.pcrs.map((value, register) => [String(register), value])),
  };
}

function publicKey(file: string, input: Parameters<typeof createPublicKey>[0]) {
  try {
    return createPublicKey(input);
  } catch {
    throw failure('FILE_INVALID', { path: file, detail: 'it holds no public key that can be read' });
  }
}
