import { Failure, failure, reason } from '../errors.ts';
import { isWithin, resolveSessionName } from '../policy/names.ts';
import { SOFTWARE_IDENTITY } from '../policy/schema/secrets.ts';
import type { ExportTarget, ImportSource } from '../policy/schema/sharing.ts';
import type { SecretDefinition } from '../policy/session.ts';
import type { TypedSecret } from '../secrets/kinds.ts';
import { publicKeyOf } from '../secrets/private-key.ts';
import { Secret } from '../secrets/secret.ts';
import { parseTemplate, splitReference } from '../secrets/substitute.ts';
import type { Cas } from './cas.ts';
import { certificateOf } from './certificates.ts';
import { formatted } from './format.ts';
import { BYTES_OF_STEP, createPace, type Pace } from './limits/pace.ts';
import { tokenOf } from './tokens.ts';
import { activeSession, type SessionVersion } from './versions.ts';
import type { Interest } from './watch.ts';

/** A secret, and the session that defines it, from which what it refers to is seen. */
export interface Resolved {
  secret: TypedSecret;
  home: SessionVersion;
}

/** Finds the secrets that one request needs. */
export interface Resolver {
  /**
   * A secret of a session by its name, as it is at present: imported, issued or as it is kept.
   * @throws Failure SECRET_UNAVAILABLE
   */
  find(version: SessionVersion, name: string): Promise<Resolved>;
  /** The same of a config-fragment of this CAS, which is found by reading alone. @throws NoFragment where it is none */
  findFragment(version: SessionVersion, name: string): Promise<Resolved>;
  /** What was found so far, and where it is defined: undefined for another CAS. */
  readonly found: readonly { from: SessionVersion; name: string; home: SessionVersion | undefined }[];
  /** Numbers of the versions that were read, by session; undefined for one that is not there. */
  sessions(): Promise<Map<string, number | undefined>>;
  /** Who is told what the request depends on. */
  readonly interest: Interest | undefined;
  /**
   * Counts what filling in variables costs, since a few of them can multiply each other.
   * @throws Failure POLICY_UNUSABLE where it is more than any policy is worth
   */
  spend(values: number, bytes: number): void;
  /** Values that were counted, 64 bytes of text being as much as another. */
  spent(): number;
  /**
   * Counts the bytes of secrets in the forms that are held until the request is answered, and the steps to make them.
   * @throws Failure CONFIGURATION_TOO_LARGE
   */
  hold(bytes: number): Promise<void>;
  /** Waited for after each step, so that a request that needs many lets others in. */
  readonly pace: Pace;
}

/** What is to be made, asked for at another CAS, or a secret itself. */
export class NoFragment extends Error {}

/** Values, and bytes of text, that the variables of policies may come to in one request. */
export const MOST_VALUES = 20_000;
const MOST_BYTES = 1024 * 1024;
export const tooManyValues = () =>
  failure('POLICY_UNUSABLE', {
    section: 'its variables',
    detail: `they come to more than ${MOST_VALUES} values or ${MOST_BYTES} bytes`,
  });
/** Bytes of secrets in all forms that one request may hold: the largest configuration, twice. */
const MOST_HELD = 16 * 1024 * 1024;
/** Bytes of sessions that one request may read: several of the largest. */
const MOST_READ = 32 * 1024 * 1024;

/** For whom secrets are resolved. */
export interface Recipient {
  /** The launcher, once it is admitted; its measurement stands for `$$SCONE::self::software_identity$$`. */
  launcher?: {
    measurement: string;
    /** The session that admitted it. */
    session: string;
    /** Whether the CAS's operator trusts who vouches for it; else only that session's author does. */
    isTrustedByOperator: boolean;
  };
  /** How many other CASes the request has come through. */
  hops?: number;
}

/** Sessions that a secret may be handed through; longer ways are mistakes. */
export const LONGEST_WAY = 32;

/** Steps that it takes to make a secret from others, or to find whether it is exported. */
export const STEPS_OF_MADE = 50;

