import { failure } from '../errors.ts';
import { conditionsOf, referencesIn } from '../policy/conditions.ts';
import { parseKeyHash } from '../policy/key-hash.ts';
import { resolveSessionName } from '../policy/names.ts';
import type { Cas } from './cas.ts';
import { exporterOf, LONGEST_WAY, nameOf, openSessions, type Resolver } from './secrets.ts';
import type { SessionVersion } from './versions.ts';

/** Secrets that are looked at, in all sessions, for what a policy's conditions name. */
const MOST_PLACES = 10_000;

/** Where a secret is made, whatever it is called on the way there. */
interface Place {
  id: string;
  home: SessionVersion;
  definition: Definition | undefined;
}
type Definition = SessionVersion['session']['secrets'][number];

/**
 * Names of a session's secrets that stand behind the conditions of any of its services: one-time passwords, access tokens and
 * whatever else is filled in there, under whichever name it comes, and what shows them. They are found by reading alone, so that
 * nothing that is wrong with a policy hides one.
 * @throws Failure POLICY_UNUSABLE where there are more than any policy has
 */
export async function decidingSecrets(
  cas: Cas,
  version: SessionVersion,
  { interest, pace }: Pick<Resolver, 'interest' | 'pace'>,
): Promise<Set<string>> {
  const { read, keep, definitionOf } = openSessions(cas, interest);
  keep(version);
  const places = new Map<string, Promise<Place>>();
  const placeOf = (at: SessionVersion, name: string): Promise<Place> => {
    const id = JSON.stringify([at.session.name, name]);
    const known = places.get(id);
    if (known) return known;
    if (places.size >= MOST_PLACES)
      throw failure('POLICY_UNUSABLE', {
        section: 'its variables',
        detail: `they name more than ${MOST_PLACES} secrets`,
      });
    const finding = find(at, name, id);
    places.set(id, finding);
    return finding;
  };
  const find = async (at: SessionVersion, name: string, first: string): Promise<Place> => {
    let [home, here, id] = [at, name, first];
    for (let way = 0; ; way++) {
      const definition = definitionOf(home, here);
      if (!definition || !('import' in definition) || way >= LONGEST_WAY) return { id, home, definition };
      const { cas_key, session, secret } = definition.import;
      const elsewhere = { id: JSON.stringify([cas_key ?? '', session, secret]), home, definition };
      // By its own key, a CAS is asked as others are.
      const isOwn = cas_key !== undefined && parseKeyHash(cas_key, 'cas_key').equals(cas.key);
      const exporter = isOwn ? await read(session) : undefined;
      if (exporter) {
        [home, here] = [exporter, secret];
        id = JSON.stringify([exporter.session.name, here]);
        continue;
      }
      if (cas_key !== undefined) return elsewhere;
      const found = await exporterOf(home, definition.import, read);
      // As it stands nobody is given it.
      if (typeof found === 'string') return elsewhere;
      [home, here] = [found.exporter, secret];
      id = JSON.stringify([home.session.name, here]);
    }
  };
  /** One after the other: of several that fail, all but the first would be errors that nobody handles. */
  const placesOf = async (at: SessionVersion, names: Iterable<string>): Promise<Set<Place>> => {
    const found = new Set<Place>();
    for (const name of names) {
      await pace();
      found.add(await placeOf(at, name));
    }
    return found;
  };
  const placesIn = (at: SessionVersion, text: string) => placesOf(at, namesIn(at, text));

  const { secrets } = version.session;
  const own: Place[] = [];
  for (const { name } of secrets) {
    await pace();
    own.push(await placeOf(version, name));
  }
  const deciding = new Set<string>();
  const waiting = [...(await placesIn(version, conditionsOf(version.session)))];
  // What decides in a session that is given it is no less worth for being known here.
  const importers = new Set<string>();
  for (const place of own) {
    const found = await goesTo(cas, place, { read, pace });
    for (const name of found ?? []) importers.add(name);
    if (!found || importers.size > MOST_IMPORTERS) waiting.push(place);
  }
  for (const name of [...importers].slice(0, MOST_IMPORTERS)) {
    const importer = await read(name);
    if (importer) waiting.push(...(await placesIn(importer, conditionsOf(importer.session))));
  }
  for (let place = waiting.pop(); place; place = waiting.pop()) {
    if (deciding.has(place.id)) continue;
    deciding.add(place.id);
    for (const found of await placesIn(place.home, contentOf(place))) waiting.push(found);
  }

  // From what decides, back to all that shows it.
  const showers = new Map<string, Place[]>();
  const looked = new Set<string>();
  const toLook = [...own];
  for (let place = toLook.pop(); place; place = toLook.pop()) {
    if (looked.has(place.id)) continue;
    looked.add(place.id);
    for (const shown of await placesIn(place.home, contentOf(place))) {
      const others = showers.get(shown.id);
      if (others) others.push(place);
      else showers.set(shown.id, [place]);
      toLook.push(shown);
    }
  }
  const toTell = [...deciding];
  for (let id = toTell.pop(); id !== undefined; id = toTell.pop())
    for (const { id: shower } of showers.get(id) ?? [])
      if (!deciding.has(shower)) {
        deciding.add(shower);
        toTell.push(shower);
      }
  return new Set(secrets.filter((_, index) => deciding.has(own[index]?.id ?? '')).map(({ name }) => name));
}

