import { type KeyObject, sign, verify } from 'node:crypto';
import * as v from 'valibot';
import { failure } from '../errors.ts';

/**
 * One decision of a CAS, as a line of JSON. Each holds the signature of the one before, and is signed itself (Ed25519,
 * RFC 8032) over everything before its signature, which comes last.
 */
export interface Entry {
  operation: Operation;
  /** What it was about: names, numbers, digests, and the codes of errors; never a secret. */
  [field: string]: unknown;
}

/** Everything that is written. */
export const operations = [
  'cas_started',
  'cas_stopped',
  'cas_sealed',
  'store_restored',
  'backup_made',
  'provisioned',
  'owner_configuration_updated',
  'keys_rotated',
  'unlock_methods_changed',
  'backup_registered',
  'upgrade_registered',
  'registration_removed',
  'upgrade_started',
  'root_key_released',
  'session_created',
  'session_updated',
  'session_refused',
  'session_read',
  'read_refused',
  'one_time_password_read',
  'service_released',
  'service_refused',
  'secret_exported',
  'tpm_enrolled',
  'collateral_added',
  'refusals_omitted',
] as const;
export type Operation = (typeof operations)[number];

/** Bytes of a line. */
export const LONGEST_LINE = 64 * 1024;
/** What the first entry has as the signature of the one before. */
export const NO_PREDECESSOR = '0'.repeat(128);
const CONTEXT = 'envcas audit log entry 1\n';

const signature = v.pipe(v.string(), v.regex(/^[0-9a-f]{128}$/));
const signedEntry = v.looseObject({
  sequence: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  time: v.pipe(v.string(), v.isoTimestamp()),
  operation: v.picklist(operations),
  predecessor: signature,
  signature,
});
export type SignedEntry = v.InferOutput<typeof signedEntry>;

/** What an entry comes after. */
export interface Position {
  sequence: number;
  /** Of the entry with that number, hexadecimal. */
  signature: string;
}

export const beginning: Position = { sequence: 0, signature: NO_PREDECESSOR };

/** The line of an entry, without its end. @param time milliseconds since 1970 */
export function formatEntry(
  { operation, ...fields }: Entry,
  after: Position,
  time: number,
  key: KeyObject,
): { line: Buffer; position: Position } {
  const sequence = after.sequence + 1;
  const text = JSON.stringify({
    sequence,
    time: new Date(time).toISOString(),
    operation,
    ...fields,
    predecessor: after.signature,
    // Whatever of it is not ASCII is escaped, so that no way to print a line alters it.
  }).replaceAll(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
  const own = sign(null, Buffer.from(CONTEXT + text), key).toString('hex');
  const line = Buffer.from(`${text.slice(0, -1)},"signature":"${own}"}`);
  if (line.length > LONGEST_LINE) throw new RangeError('an entry of the audit log is too long');
  return { line, position: { sequence, signature: own } };
}

/** @throws Failure AUDIT_LOG_DAMAGED, where a line is no entry */
export function parseEntry(line: Buffer, number: number): SignedEntry {
  const damaged = (detail: string) => failure('AUDIT_LOG_DAMAGED', { sequence: number, detail });
  if (line.length > LONGEST_LINE) throw damaged('it is too long');
  let content: unknown;
  try {
    content = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(line));
  } catch {
    throw damaged('it is no JSON');
  }
  const parsed = v.safeParse(signedEntry, content);
  if (parsed.success) return parsed.output;
  throw damaged(`there is something unexpected at ${v.getDotPath(parsed.issues[0]) ?? 'the top'}`);
}

/**
 * Reads an entry, and sees that it is the next one and was signed by the CAS.
 * @throws Failure AUDIT_LOG_DAMAGED
 */
export function verifyEntry(line: Buffer, after: Position, key: KeyObject): SignedEntry {
  const entry = parseEntry(line, after.sequence + 1);
  const damaged = (detail: string) => failure('AUDIT_LOG_DAMAGED', { sequence: after.sequence + 1, detail });
  if (entry.sequence !== after.sequence + 1) throw damaged(`it has the number ${entry.sequence}`);
  if (entry.predecessor !== after.signature) throw damaged('it follows another entry than the one before it');
  if (!isSigned(line, entry.signature, key)) throw damaged('its signature is wrong');
  return entry;
}

/** Whether a line ends with a signature over what comes before it. */
export function isSigned(line: Buffer, its: string, key: KeyObject): boolean {
  const end = Buffer.from(`,"signature":"${its}"}`);
  if (!line.subarray(-end.length).equals(end)) return false;
  const content = Buffer.concat([Buffer.from(CONTEXT), line.subarray(0, -end.length), Buffer.from('}')]);
  return verify(null, content, key, Buffer.from(its, 'hex'));
}