/** Characters that the claims of one token may come to: headers that tokens travel in have some thousand. */
const LARGEST_CLAIMS = 262_144;

/** Milliseconds after which another CAS that gave nothing is asked again. */
const OTHER_CAS_AGAIN = 60_000;

/**
 * Reads sessions, each once, so that what they say fits together, and finds the definitions in them.
 * @param interest is told of each that is read
 */
export function openSessions(cas: Cas, interest: Interest | undefined) {
  const sessions = new Map<string, Promise<SessionVersion | undefined>>();
  let size = 0;
  const open = async (name: string) => {
    const version = await activeSession(cas, name);
    size += version?.size ?? 0;
    if (size > MOST_READ)
      throw failure('POLICY_UNUSABLE', {
        section: 'its imports',
        detail: `the sessions that it reads have more than ${MOST_READ} bytes`,
      });
    return version;
  };
  const definitions = new Map<SessionVersion, Map<string, SecretDefinition>>();
  return {
    read(name: string): Promise<SessionVersion | undefined> {
      interest?.session(name);
      const reading = sessions.get(name) ?? open(name);
      sessions.set(name, reading);
      return reading;
    },
    async numbers(): Promise<Map<string, number | undefined>> {
      const read = [...sessions].map(async ([name, reading]) => [name, (await reading)?.number] as const);
      return new Map(await Promise.all(read));
    },
    /** Has a version that is known already read no more. */
    keep: (version: SessionVersion) => void sessions.set(version.session.name, Promise.resolve(version)),
    definitionOf(version: SessionVersion, name: string): SecretDefinition | undefined {
      const own = definitions.get(version) ?? new Map(version.session.secrets.map((it) => [it.name, it]));
      definitions.set(version, own);
      return own.get(name);
    },
  };
}

/**
 * A resolver for one request, on one state of all sessions.
 * @param interest is told what it depends on; of other CASes, only when one that failed is worth another try
 */
