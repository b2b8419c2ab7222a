import type { Duplex } from 'node:stream';
import { reason } from '../errors.ts';

/**
 * Messages on a byte stream: a 32-bit big-endian length, then that many bytes of JSON. Used on the LAS's Unix
 * socket and on the CAS's enclave port.
 */
export interface Frames {
  /**
   * The next message, as parsed JSON that no schema has checked yet. Rejects at the limit, the deadline or the end;
   * without a deadline it waits as long as the connection lasts.
   */
  read(deadline?: number): Promise<unknown>;
  /** Resolves once any part of a message is here that was not read yet. Rejects at the end. */
  arrival(): Promise<void>;
  /** @param done called when the system has taken it, or never will */
  write(message: unknown, done?: () => void): void;
  /**
   * Sends a message of any size, of which others are served meanwhile. The next comes once it was taken.
   * @param pieces of its JSON, in UTF-8
   * @returns when the system has taken it, or never will
   */
  writePieces(pieces: readonly Buffer[]): Promise<void>;
}

/** Why a message could not be read; the text is fit for a user. */
export class FrameError extends Error {
  override name = 'FrameError';
}

/** What came is no message, or a larger one than is allowed. */
export class MalformedFrame extends FrameError {
  override name = 'MalformedFrame';
}

/**
 * @param limit largest message accepted, in bytes: announced length is checked before anything is kept.
 */
export function frames(stream: Duplex, limit: number): Frames {
  const chunks: Buffer[] = [];
  let buffered = 0;
  let ended: (() => Error) | undefined;
  let wake: (() => void) | undefined;

  // Every connection ends, but few are read from then, and an error takes long to make.
  const end = (error: () => Error) => {
    ended ??= error;
    wake?.();
  };
  const endClosed = () => end(() => new FrameError('the connection was closed before an answer came'));
  stream.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    buffered += chunk.length;
    if (buffered > limit + 4) stream.pause();
    wake?.();
  });
  stream.on('error', (error) => end(() => new FrameError(reason(error))));
  stream.on('end', endClosed);
  stream.on('close', endClosed);
  // Of what was before, a stream says nothing any more.
  if (stream.destroyed)
    end(() => new FrameError(reason(stream.errored ?? new Error('the connection was closed'))));

  let needed = 4;
  const take = (): unknown => {
    if (buffered < needed) return undefined;
    const bytes = Buffer.concat(chunks);
    chunks.splice(0, chunks.length, bytes);
    if (needed === 4) {
      const length = bytes.readUInt32BE(0);
      if (length === 0 || length > limit)
        throw new MalformedFrame(`a message of ${length} bytes is announced, 1 to ${limit} are allowed`);
      needed = 4 + length;
      if (buffered < needed) return undefined;
    }
    const text = bytes.toString('utf8', 4, needed);
    buffered -= needed;
    // An empty rest would keep the whole message.
    chunks.splice(0, chunks.length, ...(buffered > 0 ? [bytes.subarray(needed)] : []));
    needed = 4;
    stream.resume();
    try {
      return JSON.parse(text);
    } catch {
      throw new MalformedFrame('a message is not JSON');
    }
  };

  return {
    async read(deadline) {
      const timer =
        deadline === undefined
          ? undefined
          : setTimeout(
              () => end(() => new FrameError('no answer in time')),
              Math.max(0, deadline - Date.now()),
            );
      try {
        for (;;) {
          const message = take();
          if (message !== undefined) return message;
          if (ended) throw ended();
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      } finally {
        clearTimeout(timer);
      }
    },
    async arrival() {
      while (buffered === 0) {
        if (ended) throw ended();
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
    write(message, done) {
      const body = Buffer.from(JSON.stringify(message));
      stream.write(Buffer.concat([headOf(body.length), body]), done && (() => done()));
    },
    async writePieces([first = Buffer.alloc(0), ...others]) {
      const size = others.reduce((sum, { length }) => sum + length, first.length);
      let taken: Promise<void> | undefined;
      let written = 0;
      for (const piece of [Buffer.concat([headOf(size), first]), ...others]) {
        written += piece.length;
        if (written > AT_ONCE) {
          await new Promise((next) => setImmediate(next));
          written = piece.length;
        }
        taken = new Promise((resolve) => stream.write(piece, () => resolve()));
      }
      await taken;
    },
  };
}

/** Bytes that are written at once: a server would encrypt megabytes before it serves anybody else. */
const AT_ONCE = 1024 * 1024;

function headOf(length: number): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(length);
  return head;
}
