import { failure } from '../errors.ts';
import type { Cas } from './cas.ts';
import { exporterOf, LONGEST_WAY, nameOf } from './secrets.ts';
import { activeSession, type SessionVersion } from './versions.ts';
import type { Interest } from './watch.ts';

/** Places of secrets that a policy may name, in all that decides over its launches. */
const MOST_PLACES = 10_000;

/**
 * Names of a session's secrets that stand behind the conditions of any of its services: one-time passwords, access tokens and
 * whatever else is filled in there, under whichever name it comes, and what shows them. They are found by reading alone, so that
 * nothing that is wrong with a policy hides one.
 * @param interest is told what it depends on
 * @throws Failure POLICY_UNUSABLE where there are more than any policy has
 */
export async function decidingSecrets(
  cas: Cas,
  version: SessionVersion,
  interest: Interest | undefined,
): Promise<Set<string>> {
  const read = (name: string) => {
    interest?.session(name);
    return activeSession(cas, name);
  };
  const places = new Set<string>();
  const own = new Set<string>();
  const isOwn = (at: SessionVersion) =>
    at.session.name === version.session.name && at.number === version.number;

  const visit = async (at: SessionVersion, text: string): Promise<void> => {
    for (const reference of referencesIn(text)) {
      const { name } = nameOf(at, reference);
      if (isOwn(at)) own.add(name);
      const { place, home, nameAtHome } = await placeOf(at, name, read);
      if (places.has(place)) continue;
      places.add(place);
      if (places.size > MOST_PLACES)
        throw failure('POLICY_UNUSABLE', {
          section: 'its variables',
          detail: `they name more than ${MOST_PLACES} secrets`,
        });
      const definition = definitionOf(home, nameAtHome);
      if (!definition) continue;
      const fragment = definition.kind === 'config-fragment' ? home.secrets.get(nameAtHome) : undefined;
      await visit(home, fragment ? fragment.reveal().toString() : showing(definition));
    }
  };
  const { services, security, secrets } = version.session;
  const conditions = services.map(
    ({ attestation, mrenclaves, platforms, one_time_password_shared_secret }) => [
      ...[attestation, mrenclaves, platforms, one_time_password_shared_secret],
    ],
  );
  await visit(version, JSON.stringify([security, conditions]));

  // The same secret may have another name here, or stand in something else.
  for (let size = -1; size !== own.size; ) {
    size = own.size;
    for (const definition of secrets) {
      if (own.has(definition.name)) continue;
      const { place } = await placeOf(version, definition.name, read);
      const shown = referencesIn(showing(definition)).map((reference) => nameOf(version, reference).name);
      if (places.has(place) || shown.some((name) => own.has(name))) own.add(definition.name);
    }
  }
  return own;
}

/** References in a text, also in one that is not well formed. */
function referencesIn(text: string): string[] {
  return Array.from(
    text.matchAll(/\$\$(?:SCONE|PALAEMON)::([^$|]{1,1024})/g),
    ([, reference = '']) => reference,
  );
}

const definitionOf = ({ session }: SessionVersion, name: string) =>
  session.secrets.find((it) => it.name === name);

type Definition = NonNullable<ReturnType<typeof definitionOf>>;

/** References to the secrets that one shows as a part of it: a certificate its key, a token its claims. */
function showing(definition: Definition): string {
  const { private_key: key } = definition as { private_key?: string };
  const { payload } = definition as { payload?: object };
  return `${key === undefined ? '' : `$$SCONE::${key}$$`}${payload ? JSON.stringify(payload) : ''}`;
}

/** Where a secret is made, whatever it is called on the way. */
async function placeOf(
  version: SessionVersion,
  name: string,
  read: (name: string) => Promise<SessionVersion | undefined>,
): Promise<{ place: string; home: SessionVersion; nameAtHome: string }> {
  let [home, nameAtHome] = [version, name];
  for (let way = 0; ; way++) {
    const definition = definitionOf(home, nameAtHome);
    const here = JSON.stringify([home.session.name, home.number, nameAtHome]);
    if (!definition || !('import' in definition) || way >= LONGEST_WAY)
      return { place: here, home, nameAtHome };
    const { cas_key, session, secret } = definition.import;
    if (cas_key !== undefined) return { place: JSON.stringify([cas_key, session, secret]), home, nameAtHome };
    const found = await exporterOf(home, definition.import, read);
    // As it stands nobody is given it; both of two names would be the same again.
    if (typeof found === 'string') return { place: JSON.stringify([session, secret]), home, nameAtHome };
    [home, nameAtHome] = [found.exporter, secret];
  }
}
