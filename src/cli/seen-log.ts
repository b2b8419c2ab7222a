import * as v from 'valibot';
import { checkHead, headAnswer, type RememberedLog } from '../audit/tree-head.ts';
import type { Address } from '../policy/address.ts';
import { callApi } from '../protocol/api-client.ts';
import { readClientState, updateClientState } from '../protocol/client-state.ts';
import type { CasConnection } from '../protocol/connect.ts';
import { Refused } from '../protocol/refusal.ts';

/**
 * What this user has seen of the audit logs of CASes. Whoever puts an older store under a CAS would have to forge what the
 * log's key has signed for everybody who remembers.
 */
const remembered = v.object({
  key: v.pipe(v.string(), v.maxLength(1024)),
  size: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  root: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  restored: v.optional(v.pipe(v.number(), v.safeInteger())),
  restoredAt: v.optional(v.pipe(v.string(), v.isoTimestamp())),
});

/** What was seen last of a CAS's log. */
export function seenLog(name: string): RememberedLog | undefined {
  const { cas_db } = readClientState(process.env);
  const parsed = v.safeParse(remembered, Object.hasOwn(cas_db, name) ? cas_db[name]?.audit_log : undefined);
  return parsed.success ? parsed.output : undefined;
}

/** A CAS whose key was checked when it was attested. */
interface Attested {
  name: string;
  address: Address;
  key: Buffer;
}

/**
 * Makes sure that a CAS still has all that was seen of it, and remembers what it has now.
 * @param connect to the CAS; its key is checked
 * @throws Failure CAS_ROLLED_BACK, CAS_RESTORED or CAS_PROTOCOL
 */
export async function checkLog(cas: Attested, connect: () => Promise<CasConnection>): Promise<void> {
  const before = seenLog(cas.name);
  const now = await askForHead(cas, before, connect);
  if (!now || (now.size === before?.size && now.key === before.key)) return;
  updateClientState(process.env, (state) => {
    const entry = state.cas_db[cas.name];
    if (!entry) return state;
    return { ...state, cas_db: { ...state.cas_db, [cas.name]: { ...entry, audit_log: now } } };
  });
}

/** @returns undefined of a CAS of an older version, which has no log, and of which none was seen */
export async function askForHead(
  { name, key }: Attested,
  before: RememberedLog | undefined,
  connect: () => Promise<CasConnection>,
): Promise<RememberedLog | undefined> {
  const connection = await connect();
  const first = before && before.size > 0 ? `?first=${before.size}` : '';
  try {
    const answer = await callApi(
      connection,
      { method: 'GET', path: `/v1/audit-log/head${first}` },
      headAnswer,
    );
    return checkHead(answer, key, before, name);
  } catch (error) {
    const isOld = error instanceof Refused && (error.code === 'PATH_UNKNOWN' || error.code === 'INTERNAL');
    if (isOld && !before) return undefined;
    throw error;
  }
}