export function createResolver(cas: Cas, recipient: Recipient = {}, interest?: Interest): Resolver {
  const { read, numbers, definitionOf } = openSessions(cas, interest);
  const known = new Map<string, Promise<Resolved>>();
  const pace = createPace();
  let held = 0;
  const hold = async (more: number) => {
    held += more;
    if (held > MOST_HELD) throw failure('CONFIGURATION_TOO_LARGE', { limit: MOST_HELD });
    await pace(1 + more / BYTES_OF_STEP);
  };

  const resolve = (version: SessionVersion, name: string, way: readonly string[]): Promise<Resolved> => {
    const id = `${version.session.name}#${version.number}:${name}`;
    const unavailable = (detail: string, cause?: unknown) =>
      failure('SECRET_UNAVAILABLE', { secret: name, session: version.session.name, detail }, cause);
    if (way.includes(id)) throw unavailable('it is imported from itself, in a circle');
    if (way.length >= LONGEST_WAY) throw unavailable(`it goes through more than ${LONGEST_WAY} others`);
    const present = known.get(id);
    if (present) return present;
    const definition = definitionOf(version, name);
    if (!definition) throw unavailable('there is no such secret');
    const finding = find(version, definition, [...way, id], unavailable);
    known.set(id, finding);
    return finding;
  };

  const find = async (
    version: SessionVersion,
    definition: SecretDefinition,
    way: readonly string[],
    unavailable: (detail: string, cause?: unknown) => Error,
  ): Promise<Resolved> => {
    const other = (name: string) => resolve(version, name, way);
    const isCertificate = definition.kind === 'x509' || definition.kind === 'x509-ca';
    await pace(version.secrets.has(definition.name) && !isCertificate ? 1 : STEPS_OF_MADE);
    if ('import' in definition) return imported(version, definition, way, unavailable);
    if ('import_akv' in definition) throw unavailable('Azure Key Vault is not supported');
    const { kind } = definition;
    const kept = version.secrets.get(definition.name);
    if (kind === 'public-key' && definition.private_key !== undefined) {
      const key = privateKeyIn(await other(definition.private_key), unavailable);
      return { secret: { kind, secret: new Secret(publicKeyOf(key.reveal())) }, home: version };
    }
    if (kind === 'x509' || kind === 'x509-ca') {
      const key =
        definition.private_key === undefined
          ? undefined
          : privateKeyIn(await other(definition.private_key), unavailable);
      const issuer = definition.issuer === undefined ? undefined : (await other(definition.issuer)).secret;
      try {
        const { secret, renew } = await certificateOf(cas, version, definition, key, issuer);
        if (renew !== undefined) interest?.time(renew);
        return { secret, home: version };
      } catch (error) {
        throw unavailable(reason(error));
      }
    }
    if (kind === 'jwt') {
      const privateKey = privateKeyIn(await other(definition.signer), unavailable).reveal();
      const claims = new Map<string, string>();
      let namesLauncher = false;
      let size = 0;
      for (const [claim, value] of Object.entries(definition.payload)) {
        await pace(2);
        const filled = await claimOf(value, version, other, recipient, unavailable);
        claims.set(claim, filled);
        namesLauncher ||= value === SOFTWARE_IDENTITY;
        size += filled.length;
        if (size > LARGEST_CLAIMS)
          throw unavailable(`its claims have more than ${LARGEST_CLAIMS} characters`);
        await hold(filled.length);
      }
      try {
        const parts = { definition, privateKey, claims, namesLauncher };
        const { content, renew } = await tokenOf(cas, version.session.name, parts, pace);
        interest?.time(renew);
        return { secret: { kind, secret: new Secret(content) }, home: version };
      } catch (error) {
        if (error instanceof Failure && error.code === 'CAS_BUSY') throw error;
        throw unavailable(reason(error));
      }
    }
    if (!kept) throw unavailable(`secrets of kind ${kind} are not made by this version`);
    return { secret: { kind, secret: kept }, home: version };
  };

  const imported = async (
    version: SessionVersion,
    definition: Extract<SecretDefinition, { import: unknown }>,
    way: readonly string[],
    unavailable: (detail: string, cause?: unknown) => Error,
  ): Promise<Resolved> => {
    const { secret: name, cas_key } = definition.import;
    if (cas_key !== undefined) {
      const secret = await cas.otherCases
        .import(version, definition.import, recipient.hops ?? 0, unavailable)
        .catch((error: unknown) => {
          interest?.time(cas.clock() + OTHER_CAS_AGAIN);
          throw error;
        });
      checkKind(definition, secret, unavailable);
      return { secret, home: version };
    }
    const found = await exporterOf(version, definition.import, read);
    if (typeof found === 'string') throw unavailable(found);
    const { exporter, exported } = found;
    const { secret, home } = await resolve(exporter, name, way);
    checkKind(definition, secret, unavailable);
    return {
      secret: exportedPart(exporter, exported, secret, (it) => isExported(exporter, it, version)),
      home,
    };
  };

  const found: Resolver['found'][number][] = [];
  const findNoted = async (version: SessionVersion, name: string): Promise<Resolved> => {
    const resolved = await resolve(version, name, []);
    const definition = definitionOf(version, name);
    const isForeign = definition && 'import' in definition && definition.import.cas_key !== undefined;
    found.push({ from: version, name, home: isForeign ? undefined : resolved.home });
    return resolved;
  };
  let values = 0;
  let bytes = 0;
  return {
    found,
    sessions: numbers,
    interest,
    pace,
    find: findNoted,
    async findFragment(version, name) {
      let [at, here] = [version, name];
      for (let way = 0; way < LONGEST_WAY; way++) {
        const definition = definitionOf(at, here);
        if (definition?.kind === 'config-fragment' && !('import' in definition))
          return findNoted(version, name);
        if (!definition || !('import' in definition) || definition.import.cas_key !== undefined) break;
        const found = await exporterOf(at, definition.import, read);
        if (typeof found === 'string') break;
        [at, here] = [found.exporter, found.exported.name];
      }
      throw new NoFragment(`${name} is no config-fragment of this CAS`);
    },
    hold,
    spent: () => values + bytes / 64,
    spend(moreValues, moreBytes) {
      values += moreValues;
      bytes += moreBytes;
      if (values > MOST_VALUES || bytes > MOST_BYTES) throw tooManyValues();
    },
  };
}

