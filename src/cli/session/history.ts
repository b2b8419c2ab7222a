import * as v from 'valibot';
import { InvalidText } from '../../policy/problem.ts';
import { parseSession, type Session } from '../../policy/session.ts';
import { printable } from '../../protocol/refusal.ts';
import { type CasClient, type NetworkOptions, openCas } from '../connect.ts';
import type { Output } from '../output.ts';
import { changedSections } from './differences.ts';
import { sessionPath, versionHash } from './names.ts';
import { fetchSession, keyHolder } from './read.ts';

const page = v.object({
  versions: v.array(
    v.object({
      number: v.number(),
      hash: versionHash,
      created: v.nullable(v.pipe(v.string(), v.isoTimestamp())),
      by: v.array(keyHolder),
    }),
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
): Promise<Output> {
  const cas = await openCas(options);
  // One more than is shown, for what the last of them changed.
  const versions = await fetchVersions(cas, name, options.limit + 1);
  const sessions: (Session | undefined)[] = [];
  for (const version of versions) sessions.push(await fetchParsed(cas, name, version));
  const shown = versions.slice(0, options.limit).map((version, index) => {
    const [after, before] = [sessions[index], sessions[index + 1]];
    const isFirst = index === versions.length - 1;
    const changes = after && before ? changedSections(before, after) : null;
    return { ...version, changed: isFirst ? [] : changes };
  });
  return { text: shown.map(describe).join(''), json: shown };
}

async function fetchVersions(cas: CasClient, name: string, most: number): Promise<Version[]> {
  const all: Version[] = [];
  for (let more = true; more && all.length < most; ) {
    const before = all.at(-1)?.number;
    const query = before === undefined ? '' : `?before=${before}`;
    const path = `/v1/history/${sessionPath(name)}${query}`;
    const { versions, more: further } = await cas.call({ method: 'GET', path }, page);
    // A CAS that repeats itself would be asked for ever.
    all.push(...versions.filter(({ number }) => before === undefined || number < before));
    more = further && all.at(-1)?.number !== before;
  }
  return all.slice(0, most);
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
