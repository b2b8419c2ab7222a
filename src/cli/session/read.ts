import * as v from 'valibot';
import { failure } from '../../errors.ts';
import { printable } from '../../protocol/refusal.ts';
import { type CasClient, type NetworkOptions, openCas } from '../connect.ts';
import { readDigest } from '../digest.ts';
import { jsonList, type LongOutput, type Output } from '../output.ts';
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

/** Names in an answer, of which a CAS gives a thousand. */
const MOST_NAMES = 10_000;
const page = v.object({ sessions: v.pipe(v.array(v.string()), v.maxLength(MOST_NAMES)), more: v.boolean() });

/** `scone session list [NAMESPACE]`: prints the names of all sessions below it, one a line, as they come. */
export async function listSessions(namespace: string, options: NetworkOptions): Promise<LongOutput> {
  const cas = await openCas(options);
  const within = sessionPath(namespace);
  return {
    tell: async (say, inJson) => {
      const list = inJson ? jsonList(say) : undefined;
      for await (const name of namesWithin(cas, within))
        await (list ? list.add(name) : say(`${printable(name)}\n`));
      await list?.end();
    },
  };
}

/** @throws Failure CAS_PROTOCOL where names do not go on: a CAS that repeats itself would be asked for ever */
async function* namesWithin(cas: CasClient, within: string): AsyncGenerator<string> {
  for (let after = ''; ; ) {
    const path = `/v1/sessions?namespace=${within}${after === '' ? '' : `&after=${encodeURIComponent(after)}`}`;
    const { sessions, more } = await cas.call({ method: 'GET', path }, page);
    const before = after;
    for (const name of sessions) {
      if (name <= after) throw notGoingOn(cas);
      yield name;
      after = name;
    }
    if (!more) return;
    if (after === before) throw notGoingOn(cas);
  }
}

const notGoingOn = ({ name }: CasClient) =>
  failure('CAS_PROTOCOL', { address: name, detail: 'a list that does not go on' });
