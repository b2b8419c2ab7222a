import { AsyncResource } from 'node:async_hooks';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import {
  isRecordType,
  lookAtCertificates,
  RECORD_HEADER,
  type ShownCertificates,
} from './shown-certificates.ts';

/**
 * Bytes that the other end may send in a TLS handshake: a certificate and its issuers. Each certificate more would be
 * verified, at up to eight milliseconds a kilobyte.
 */
const MOST_BYTES = 8192;

/** A socket whose other end has not completed a TLS handshake. */
export interface Handshake extends Pick<ShownCertificates, 'learn'> {
  /** To be given to TLS in the place of the socket. */
  stream: Duplex;
  /** To be called once the handshake is complete, while its last bytes are read; ends of TLS are as those of the socket. */
  complete(tls: TLSSocket): void;
}

/**
 * Gives TLS one record after the other until a handshake is complete, each only after a look at it. OpenSSL reads all keys
 * of a chain, and verifies it, within one call, trusted or not; Node has no setting for how many, and of which kind. Who sends much,
 * or a key that takes long, has his connection closed.
 * @param peer whose records they are; Node's `keylog` is to be given to `learn`
 * @param inTurn reads a record when it is its turn; rejects to close the connection
 */
export function boundHandshake(
  socket: Socket,
  peer: 'client' | 'server',
  inTurn: (read: () => void) => Promise<void>,
): Handshake {
  const certificates = lookAtCertificates(peer);
  let pending: Buffer = Buffer.alloc(0);
  let left = MOST_BYTES;
  let isComplete = false;
  let isReading = false;
  const stream = new Duplex({
    // TLS ends it, once all that came has been read, which may be long after the other side has closed.
    allowHalfOpen: true,
    autoDestroy: false,
    read: () => void (isReading || socket.resume()),
    write: (chunk, _encoding, done) => void (socket.writable ? socket.write(chunk, done) : done()),
    final: (done) => void (socket.writable ? socket.end(done) : done()),
    destroy(error, done) {
      socket.destroy();
      done(error);
    },
  });
  // TLS tells of it in the context in which the connection was accepted.
  const end = AsyncResource.bind((error?: Error) => void stream.destroy(error));
  const push = (chunk: Buffer) => {
    if (!stream.push(chunk)) socket.pause();
  };
  /** The next record, once all of it is there. */
  const nextRecord = () => {
    const [type] = pending;
    if (type === undefined) return undefined;
    // What is no record is told at once.
    if (!isRecordType(type)) return pending;
    const length = pending.length < RECORD_HEADER ? Infinity : RECORD_HEADER + pending.readUInt16BE(3);
    const isThere = length <= pending.length;
    if ((isThere ? length : pending.length) > left) throw new Error('a long handshake');
    if (!isThere) return undefined;
    const record = pending.subarray(0, length);
    pending = pending.subarray(length);
    left -= length;
    return record;
  };
  const readRecords = async () => {
    isReading = true;
    socket.pause();
    try {
      for (let record = nextRecord(); record; record = isComplete ? undefined : nextRecord()) {
        const next = record;
        await inTurn(() => {
          certificates.look(next);
          push(next);
        });
        // Else it would be read beside the next, which nobody has looked at.
        if (stream.readableLength > 0) throw new Error('TLS does not read');
      }
    } catch {
      end();
    }
    isReading = false;
    // What a client sends after its last message comes with it.
    if (isComplete && pending.length > 0) push(pending);
    if (isComplete) pending = Buffer.alloc(0);
    socket.resume();
  };
  socket
    .on('data', (chunk: Buffer) => {
      if (isComplete && !isReading) return push(chunk);
      pending = Buffer.concat([pending, chunk]);
      if (!isReading) void readRecords();
    })
    // Whoever ends before that completes nothing any more.
    .on('end', () => (isComplete ? stream.push(null) : end()))
    .on('error', end)
    .on('close', () => {
      if (!socket.readableEnded) end();
    })
    .resume();
  return {
    stream,
    learn: certificates.learn,
    complete(tls) {
      isComplete = true;
      tls.allowHalfOpen = socket.allowHalfOpen;
    },
  };
}
