import type { Duplex } from 'node:stream';

/**
 * Messages on a byte stream: a 32-bit big-endian length, then that many bytes of JSON. Used on the LAS's Unix
 * socket and on the CAS's enclave port.
 */
export interface Frames {
  /** The next message, as parsed JSON that no schema has checked yet. Rejects at the limit, the deadline or the end. */
  read(deadline: number): Promise<unknown>;
  /** Sends a message and gives its size in bytes, or sends none that is larger than `most`. */
  write(message: unknown, most?: number): number | undefined;
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
  stream.on('error', (error) => end(() => error));
  stream.on('end', endClosed);
  stream.on('close', endClosed);

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
    chunks.splice(0, chunks.length, bytes.subarray(needed));
    buffered -= needed;
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
      const timer = setTimeout(
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
    write(message, most = Number.POSITIVE_INFINITY) {
      const body = Buffer.from(JSON.stringify(message));
      if (body.length > most) return undefined;
      const head = Buffer.alloc(4);
      head.writeUInt32BE(body.length);
      stream.write(Buffer.concat([head, body]));
      return body.length;
    },
  };
}
