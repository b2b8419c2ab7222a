import * as v from 'valibot';
import { defaultPorts, parseAddress } from '../address.ts';
import { parseKeyHash } from '../key-hash.ts';
import { sessionNamePattern } from '../names.ts';
import { hex, object, oneOrMany, text, textOr } from '../shapes.ts';
import { described, name, sessionReference } from './values.ts';

/** `export` and `import`: secrets and volumes that sessions share. */

export const sharingProblem = v.pipe(
  text,
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const parsed = parseSharing(dataset.value);
    if (typeof parsed !== 'string') return parsed;
    addIssue({ message: parsed });
    return NEVER;
  }),
);

const remote = {
  cas_url: v.optional(described(text, 'Address of another CAS: HOST or HOST:PORT')),
  cas_key: v.optional(described(text, 'Key hash of the other CAS')),
  cas_software_key: v.optional(described(text, 'Key hash of the software of the other CAS')),
};

/** What is wrong with the way another CAS is named, if anything. */
function otherCasProblem(it: {
  cas_url?: string | undefined;
  cas_key?: string | undefined;
  cas_software_key?: string | undefined;
  session?: string | undefined;
}): string | undefined {
  if (it.cas_software_key !== undefined) return 'a CAS is known by cas_key; it has no other key';
  if (it.cas_key === undefined)
    return it.cas_url === undefined ? undefined : 'the key of the other CAS is missing: cas_key';
  if (it.session !== undefined && !sessionNamePattern.test(it.session))
    return 'a session on another CAS has no relative name';
  try {
    parseKeyHash(it.cas_key, 'cas_key');
    if (it.cas_url !== undefined) parseAddress(it.cas_url, defaultPorts.api, 'cas_url');
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

export const importerHash = described(hex(64), 'The version that session must have');

export const exportTarget = v.pipe(
  object({
    session: v.optional(described(sessionReference, 'The session that may import it')),
    session_hash: v.optional(importerHash),
    namespace: v.optional(described(sessionReference, 'This session, and everything below it')),
    ...remote,
  }),
  v.check(
    ({ session, namespace }) => (session === undefined) !== (namespace === undefined),
    'expected one of session and namespace',
  ),
  v.check(
    ({ namespace, session_hash, cas_key, cas_url }) =>
      namespace === undefined ||
      (session_hash === undefined && cas_key === undefined && cas_url === undefined),
    'a namespace is exported to without session_hash, and on this CAS alone',
  ),
  v.rawCheck(({ dataset, addIssue }) => {
    const message = dataset.typed ? otherCasProblem(dataset.value) : undefined;
    if (message !== undefined) addIssue({ message });
  }),
);
/** To whom a secret is exported. */
export type ExportTarget = v.InferOutput<typeof exportTarget>;

export const exports = oneOrMany(
  textOr(sharingProblem, exportTarget) as v.GenericSchema<unknown, ExportTarget>,
);

export const importSource = v.pipe(
  object({
    session: described(sessionReference, 'The session that exports the secret'),
    secret: described(name, 'Its name there'),
    session_hash: v.optional(described(hex(64), 'The version that the other session must have')),
    ...remote,
  }),
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed) return;
    const { cas_url, cas_key } = dataset.value;
    const message =
      otherCasProblem(dataset.value) ??
      (cas_key !== undefined && cas_url === undefined
        ? 'where is the other CAS? cas_url is missing'
        : undefined);
    if (message !== undefined) addIssue({ message });
  }),
);
/** Where a secret is imported from. */
export type ImportSource = v.InferOutput<typeof importSource>;

/**
 * The one-line form of a session to share with: `/session=NAME,session_hash=HASH` on this CAS, and
 * `HOST/cas_key=KEY,session=NAME` on another.
 * @returns the same as a mapping, or a message where it is malformed
 */
export function parseSharing(line: string): ExportTarget | string {
  const expected = 'expected a mapping, or /session=NAME or HOST[:PORT]/cas_key=KEY,session=NAME';
  const match = /^([A-Za-z0-9.:[\]_-]*)\/(.+)$/.exec(line);
  if (!match) return expected;
  const [, host = '', rest = ''] = match;
  const fields: Record<string, string> = host === '' ? {} : { cas_url: host };
  for (const piece of rest.split(',')) {
    const [, key = '', value = ''] = /^([a-z_]+)=(.+)$/.exec(piece) ?? [];
    if (!['session', 'session_hash', 'namespace', 'cas_key', 'cas_software_key'].includes(key))
      return expected;
    if (key in fields) return `${key} is there twice`;
    fields[key] = value;
  }
  const { session, session_hash, namespace } = fields;
  if (session === undefined && namespace === undefined) return expected;
  if (/^\.\.?(\/|$)/.test(session ?? namespace ?? '')) return 'the one-line form knows no relative paths';
  if (session_hash !== undefined && !/^[0-9A-Fa-f]{64}$/.test(session_hash))
    return 'session_hash has 64 hexadecimal digits';
  return { ...fields, ...(session_hash && { session_hash: session_hash.toLowerCase() }) };
}
