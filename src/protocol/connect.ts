import type { X509Certificate } from 'node:crypto';
import { connect, type TLSSocket } from 'node:tls';
import { failure, reason } from '../errors.ts';
import { type Address, connectOptions, formatAddress } from './address.ts';
import { formatKeyHash, publicKeyDigest } from './key-hash.ts';
import { LAUNCH_PROTOCOL } from './launch.ts';

/** A TLS connection to the enclave port of a CAS whose key is still to be checked. */
export interface CasConnection {
  socket: TLSSocket;
  /** SHA-256 of the public key that the CAS proved to hold in the handshake. */
  key: Buffer;
}

/**
 * Opens TLS 1.3 to the enclave port. Names and validity in the certificate do not count: the caller compares
 * the key with the one it expects, before it sends anything.
 *
 * @param deadline milliseconds since 1970
 * @throws Failure CAS_UNREACHABLE or CAS_PROTOCOL
 */
export function connectCas(address: Address, deadline: number): Promise<CasConnection> {
  const shown = formatAddress(address);
  return new Promise((resolve, reject) => {
    const socket = connect({
      ...connectOptions(address),
      // The key is pinned, so no certificate authority counts; none is loaded.
      ca: [],
      minVersion: 'TLSv1.3',
      ALPNProtocols: [LAUNCH_PROTOCOL],
      rejectUnauthorized: false,
    });
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
      clearTimeout(timer);
      socket
        .removeAllListeners('error')
        .removeAllListeners('close')
        .on('error', () => {});
      const certificate: X509Certificate | undefined = socket.getPeerX509Certificate();
      if (socket.alpnProtocol !== LAUNCH_PROTOCOL || !certificate) {
        socket.destroy();
        reject(
          failure('CAS_PROTOCOL', {
            address: shown,
            detail: 'this port is not the one for launchers, or not that of a CAS',
          }),
        );
      } else resolve({ socket, key: publicKeyDigest(certificate.publicKey) });
    });
  });
}

/** @throws Failure CAS_KEY_MISMATCH unless the CAS has the expected key. `source` says where that came from. */
export function checkKey(
  connection: CasConnection,
  expected: Buffer,
  source: string,
  address: Address,
): void {
  if (connection.key.equals(expected)) return;
  connection.socket.destroy();
  throw failure('CAS_KEY_MISMATCH', {
    address: formatAddress(address),
    actual: formatKeyHash(connection.key),
    expected: formatKeyHash(expected),
    source,
  });
}
