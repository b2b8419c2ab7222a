import { failure } from '../errors.ts';

/** Characters of service and secret names; also used for the levels of a session's path. */
export const namePattern = /^[A-Za-z0-9_.~-]{1,512}$/;

/**
 * Levels of names separated by `/`, 512 characters in all; `/` alone is the root namespace. No level is `.` or `..`,
 * since those are for references.
 */
export const sessionNamePattern =
  /^(?=.{1,512}$)(?!(?:.*\/)?\.\.?(?:\/|$))([A-Za-z0-9_.~-]+(\/[A-Za-z0-9_.~-]+)*|\/)$/;

/** The session that holds all others. */
export const ROOT = '/';

/** The namespace that a session is in, or undefined for the root itself. */
export function namespaceOf(session: string): string | undefined {
  if (session === ROOT) return undefined;
  const slash = session.lastIndexOf('/');
  return slash < 0 ? ROOT : session.slice(0, slash);
}

/** Whether a session is the namespace itself, or anywhere in it. */
export function isWithin(session: string, namespace: string): boolean {
  return namespace === ROOT || session === namespace || session.startsWith(`${namespace}/`);
}

/**
 * The session that a reference means: `../sibling` and `./nested` are seen from the session that says so, as
 * paths are from a folder.
 * @returns undefined where it leads above the root, or to no session name
 */
export function resolveSessionName(from: string, reference: string): string | undefined {
  if (!/^\.\.?(\/|$)/.test(reference)) return sessionNamePattern.test(reference) ? reference : undefined;
  const levels = from === ROOT ? [] : from.split('/');
  for (const step of reference.split('/')) {
    if (step === '..') {
      if (levels.length === 0) return undefined;
      levels.pop();
    } else if (step !== '.') levels.push(step);
  }
  const name = levels.join('/') || ROOT;
  return sessionNamePattern.test(name) ? name : undefined;
}

/** A service of a session. */
export interface ServiceName {
  session: string;
  service: string;
}

/** What SCONE_CONFIG_ID names: a service, and the one-time password if one was appended. */
export interface ConfigId extends ServiceName {
  oneTimePassword?: string;
}

/** Takes `SESSION/SERVICE` apart. Session names contain `/`, so the last one separates; the root's is `//SERVICE`. */
function splitServiceName(text: string): ServiceName {
  const slash = text.lastIndexOf('/');
  return { session: text.slice(0, Math.max(0, slash)), service: text.slice(slash + 1) };
}

/** Reads `SESSION/SERVICE`; undefined where it is malformed. */
export function parseServiceName(text: string): ServiceName | undefined {
  const name = splitServiceName(text);
  return sessionNamePattern.test(name.session) && namePattern.test(name.service) ? name : undefined;
}

/**
 * Reads `SESSION/SERVICE` or `SESSION/SERVICE@CODE`.
 * @throws Failure CONFIG_ID_MALFORMED, which never holds the code
 */
export function parseConfigId(text: string): ConfigId {
  const [id = '', ...codes] = text.split('@');
  const { session, service } = splitServiceName(id);
  const malformed = (detail: string) => failure('CONFIG_ID_MALFORMED', { detail });
  if (!id.includes('/')) throw malformed('there is no / between session and service');
  if (!sessionNamePattern.test(session))
    throw malformed('what stands before the last / is not a session name');
  if (!namePattern.test(service)) throw malformed('what stands after the last / is not a service name');
  if (codes.length > 1) throw malformed('there is more than one @');
  if (codes[0] !== undefined && !/^[0-9]{6}$/.test(codes[0]))
    throw malformed('what stands after the @ is not a one-time password, which has six digits');
  return codes[0] === undefined ? { session, service } : { session, service, oneTimePassword: codes[0] };
}

/** The id without its one-time password, fit to be shown. */
export function formatConfigId({ session, service }: ServiceName): string {
  return `${session}/${service}`;
}
