import type { X509Certificate } from 'node:crypto';
import { connect as connectTcp, type Socket } from 'node:net';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { failure, reason } from '../errors.ts';
import { type Address, connectOptions, formatAddress } from '../policy/address.ts';
import { formatKeyHash, publicKeyDigest } from '../policy/key-hash.ts';
import type { Handshake } from './handshake.ts';

/** A TLS connection to a CAS whose key is still to be checked. */
export interface CasConnection {
  socket: TLSSocket;
  address: Address;
  certificate: X509Certificate;
  /** SHA-256 of the public key that the CAS proved to hold in the handshake. */
  key: Buffer;
}

/**
 * Opens TLS to a CAS. Names and validity in its certificate do not count: the caller compares the key with the
 * one it expects, before it sends anything.
 *
 * @param options what differs between the two ports of a CAS; of several protocols, the CAS chooses one
 * @param deadline milliseconds since 1970
 * @param bound makes a handshake that has bounds; absent: it has none
 * @throws Failure CAS_UNREACHABLE or CAS_PROTOCOL
 */
export function connectCas(
  address: Address,
  options: Pick<ConnectionOptions, 'ALPNProtocols' | 'key' | 'cert'>,
  deadline: number,
  bound?: (socket: Socket) => Handshake,
): Promise<CasConnection> {
  const shown = formatAddress(address);
  return new Promise((resolve, reject) => {
    const at = connectOptions(address);
    const handshake = bound?.(connectTcp({ ...at, noDelay: true }));
    const socket = connect({
      ...at,
      ...(handshake && { socket: handshake.stream }),
      ...options,
      minVersion: 'TLSv1.3',
      // The key is pinned, so no certificate authority counts; none is loaded.
      ca: [],
      rejectUnauthorized: false,
    });
    if (handshake) socket.on('keylog', handshake.learn);
    const timer = setTimeout(
      () => socket.destroy(Object.assign(new Error(), { code: 'ETIMEDOUT' })),
      Math.max(0, deadline - Date.now()),
    );
    const refuse = (error: unknown) => {
      clearTimeout(timer);
      reject(failure('CAS_UNREACHABLE', { address: shown, detail: reason(error) }));
    };
    socket.once('error', refuse);
    socket.once('close', () => refuse(new Error('the connection was closed during the TLS handshake')));
    socket.once('secureConnect', () => {
      handshake?.complete(socket);
      clearTimeout(timer);
      socket
        .removeAllListeners('error')
        .removeAllListeners('close')
        .on('error', () => {});
      const certificate = socket.getPeerX509Certificate();
      const protocols = (options.ALPNProtocols as string[] | undefined) ?? [];
      const chosen = socket.alpnProtocol || undefined;
      if (certificate && (chosen ? protocols.includes(chosen) : protocols.length === 0))
        return resolve({ socket, address, certificate, key: publicKeyDigest(certificate.publicKey) });
      socket.destroy();
      const detail = 'this is another port than the one wanted, or not a CAS';
      reject(failure('CAS_PROTOCOL', { address: shown, detail }));
    });
  });
}

/** @throws Failure CAS_KEY_MISMATCH unless the CAS has the expected key. `source` says where that came from. */
export function checkKey({ socket, address, key }: CasConnection, expected: Buffer, source: string): void {
  if (key.equals(expected)) return;
  socket.destroy();
  throw failure('CAS_KEY_MISMATCH', {
    address: formatAddress(address),
    actual: formatKeyHash(key),
    expected: formatKeyHash(expected),
    source,
  });
}
