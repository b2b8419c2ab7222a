import * as v from 'valibot';
import { failure } from '../../errors.ts';
import { parseServiceName, type ServiceName, sessionNamePattern } from '../../policy/names.ts';

/** Hash of a version, as a CAS gives it. */
export const versionHash = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));

/**
 * A session name as part of a URL's path.
 * @throws Failure USAGE
 */
export function sessionPath(name: string): string {
  if (!sessionNamePattern.test(name))
    throw failure('USAGE', { detail: `${JSON.stringify(name)} is not a session name` });
  return name === '/' ? '%2F' : name.split('/').map(encodeURIComponent).join('/');
}

/**
 * Reads SESSION/SERVICE; a service of the root namespace is written `//SERVICE`.
 * @throws Failure USAGE
 */
export function readServiceName(text: string): ServiceName {
  const name = parseServiceName(text);
  if (!name) throw failure('USAGE', { detail: `expected SESSION/SERVICE, not ${JSON.stringify(text)}` });
  return name;
}

/** A service as part of a URL's path. */
export function servicePath({ session, service }: ServiceName): string {
  return `${sessionPath(session)}/${encodeURIComponent(service)}`;
}