/**
 * The session on this CAS that a secret is imported from, and what it exports.
 * @param read gives the newest version of a session
 * @returns why there is none, in words
 */
export async function exporterOf(
  version: SessionVersion,
  { session: reference, secret: name, session_hash }: ImportSource,
  read: (name: string) => Promise<SessionVersion | undefined>,
): Promise<{ exporter: SessionVersion; exported: SecretDefinition } | string> {
  const session = resolveSessionName(version.session.name, reference);
  const exporter = session === undefined ? undefined : await read(session);
  const exported = exporter?.session.secrets.find((it) => it.name === name);
  // One answer for what is not there and for what is not exported: it tells nothing of other sessions.
  if (!exporter || !exported || !isExported(exporter, exported, version))
    return `the session ${session ?? reference} exports no ${name} to this one`;
  if (session_hash !== undefined && exporter.hash !== session_hash)
    return `the session ${session} is of another version than session_hash says`;
  return { exporter, exported };
}

/** Name and format that a reference in a session means. */
export const nameOf = ({ session }: SessionVersion, reference: string) =>
  splitReference(reference, (whole) => session.secrets.some(({ name }) => name === whole));

/** The key that another secret is, which an import may have made something else. */
function privateKeyIn({ secret }: Resolved, unavailable: (detail: string) => Error): Secret {
  if (secret.kind === 'private-key') return secret.secret;
  throw unavailable(`what should be its private key is of kind ${secret.kind}`);
}

function checkKind(
  { kind }: SecretDefinition,
  secret: TypedSecret,
  unavailable: (detail: string) => Error,
): void {
  if (kind !== undefined && kind !== secret.kind)
    throw unavailable(`it is of kind ${secret.kind}, not ${kind}`);
}

/**
 * What an importer gets: a certificate comes with its key only where that is exported to him too, by the session that
 * has made both.
 */
export function exportedPart(
  { session }: SessionVersion,
  exported: SecretDefinition,
  secret: TypedSecret,
  isExportedToo: (definition: SecretDefinition) => boolean,
): TypedSecret {
  if (!secret.privateKey) return secret;
  const keyName = 'private_key' in exported ? exported.private_key : undefined;
  const key = session.secrets.find(({ name }) => name === keyName);
  if (key && isExportedToo(key)) return secret;
  const { privateKey: _, ...withoutKey } = secret;
  return withoutKey;
}

function isExported(from: SessionVersion, definition: SecretDefinition, to: SessionVersion): boolean {
  return (definition.export ?? []).some((target: ExportTarget) => {
    if (target.cas_key !== undefined) return false;
    const name = resolveSessionName(from.session.name, target.session ?? target.namespace ?? '');
    if (name === undefined) return false;
    if (target.namespace !== undefined) return isWithin(to.session.name, name);
    return name === to.session.name && [undefined, to.hash].includes(target.session_hash);
  });
}

/** Value of a claim of a JWT: text, or just one variable. */
async function claimOf(
  value: string,
  version: SessionVersion,
  other: (name: string) => Promise<Resolved>,
  { launcher }: Recipient,
  unavailable: (detail: string) => Error,
): Promise<string> {
  if (!value.includes('$$')) return value;
  if (value === SOFTWARE_IDENTITY) {
    if (!launcher) throw unavailable('it names the software identity, and only an attested launcher has one');
    // Another session's author can trust a LAS of his own, which says anything.
    if (launcher.isTrustedByOperator || launcher.session === version.session.name)
      return launcher.measurement;
    throw unavailable(
      'it names the software identity, and the LAS of this launcher is not trusted by the operator',
    );
  }
  const [part] = parseTemplate(Buffer.from(value));
  if (!part || Buffer.isBuffer(part)) throw unavailable('a claim is a text, or one variable');
  const { name, format } = nameOf(version, part.text);
  return (await formatted((await other(name)).secret, format)).toString();
}
