import { causes, type Failure, failure } from '../errors.ts';

/** What is wrong with bytes that should have a form; verifiers make a refusal of it. */
export class Malformed extends Error {
  override name = 'Malformed';
}

/**
 * Runs a verification; what it could not read, and what OpenSSL could not use, becomes a refusal.
 * @throws Failure EVIDENCE_INVALID, or whatever Failure the work throws
 */
export function refusing<Result>(work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    if (!(error instanceof Malformed || /^ERR_(OSSL|CRYPTO|INVALID)_/.test(code))) throw error;
    throw invalidEvidence(causes(error).join(': '));
  }
}

/** What a verifier throws that could read everything, and does not believe it. */
export function invalidEvidence(detail: string): Failure {
  return failure('EVIDENCE_INVALID', { detail });
}

/** Reads a binary structure from its beginning to its end, never beyond it. */
export interface Reader {
  /** Bytes read so far. */
  readonly offset: number;
  readonly remaining: number;
  u8(): number;
  /** Unsigned, little-endian (Intel, AMD). */
  u16le(): number;
  u32le(): number;
  u64le(): bigint;
  /** Unsigned, big-endian (TPM). */
  u16be(): number;
  u32be(): number;
  u64be(): bigint;
  /** A view, not a copy. */
  bytes(length: number): Buffer;
  /** As many bytes, which must all be zero. */
  zeros(length: number): void;
  /** A reader of the next bytes, which are passed over here. */
  part(length: number, name: string): Reader;
  /** Refuses bytes that nobody has read. */
  end(): void;
}

/**
 * @param name of the structure, for what is said when it is malformed
 * @throws Malformed from each method where the bytes are not there
 */
export function reader(bytes: Buffer, name: string): Reader {
  let offset = 0;
  const take = (length: number) => {
    if (!Number.isSafeInteger(length) || length < 0 || length > bytes.length - offset)
      throw new Malformed(`${name} ends early: ${length} bytes are wanted at ${offset} of ${bytes.length}`);
    offset += length;
    return offset - length;
  };
  return {
    get offset() {
      return offset;
    },
    get remaining() {
      return bytes.length - offset;
    },
    u8: () => bytes.readUInt8(take(1)),
    u16le: () => bytes.readUInt16LE(take(2)),
    u32le: () => bytes.readUInt32LE(take(4)),
    u64le: () => bytes.readBigUInt64LE(take(8)),
    u16be: () => bytes.readUInt16BE(take(2)),
    u32be: () => bytes.readUInt32BE(take(4)),
    u64be: () => bytes.readBigUInt64BE(take(8)),
    bytes: (length) => {
      const start = take(length);
      return bytes.subarray(start, start + length);
    },
    zeros(length) {
      if (this.bytes(length).some((byte) => byte !== 0))
        throw new Malformed(`${name} has something where it should have zeros, before ${offset}`);
    },
    part(length, inner) {
      return reader(this.bytes(length), inner);
    },
    end() {
      if (offset < bytes.length)
        throw new Malformed(`${name} has ${bytes.length - offset} bytes after its end`);
    },
  };
}
