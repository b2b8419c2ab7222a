import { resolveSessionName } from '../policy/names.ts';
import type { ImportSource } from '../policy/schema/sharing.ts';
import type { SecretDefinition } from '../policy/session.ts';
import { formatOf, type SecretKind } from '../secrets/kinds.ts';
import type { Cas } from './cas.ts';
import type { Pace } from './limits/pace.ts';
import { exporterOf, LONGEST_WAY, nameOf, openSessions, STEPS_OF_MADE } from './secrets.ts';
import type { SessionVersion } from './versions.ts';

/** Where a secret comes from. It is said without having it: none is made, issued or asked for. */
export interface SecretSource {
  from: 'secret';
  /** Its name in the session. */
  secret: string;
  /** Such as `:hex`; empty is the usual one. */
  format: string;
  /** The session that it is imported from, its name there, and the address of the CAS where that is another. */
  import: { session: string; secret: string; cas: string | null } | null;
  /** Why it cannot be used at present, where that is known. */
  unavailable: string | null;
}

export type SecretSources = (version: SessionVersion, reference: string) => Promise<SecretSource>;

/** What is known of a secret without having it. */
interface Known {
  kind?: SecretKind | undefined;
  unavailable?: string;
}

/** Says where secrets come from, for one request; every session is read once. */
export function createSecretSources(cas: Cas, pace: Pace): SecretSources {
  const { read, definitionOf } = openSessions(cas, undefined);
  const known = new Map<string, Promise<Known>>();
  const look = (version: SessionVersion, name: string, way: readonly string[]): Promise<Known> => {
    const id = `${version.session.name}#${version.number}:${name}`;
    if (way.includes(id)) return Promise.resolve({ unavailable: 'it is imported from itself, in a circle' });
    if (way.length >= LONGEST_WAY)
      return Promise.resolve({ unavailable: `it goes through more than ${LONGEST_WAY} others` });
    const looking = known.get(id) ?? lookAt(version, definitionOf(version, name), [...way, id]);
    known.set(id, looking);
    return looking;
  };

  const lookAt = async (
    version: SessionVersion,
    definition: SecretDefinition | undefined,
    way: readonly string[],
  ): Promise<Known> => {
    await pace(STEPS_OF_MADE);
    if (!definition) return { unavailable: 'there is no such secret' };
    const { kind } = definition;
    if ('import_akv' in definition) return { kind, unavailable: 'Azure Key Vault is not supported' };
    if ('import' in definition) {
      if (definition.import.cas_key !== undefined) return { kind };
      const found = await exporterOf(version, definition.import, read);
      if (typeof found === 'string') return { kind, unavailable: found };
      const there = await look(found.exporter, found.exported.name, way);
      if (kind !== undefined && there.kind !== undefined && there.kind !== kind)
        return { kind, unavailable: `it is of kind ${there.kind}, not ${kind}` };
      // Why is for those who may read that session.
      return {
        kind: kind ?? there.kind,
        ...(there.unavailable !== undefined && {
          unavailable: `the session ${found.exporter.session.name} cannot use it itself`,
        }),
      };
    }
    for (const name of madeWith(definition)) {
      const { unavailable } = await look(version, name, way);
      if (unavailable !== undefined) return { kind, unavailable: `it is made with ${name}: ${unavailable}` };
    }
    const isMade = kind === 'x509' || kind === 'x509-ca' || madeWith(definition).length > 0;
    if (!isMade && !version.secrets.has(definition.name))
      return { kind, unavailable: `secrets of kind ${kind} are not made by this version` };
    return { kind };
  };

  return async (version, reference) => {
    const { name, format } = nameOf(version, reference);
    const { kind, unavailable } = await look(version, name, []);
    const definition = definitionOf(version, name);
    const hasFormat = kind === undefined || formatOf(kind, format) !== undefined;
    const noFormat = `a secret of kind ${kind} has no format ${format || '(none)'}`;
    return {
      from: 'secret',
      secret: name,
      format,
      import: definition && 'import' in definition ? importOf(version, definition.import) : null,
      unavailable: unavailable ?? (hasFormat ? null : noFormat),
    };
  };
}

/** The secrets of the session that one is made with each time it is used. */
function madeWith(definition: SecretDefinition): string[] {
  if (!('kind' in definition) || 'import' in definition || 'import_akv' in definition) return [];
  switch (definition.kind) {
    case 'public-key':
      return [definition.private_key ?? []].flat();
    case 'x509':
    case 'x509-ca':
      return [definition.private_key ?? [], definition.issuer ?? []].flat();
    case 'jwt':
      return [definition.signer];
    default:
      return [];
  }
}

function importOf({ session }: SessionVersion, { session: reference, secret, cas_url }: ImportSource) {
  if (cas_url !== undefined) return { session: reference, secret, cas: cas_url };
  return { session: resolveSessionName(session.name, reference) ?? reference, secret, cas: null };
}
