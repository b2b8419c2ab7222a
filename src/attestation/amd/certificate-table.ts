import { Malformed, reader } from '../bytes.ts';
import { type Certificate, parseCertificate } from '../x509/certificate.ts';

/** Much more than a host has to hand over: three or four certificates. */
const LARGEST = 64 * 1024;
const MOST = 16;
const ENTRY_SIZE = 24;

/**
 * Reads the certificates that a host hands to its guest along with a report (AMD 56421, GHCB, the extended guest request;
 * `auxblob` of configfs-tsm): a table of entries of GUID, offset and length, ended by one of zeros, and what they point
 * to. The GUIDs say what each is meant to be; certificates say that themselves, so only X.509 is asked for.
 * @returns none for a table that is empty, as it often is
 * @throws Malformed
 */
export function parseCertificateTable(bytes: Buffer): Certificate[] {
  if (bytes.length > LARGEST) throw new Malformed(`a certificate table has more than ${LARGEST} bytes`);
  if (bytes.length === 0) return [];
  const table = reader(bytes, 'the certificate table');
  const certificates: Certificate[] = [];
  for (;;) {
    const entry = table.bytes(ENTRY_SIZE);
    if (entry.every((byte) => byte === 0)) return certificates;
    if (certificates.length === MOST)
      throw new Malformed(`a certificate table has more than ${MOST} entries`);
    const [offset, length] = [entry.readUInt32LE(16), entry.readUInt32LE(20)];
    if (offset + length > bytes.length) throw new Malformed('the certificate table points beyond its end');
    certificates.push(parseCertificate(bytes.subarray(offset, offset + length)));
  }
}
