import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { CompactSign } from 'jose';
import * as v from 'valibot';
import { failure, reason } from '../errors.ts';
import type { Ids } from '../platform/process.ts';
import type { Claims, Property } from './claims.ts';
import type { Credentials } from './credentials.ts';

/**
 * Evidence of the software root: an Entity Attestation Token (RFC 9711) as a JWS (RFC 7515) that a LAS signs
 * with its Ed25519 key. The key id in its header is the public key itself, 32 bytes in hexadecimal.
 */
const PROFILE = 'tag:envcas,2026:las-software-1';
const TYPE = 'eat+jwt';

const hex32 = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));
const header = v.strictObject({ alg: v.literal('EdDSA'), typ: v.literal(TYPE), kid: hex32 });
const id = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_ffff));
/** Real, effective and saved. */
const ids = v.tuple([id, id, id]);
const payload = v.object({
  eat_profile: v.literal(PROFILE),
  eat_nonce: v.pipe(v.string(), v.regex(/^[A-Za-z0-9_-]{86}$/)),
  iat: v.pipe(v.number(), v.integer()),
  /** RFC 9711 §4.2.9: software alone cannot rule out a debugger. */
  dbgstat: v.literal('enabled'),
  measurement: hex32,
  /** A LAS of an older version gives no id. */
  process: v.object({
    pid: v.number(),
    uid: v.number(),
    gid: v.number(),
    id: v.optional(hex32),
    cgroup: v.optional(v.pipe(v.string(), v.maxLength(1024))),
    uids: v.optional(ids),
    gids: v.optional(ids),
    user: v.optional(v.pipe(v.string(), v.maxLength(256))),
    unit: v.optional(v.pipe(v.string(), v.maxLength(256))),
  }),
  /** Nor does it look at these. */
  properties: v.optional(v.pipe(v.array(v.pipe(v.string(), v.maxLength(64))), v.maxLength(16)), []),
});

const spelled = ({ uid, gid, ...names }: Credentials) => ({
  uids: inOrder(uid),
  gids: inOrder(gid),
  ...names,
});
const inOrder = ({ real, effective, saved }: Ids): v.InferOutput<typeof ids> => [real, effective, saved];
const named = ([real, effective, saved]: v.InferOutput<typeof ids>): Ids => ({ real, effective, saved });

/** The process a LAS vouches for. */
export interface MeasuredProcess {
  measurement: string;
  pid: number;
  uid: number;
  gid: number;
  /** See {@link Claims.process}. */
  id: string;
  /** See {@link Claims.cgroup}. */
  cgroup?: string;
  /** As whom it runs. A LAS of an older version does not say. */
  credentials?: Credentials;
  properties: readonly Property[];
}

/** The 32 bytes of an Ed25519 public key in hexadecimal, by which a LAS is known. */
export function platformOf(publicKey: KeyObject): string {
  return Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url').toString('hex');
}

/**
 * Makes Evidence about a process.
 * @param reportData 64 bytes that the process gave
 * @param now milliseconds since 1970
 */
export function signSoftwareEvidence(
  { measurement, properties, credentials, ...process }: MeasuredProcess,
  reportData: Buffer,
  key: { private: KeyObject; platform: string },
  now: number,
): Promise<string> {
  const claims: v.InferOutput<typeof payload> = {
    eat_profile: PROFILE,
    eat_nonce: reportData.toString('base64url'),
    iat: Math.floor(now / 1000),
    dbgstat: 'enabled',
    measurement,
    process: { ...process, ...(credentials && spelled(credentials)) },
    properties: [...properties],
  };
  return new CompactSign(Buffer.from(JSON.stringify(claims)))
    .setProtectedHeader({ alg: 'EdDSA', typ: TYPE, kid: key.platform })
    .sign(key.private);
}

/**
 * Checks form and signature of Evidence. Whether the key that signed is trusted is for {@link appraise} to say.
 * @throws Failure EVIDENCE_INVALID
 */
export async function verifySoftwareEvidence(evidence: string): Promise<Claims> {
  try {
    // Base64url can spell the same bytes in several ways; only the shortest is taken.
    const parts = evidence.split('.');
    const isShortest = (part: string) => Buffer.from(part, 'base64url').toString('base64url') === part;
    if (parts.length !== 3 || !parts.every(isShortest)) throw new Error('it is not spelled as a JWS is');
    const [head = '', body = '', signature = ''] = parts;
    const decoded = (part: string): unknown => JSON.parse(Buffer.from(part, 'base64url').toString());
    const { kid } = v.parse(header, decoded(head));
    const x = Buffer.from(kid, 'hex').toString('base64url');
    const key = createPublicKey({ format: 'jwk', key: { kty: 'OKP', crv: 'Ed25519', x } });
    // Here and now (RFC 7515 §5.2): to hand it to another thread, as Web Crypto does, costs as much as a third of it.
    if (!verify(null, Buffer.from(`${head}.${body}`), key, Buffer.from(signature, 'base64url')))
      throw new Error('signature verification failed');
    const claims = v.parse(payload, decoded(body));
    const { uids, gids, user, unit } = claims.process;
    return {
      root: 'software',
      measurement: claims.measurement,
      platform: kid,
      debug: true,
      ...(claims.process.id !== undefined && { process: claims.process.id }),
      ...(claims.process.cgroup !== undefined && { cgroup: claims.process.cgroup }),
      ...(uids &&
        gids && {
          credentials: {
            ...{ uid: named(uids), gid: named(gids) },
            ...(user !== undefined && { user }),
            ...(unit !== undefined && { unit }),
          },
        }),
      properties: claims.properties,
      reportData: Buffer.from(claims.eat_nonce, 'base64url'),
    };
  } catch (error) {
    const detail =
      error instanceof v.ValiError ? `unexpected value at ${v.getDotPath(error.issues[0])}` : reason(error);
    throw failure('EVIDENCE_INVALID', { detail });
  }
}
