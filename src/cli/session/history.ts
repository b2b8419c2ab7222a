import * as v from 'valibot';
import { InvalidText } from '../../policy/problem.ts';
import { parseSession, type Session } from '../../policy/session.ts';
import { printable } from '../../protocol/refusal.ts';
import { type CasClient, type NetworkOptions, openCas } from '../connect.ts';
import { jsonList, type LongOutput } from '../output.ts';
import { changedSections } from './differences.ts';
import { sessionPath, versionHash } from './names.ts';
import { fetchSession, keyHolder } from './read.ts';

/** Versions in an answer, of which a CAS gives a hundred, and who has signed one. */
const MOST_VERSIONS = 1000;
const MOST_HOLDERS = 1000;
const page = v.object({
  versions: v.pipe(
    v.array(
      v.object({
        number: v.number(),
        hash: versionHash,
        created: v.nullable(v.pipe(v.string(), v.isoTimestamp())),
        by: v.pipe(v.array(keyHolder), v.maxLength(MOST_HOLDERS)),
      }),
    ),
    v.maxLength(MOST_VERSIONS),
  ),
  more: v.boolean(),
});
type Version = v.InferOutput<typeof page>['versions'][number];

/**
 * `scone session history NAME`: who changed what, from the newest version on. What changed is found by reading the
 * versions; a first one has changed nothing.
 */
export async function showHistory(
  name: string,
  options: NetworkOptions & { limit: number },
): Promise<LongOutput> {
  const cas = await openCas(options);
  return {
    async tell(say, inJson) {
      const list = inJson ? jsonList(say) : undefined;
      let after: { version: Version; session: Session | undefined } | undefined;
      let left = options.limit;
      const tellOf = async (changed: string[] | null) => {
        if (!after) return;
        const shown = { ...after.version, changed };
        await (list ? list.add(shown) : say(describe(shown)));
        left--;
      };
      for await (const version of versionsOf(cas, name)) {
        const session = await fetchParsed(cas, name, version);
        await tellOf(after?.session && session ? changedSections(session, after.session) : null);
        after = { version, session };
        if (left === 0) break;
      }
      if (left > 0) await tellOf([]);
      await list?.end();
    },
  };
}

/** From the newest on. A CAS that repeats itself would be asked for ever. */
async function* versionsOf(cas: CasClient, name: string): AsyncGenerator<Version> {
  let before: number | undefined;
  for (let goesOn = true; goesOn; ) {
    const query = before === undefined ? '' : `?before=${before}`;
    const { versions, more } = await cas.call(
      { method: 'GET', path: `/v1/history/${sessionPath(name)}${query}` },
      page,
    );
    goesOn = false;
    for (const version of versions) {
      if (before !== undefined && version.number >= before) continue;
      before = version.number;
      goesOn = more;
      yield version;
    }
  }
}

/** A version that this program does not understand, as it is of a newer language, has no known contents. */
async function fetchParsed(cas: CasClient, name: string, version: Version): Promise<Session | undefined> {
  const { session } = await fetchSession(cas, name, version.hash);
  try {
    return parseSession(session).session;
  } catch (error) {
    if (error instanceof InvalidText) return undefined;
    throw error;
  }
}

function describe({ number, created, by, hash, changed }: Version & { changed: string[] | null }): string {
  const holders = by.map((holder) =>
    'signer' in holder ? `signed by ${holder.signer}` : `certificate ${holder.certificate}`,
  );
  const what = changed === null ? '(cannot be told)' : changed.join(', ') || '(nothing)';
  const lines = [
    `version ${number}  ${created ?? '(time not recorded)'}  ${hash}`,
    `  by       ${holders.join(', ') || '(not recorded)'}`,
    ...(number === 1 ? [] : [`  changed  ${what}`]),
  ];
  return lines.map((line) => `${printable(line)}\n`).join('');
}
