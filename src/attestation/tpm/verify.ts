import { createHash, KeyObject, verify } from 'node:crypto';
import { invalidEvidence, Malformed, refusing } from '../bytes.ts';
import { type BootEvent, replay } from './event-log.ts';
import {
  algorithms,
  attributes,
  LEAST_BITS,
  type PublicArea,
  padded,
  parsePublicArea,
  parseQuoteInfo,
  parseSignature,
  type QuoteInfo,
} from './structures.ts';

/** A quote and what belongs to it. */
export interface TpmQuote {
  /** TPMS_ATTEST, as it was signed. */
  message: Buffer;
  /** TPMT_SIGNATURE; or the bare signature, of RSA or of ECDSA in DER. */
  signature: Buffer;
  /** TPMT_PUBLIC or TPM2B_PUBLIC of the attestation key; or the key by itself, which says nothing of what it may sign. */
  key: Buffer | KeyObject;
  /** Registers of the SHA-256 bank by number, hexadecimal; or one after the other, as they are selected. */
  pcrs?: Readonly<Record<string, string>> | Buffer;
  /** What was measured at boot, in the format of the TCG (event-log.ts); of use with `pcrs` only. */
  eventLog?: Buffer;
}

/** What a verified quote says. Plain data; byte strings in hexadecimal. */
export interface TpmVerdict {
  root: 'tpm';
  /** Of the attestation key, where its public part was given. */
  keyName?: string;
  /** What the quote was made over. */
  reportData: string;
  clock: number;
  resetCount: number;
  restartCount: number;
  safe: boolean;
  firmwareVersion: string;
  /** Registers that the quote is over; the digest of their values is what is signed. */
  selected: readonly number[];
  pcrDigest: string;
  /** Values of the registers, where they were given. */
  pcrs?: Readonly<Record<string, string>>;
  /** What led to them, where a log was given. */
  events?: readonly BootEvent[];
}

/**
 * Verifies a quote of a TPM 2.0: that the key has signed it, that the registers are those that were signed, and that the
 * event log leads to them. Whose key it is follows from its enrolment, which is not looked at here.
 * @throws Failure EVIDENCE_INVALID
 */
export function verifyTpmQuote({ message, signature, key, pcrs, eventLog }: TpmQuote): TpmVerdict {
  return refusing(() => {
    const area = key instanceof KeyObject ? undefined : parsePublicArea(key);
    if (area) checkAttestationKey(area);
    const info = parseQuoteInfo(message);
    const hash = signedHash(message, signature, area?.key ?? (key as KeyObject));
    if (hash === undefined) throw invalidEvidence('the signature of the quote is wrong');
    const selected = selectedOf(info);
    const values = pcrs && valuesOf(pcrs, selected);
    if (values) checkValues(values, selected, { digest: info.pcrDigest, hash });
    return {
      root: 'tpm',
      ...(area && { keyName: area.name.toString('hex') }),
      reportData: info.extraData.toString('hex'),
      clock: Number(info.clock),
      resetCount: info.resetCount,
      restartCount: info.restartCount,
      safe: info.safe,
      firmwareVersion: info.firmwareVersion,
      selected,
      pcrDigest: info.pcrDigest.toString('hex'),
      ...(values && { pcrs: values }),
      ...(eventLog && { events: checkLog(eventLog, values) }),
    };
  });
}

/** A key of the TPM's own that signs nothing but what the TPM itself says (Part 1 §25.1). */
function checkAttestationKey({ attributes: flags }: PublicArea): void {
  const { fixedTpm, fixedParent, sensitiveDataOrigin, restricted, sign } = attributes;
  const { decrypt, encryptedDuplication, x509sign, reserved } = attributes;
  const needed = fixedTpm | fixedParent | sensitiveDataOrigin | restricted | sign;
  if ((flags & needed) !== needed || flags & (decrypt | encryptedDuplication | x509sign | reserved))
    throw invalidEvidence('the key is not one that signs only what its TPM says');
}

