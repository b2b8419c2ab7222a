import { createDecipheriv, createHmac } from 'node:crypto';
import { Malformed, reader } from '../attestation/bytes.ts';
import { checkCertificate } from '../quick-key.ts';

/**
 * Looks at the certificates that the other end of a TLS connection shows, before OpenSSL reads them (RFC 8446, RFC 5246).
 * In TLS 1.3 they are encrypted by a key that is known as soon as the ServerHello is written or read.
 */
export interface ShownCertificates {
  /** Takes a line of NSS's key log, as Node tells them of a connection. */
  learn(line: Buffer): void;
  /**
   * Looks at a record that comes next in the handshake, before TLS is given it.
   * @throws Malformed or UnknownKey where it should not be
   */
  look(record: Buffer): void;
}

/** Types of records (RFC 8446 §5.1), and of messages of a handshake (§4). */
const CHANGE_CIPHER_SPEC = 20;
const HANDSHAKE = 22;
const APPLICATION_DATA = 23;
const CERTIFICATE = 11;
const FINISHED = 20;
const COMPRESSED_CERTIFICATE = 25;

/** Whether a record of TLS may begin with a byte: one of SSL 2 would be taken apart otherwise. */
export const isRecordType = (byte: number): boolean => byte >= CHANGE_CIPHER_SPEC && byte <= APPLICATION_DATA;

/** Bytes before what a record holds, and of the code behind what is encrypted. */
export const RECORD_HEADER = 5;
const TAG = 16;

/** Ciphers by the length of the handshake's secret, which is that of their hash (RFC 8446 §B.4). */
const CIPHERS: Readonly<Record<number, readonly { name: string; keyLength: number; hash: string }[]>> = {
  32: [
    { name: 'aes-128-gcm', keyLength: 16, hash: 'sha256' },
    { name: 'chacha20-poly1305', keyLength: 32, hash: 'sha256' },
  ],
  48: [{ name: 'aes-256-gcm', keyLength: 32, hash: 'sha384' }],
};

type Decrypt = (record: Buffer, sequence: number) => Buffer | undefined;

/** @param peer who shows them */
export function lookAtCertificates(peer: 'client' | 'server'): ShownCertificates {
  const wanted = `${peer.toUpperCase()}_HANDSHAKE_TRAFFIC_SECRET `;
  let ciphers: Decrypt[] | undefined;
  let sequence = 0;
  let messages: Buffer = Buffer.alloc(0);
  let isEncrypted = false;
  let isOver = false;

  const decrypt = (record: Buffer): Buffer => {
    for (const cipher of ciphers ?? []) {
      const plain = cipher(record, sequence);
      if (!plain) continue;
      sequence++;
      // It is of that cipher that it has the code of.
      ciphers = [cipher];
      return plain;
    }
    throw new Malformed('a record of the handshake that cannot be decrypted');
  };
  const read = (part: Buffer) => {
    messages = Buffer.concat([messages, part]);
    while (!isOver && messages.length >= 4) {
      const end = 4 + messages.readUIntBE(1, 3);
      if (messages.length < end) return;
      const [type] = messages;
      const content = messages.subarray(4, end);
      messages = messages.subarray(end);
      if (type === COMPRESSED_CERTIFICATE) throw new Malformed('compressed certificates');
      if (type === CERTIFICATE) checkCertificates(content, ciphers !== undefined);
      isOver = type === FINISHED;
    }
  };
  return {
    learn(line) {
      if (!line.toString('latin1', 0, wanted.length).startsWith(wanted)) return;
      const secret = Buffer.from(line.toString('latin1').trim().split(' ')[2] ?? '', 'hex');
      ciphers = CIPHERS[secret.length]?.map((cipher) => decryption(cipher, secret));
    },
    look(record) {
      if (isOver) return;
      const [type] = record;
      if (type === undefined || !isRecordType(type)) throw new Malformed('no record of TLS');
      const content = record.subarray(RECORD_HEADER);
      if (type === HANDSHAKE) {
        // After TLS 1.2 has changed its cipher, Finished is all that comes.
        if (!isEncrypted) read(content);
      } else if (type === APPLICATION_DATA) {
        const plain = decrypt(record);
        const end = plain.findLastIndex((byte) => byte !== 0);
        if (plain[end] === HANDSHAKE) read(plain.subarray(0, end));
      } else if (type === CHANGE_CIPHER_SPEC) isEncrypted = true;
    },
  };
}

/** @param isLater whether it is of TLS 1.3 (RFC 8446 §4.4.2), else of TLS 1.2 (RFC 5246 §7.4.2) */
function checkCertificates(content: Buffer, isLater: boolean): void {
  const message = reader(content, 'a list of certificates');
  const u24 = () => message.u8() * 2 ** 16 + message.u16be();
  if (isLater) message.bytes(message.u8());
  if (u24() !== message.remaining) throw new Malformed('a list of certificates of another length');
  while (message.remaining > 0) {
    checkCertificate(message.bytes(u24()));
    if (isLater) message.bytes(message.u16be());
  }
}

/** What decrypts the records that a secret protects (RFC 8446 §5.2 and §7.3). */
function decryption(
  { name, keyLength, hash }: { name: string; keyLength: number; hash: string },
  secret: Buffer,
): Decrypt {
  const expand = (label: string, length: number) => {
    const full = Buffer.from(`tls13 ${label}`);
    const info = Buffer.concat([Buffer.of(0, length, full.length), full, Buffer.of(0, 1)]);
    return createHmac(hash, secret).update(info).digest().subarray(0, length);
  };
  const key = expand('key', keyLength);
  const iv = expand('iv', 12);
  return (record, sequence) => {
    if (record.length < RECORD_HEADER + TAG) return undefined;
    const nonce = Buffer.from(iv);
    nonce.writeUInt32BE((nonce.readUInt32BE(8) ^ sequence) >>> 0, 8);
    const decipher = createDecipheriv(name as 'aes-128-gcm', key, nonce, { authTagLength: TAG });
    decipher.setAAD(record.subarray(0, RECORD_HEADER)).setAuthTag(record.subarray(-TAG));
    const plain = decipher.update(record.subarray(RECORD_HEADER, -TAG));
    try {
      decipher.final();
      return plain;
    } catch {
      return undefined;
    }
  };
}
