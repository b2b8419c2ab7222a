import { config as defaults, enums, generateKey, readKey, readPrivateKey } from 'openpgp';

/** Ways to write down an OpenPGP key. */
export type OpenPgpEncoding = 'asciiarmored' | 'binary' | 'base64';

const config = {
  ...defaults,
  // Version 4 keys and messages (RFC 4880): GnuPG does not read those of version 6.
  v6Keys: false,
  aeadProtect: false,
  // What the key says it likes best; the library names what else it can do after it.
  preferredSymmetricAlgorithm: enums.symmetric.aes256,
  preferredHashAlgorithm: enums.hash.sha256,
  preferredCompressionAlgorithm: enums.compression.zlib,
  showVersion: false,
  showComment: false,
};

/**
 * Makes an OpenPGP key that has no passphrase and never expires: EdDSA (Ed25519) to certify and sign, with a subkey
 * for ECDH (Curve25519) to decrypt, in the forms that GnuPG reads since version 2.1.
 *
 * @param userId the one user id, such as `Name` or `Name <name@example.com>`; 1 to 5120 characters
 * @param now milliseconds since 1970; the time of creation
 * @returns the transferable secret key (RFC 4880 §11.2), binary
 */
export async function generateOpenPgpKey(userId: string, now: number): Promise<Buffer> {
  const { privateKey } = await generateKey({
    type: 'ecc',
    curve: 'curve25519Legacy',
    userIDs: { name: userId },
    date: new Date(now),
    keyExpirationTime: 0,
    format: 'binary',
    config,
  });
  return Buffer.from(privateKey);
}

/**
 * @param key transferable secret key, binary
 * @param part the key itself, or the transferable public key (RFC 4880 §11.1) that belongs to it
 * @param encoding ASCII armor (RFC 4880 §6.2) without any header, binary, or base64 of that in one line
 */
export async function formatOpenPgpKey(
  key: Buffer,
  part: 'privatekey' | 'publickey',
  encoding: OpenPgpEncoding,
): Promise<Buffer> {
  const wanted =
    part === 'privatekey'
      ? await readPrivateKey({ binaryKey: key, config })
      : (await readKey({ binaryKey: key, config })).toPublic();
  if (encoding === 'asciiarmored') return Buffer.from(wanted.armor(config));
  const binary = Buffer.from(wanted.write());
  return encoding === 'binary' ? binary : Buffer.from(binary.toString('base64'));
}