/** @returns the hash of the signature's scheme, or undefined where the key has not signed the message */
function signedHash(message: Buffer, signature: Buffer, key: KeyObject): string | undefined {
  const { type, size } = strength(key);
  const { scheme, hash, parts } = hasHeader(signature) ? parseSignature(signature) : bare(signature);
  if (scheme && (scheme === 'rsassa') !== (type === 'rsa')) return undefined;
  if (scheme !== 'ecdsa') return verify(hash, message, key, parts[0] ?? Buffer.alloc(0)) ? hash : undefined;
  if (parts.some(({ length }) => length > size)) return undefined;
  const rAndS = Buffer.concat(parts.map((part) => padded(part, size)));
  return verify(hash, message, { key, dsaEncoding: 'ieee-p1363' }, rAndS) ? hash : undefined;
}

/** @returns the kind of the key, and of ECC how many bytes a coordinate has */
function strength({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject) {
  const size = type === 'ec' ? coordinates.get(details?.namedCurve ?? '') : 0;
  const isWeak = type === 'rsa' && (details?.modulusLength ?? 0) < LEAST_BITS;
  if ((type !== 'rsa' && type !== 'ec') || size === undefined || isWeak)
    throw new Malformed(`the key is neither RSA of ${LEAST_BITS} bits nor on P-256 or P-384`);
  return { type, size };
}

const coordinates: ReadonlyMap<string, number> = new Map([
  ['prime256v1', 32],
  ['secp384r1', 48],
]);

/** A signature that does not say how it was made: in the usual way of its key, with SHA-256. */
function bare(signature: Buffer) {
  return { scheme: undefined, hash: 'sha256', parts: [signature] };
}

function hasHeader(signature: Buffer): boolean {
  const algorithm = signature.length > 4 ? signature.readUInt16BE(0) : 0;
  const isLength = signature.length > 6 && signature.readUInt16BE(4) <= signature.length - 6;
  return (algorithm === algorithms.rsassa || algorithm === algorithms.ecdsa) && isLength;
}

function selectedOf({ selections }: QuoteInfo): readonly number[] {
  const filled = selections.filter(({ registers }) => registers.length > 0);
  const [only] = filled;
  if (!only || filled.length > 1 || only.algorithm !== algorithms.sha256)
    throw new Malformed('the quote is not over registers of the SHA-256 bank alone');
  return only.registers;
}

const DIGEST = 32;

function valuesOf(pcrs: NonNullable<TpmQuote['pcrs']>, selected: readonly number[]): Record<string, string> {
  if (!Buffer.isBuffer(pcrs)) return { ...pcrs };
  if (pcrs.length !== DIGEST * selected.length)
    throw new Malformed(`there are ${pcrs.length} bytes of registers for ${selected.length} of them`);
  const value = (index: number) => pcrs.subarray(DIGEST * index, DIGEST * (index + 1)).toString('hex');
  return Object.fromEntries(selected.map((register, index) => [String(register), value(index)]));
}

/** The digest over the values is made with the hash of the signature's scheme (Part 3, TPM2_Quote), not with the bank's. */
function checkValues(
  values: Record<string, string>,
  selected: readonly number[],
  expected: { digest: Buffer; hash: string },
): void {
  const given = Object.keys(values).map(Number);
  if (given.length !== selected.length || !selected.every((register) => given.includes(register)))
    throw invalidEvidence('the registers that were given are not those of the quote');
  const hash = createHash(expected.hash);
  for (const register of selected) {
    const value = values[register] ?? '';
    if (!/^[0-9a-f]{64}$/.test(value)) throw new Malformed(`register ${register} has no value of SHA-256`);
    hash.update(Buffer.from(value, 'hex'));
  }
  if (!hash.digest().equals(expected.digest))
    throw invalidEvidence('the registers that were given are not those that were signed');
}

/** Registers that firmware measures into, each at least once; the others it shares with who comes after it. */
const OF_FIRMWARE = 8;
const UNTOUCHED = '0'.repeat(2 * DIGEST);

/**
 * The log may tell of more registers than the quote, which is then passed over; and of fewer, but for those of the firmware.
 * @returns the events of the registers of the quote
 */
function checkLog(log: Buffer, values: Record<string, string> | undefined): readonly BootEvent[] {
  if (!values) throw invalidEvidence('an event log means nothing without the registers');
  const { events, registers } = replay(log);
  for (const [register, value] of Object.entries(values)) {
    const replayed = registers[register] ?? (Number(register) < OF_FIRMWARE ? UNTOUCHED : value);
    if (replayed !== value)
      throw invalidEvidence(`the event log does not lead to the value of register ${register}`);
  }
  return events.filter(({ register }) => values[register] !== undefined);
}