/** Sessions that are read for what decides in them; what goes to more counts as deciding itself. */
const MOST_IMPORTERS = 32;

/**
 * Names of sessions of this CAS that a secret goes to, by export upon export.
 * @returns undefined where they are more than {@link MOST_IMPORTERS}
 */
async function goesTo(
  cas: Cas,
  { home, definition }: Place,
  { read, pace }: { read(name: string): Promise<SessionVersion | undefined>; pace: Resolver['pace'] },
): Promise<Set<string> | undefined> {
  const names = new Set<string>();
  const waiting = definition ? [{ at: home, definition }] : [];
  const known = new Set<Definition>();
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const { at, definition } = next;
    if (known.has(definition)) continue;
    known.add(definition);
    for (const name of await targetsOf(cas, at, definition)) {
      await pace();
      names.add(name);
      if (names.size > MOST_IMPORTERS) return undefined;
      const importer = await read(name);
      for (const theirs of importer?.session.secrets ?? [])
        if (importer && isImportOf(importer, theirs, at, definition))
          waiting.push({ at: importer, definition: theirs });
    }
  }
  return names;
}

/** Names of sessions that a secret is exported to, or as many as are too many. */
async function targetsOf(cas: Cas, { session }: SessionVersion, definition: Definition): Promise<string[]> {
  const names: string[] = [];
  for (const target of ('export' in definition && definition.export) || []) {
    const name = resolveSessionName(session.name, target.session ?? target.namespace ?? '');
    if (name === undefined) continue;
    names.push(name);
    if (target.namespace === undefined) continue;
    // It goes to all that is below.
    for (let at = names.length - 1; at < names.length && names.length <= MOST_IMPORTERS; at++)
      names.push(...(await cas.store.sessionsIn(names[at] as string, '', MOST_IMPORTERS + 1)));
  }
  return names;
}

function isImportOf(
  importer: SessionVersion,
  theirs: Definition,
  exporter: SessionVersion,
  { name }: Definition,
): boolean {
  if (!('import' in theirs) || theirs.import.secret !== name) return false;
  return resolveSessionName(importer.session.name, theirs.import.session) === exporter.session.name;
}

/** Names that a text refers to. */
function* namesIn(at: SessionVersion, text: string): Generator<string> {
  for (const reference of referencesIn(text)) yield nameOf(at, reference).name;
}

/** References to what a secret shows as a part of it: a fragment all of its variables, a certificate its key, a token its claims. */
function contentOf({ home, definition }: Place): string {
  if (!definition || 'import' in definition) return '';
  const fragment = definition.kind === 'config-fragment' ? home.secrets.get(definition.name) : undefined;
  const { private_key: key, payload } = definition as { private_key?: string; payload?: object };
  return [
    fragment?.reveal().toString() ?? '',
    key === undefined ? '' : `$$SCONE::${key}$$`,
    payload ? JSON.stringify(payload) : '',
  ].join(' ');
}
