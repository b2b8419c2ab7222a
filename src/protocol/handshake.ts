import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';

/**
 * Bytes that the other end may send in a TLS handshake: a certificate and its issuers. Each certificate more would be
 * verified, at up to eight milliseconds a kilobyte.
 */
const MOST_BYTES = 8192;

/** A socket whose other end has not completed a TLS handshake. */
export interface Handshake {
  /** To be given to TLS in the place of the socket. */
  stream: Duplex;
  /** To be called once the handshake is complete, while its last bytes are read. */
  complete(): void;
}

/**
 * Closes a connection whose other end sends much before its handshake is complete. OpenSSL verifies all certificates of
 * a chain within one call, trusted or not, and Node has no setting for how many.
 * @param took is told of the milliseconds of processor time that bytes of the handshake have taken
 */
export function boundHandshake(socket: Socket, took?: (milliseconds: number) => void): Handshake {
  let left: number | undefined = MOST_BYTES;
  const stream = new Duplex({
    // TLS ends it, once all that came has been read, which may be long after the other side has closed.
    allowHalfOpen: true,
    autoDestroy: false,
    read: () => void socket.resume(),
    write: (chunk, _encoding, done) => void (socket.writable ? socket.write(chunk, done) : done()),
    final: (done) => void (socket.writable ? socket.end(done) : done()),
    destroy(error, done) {
      socket.destroy();
      done(error);
    },
  });
  const push = (chunk: Buffer) => {
    if (!stream.push(chunk)) socket.pause();
  };
  socket
    .on('data', (chunk: Buffer) => {
      if (left === undefined) return push(chunk);
      const part = chunk.subarray(0, left);
      left -= part.length;
      const { user, system } = process.threadCpuUsage();
      push(part);
      const after = process.threadCpuUsage();
      took?.((after.user + after.system - user - system) / 1000);
      if (part.length === chunk.length) return;
      // What a client sends after its last message comes with it.
      if (left === undefined) push(chunk.subarray(part.length));
      else socket.destroy();
    })
    // Whoever ends before that completes nothing any more.
    .on('end', () => (left === undefined ? stream.push(null) : stream.destroy()))
    .on('error', (error) => stream.destroy(error))
    .on('close', () => {
      if (!socket.readableEnded) stream.destroy();
    })
    .resume();
  return {
    stream,
    complete() {
      left = undefined;
    },
  };
}
