import * as v from 'valibot';
import { secretKinds } from '../secrets/kinds.ts';

/**
 * Sharing between sessions of two CASes, `POST /v1/exports`, over mutual TLS: each CAS knows the other by the key
 * hash that the session on its own side names (`cas_key`). The importing CAS vouches for name and hash of its session.
 */

const base64 = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9+/]*={0,2}$/),
  v.transform((text) => Buffer.from(text, 'base64')),
);
const name = v.pipe(v.string(), v.maxLength(512));
const hash = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));

/** A secret is handed through so many CASes at most; circles end here. */
export const MOST_HOPS = 4;

export const exportRequest = v.strictObject({
  session: name,
  secret: name,
  /** The version that the exporting session must have. */
  sessionHash: v.optional(hash),
  importer: v.strictObject({ session: name, hash }),
  hops: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MOST_HOPS)),
});

export const exportAnswer = v.strictObject({
  kind: v.picklist(secretKinds),
  secret: base64,
  chain: v.optional(v.pipe(v.array(base64), v.maxLength(32))),
  privateKey: v.optional(base64),
});

export type ExportRequest = v.InferInput<typeof exportRequest>;
export type ExportAnswer = v.InferInput<typeof exportAnswer>;
