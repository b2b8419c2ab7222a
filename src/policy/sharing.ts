import type { ExportTarget } from './schema.ts';

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
