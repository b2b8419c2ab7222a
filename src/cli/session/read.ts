import * as v from 'valibot';
import { failure } from '../../errors.ts';
import { printable } from '../../protocol/refusal.ts';
import { type CasClient, type NetworkOptions, openCas } from '../connect.ts';
import { readDigest } from '../digest.ts';
import type { Output } from '../output.ts';
import { sessionPath, versionHash } from './names.ts';

/** Who made a version, as a CAS names its creator and uploaders: by key hash. */
export const keyHolder = v.union([
  v.strictObject({ certificate: v.string() }),
  v.strictObject({ signer: v.string() }),
]);

const version = v.object({ session: v.string(), hash: versionHash, creator: v.nullable(keyHolder) });
/** A version of a session as a CAS gives it. */
export type StoredSession = v.InferOutput<typeof version>;

/** The present version of a session, or the one with a hash. */
export function fetchSession(cas: CasClient, name: string, wanted?: string): Promise<StoredSession> {
  const query = wanted === undefined ? '' : `?hash=${wanted}`;
  return cas.call({ method: 'GET', path: `/v1/sessions/${sessionPath(name)}${query}` }, version);
}

/** `scone session read NAME`: prints the text of a version, the newest if none is named, or its hash. */
export async function readSession(
  name: string,
  options: NetworkOptions & { hash?: boolean; versionHash?: string },
): Promise<Output> {
  const wanted =
    options.versionHash === undefined ? undefined : readDigest(options.versionHash, 'a session hash');
  const { session, hash, creator } = await fetchSession(await openCas(options), name, wanted);
  const printed = options.hash ? hash : session;
  return { text: printed.endsWith('\n') ? printed : `${printed}\n`, json: { session, hash, creator } };
}

const page = v.object({ sessions: v.array(v.string()), more: v.boolean() });

/** `scone session list [NAMESPACE]`: prints the names of all sessions below it, one a line. */
export async function listSessions(namespace: string, options: NetworkOptions): Promise<Output> {
  const cas = await openCas(options);
  const within = sessionPath(namespace);
  const names: string[] = [];
  for (let after = ''; ; ) {
    const path = `/v1/sessions?namespace=${within}${after === '' ? '' : `&after=${encodeURIComponent(after)}`}`;
    const { sessions, more } = await cas.call({ method: 'GET', path }, page);
    names.push(...sessions);
    const last = sessions.at(-1);
    if (!more) break;
    // Without this, a CAS that repeats itself would be asked for ever.
    if (last === undefined || last === after)
      throw failure('CAS_PROTOCOL', { address: cas.name, detail: 'a list that does not go on' });
    after = last;
  }
  return { text: names.map((name) => `${printable(name)}\n`).join(''), json: names };
}
