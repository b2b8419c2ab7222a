import { bitString, certificate, der, integer, objectIdentifier, octetString, sequence } from './pki.ts';

/** A prime of 654 bits for which OpenSSL takes a fifth of a second to find a square root. */
const prime = 23n * 2n ** 649n + 1n;
const LENGTH = 82;
const number = (value: number) => Buffer.from(value.toString(16).padStart(2 * LENGTH, '0'), 'hex');
/** A point by its x alone, so that who reads it has to find its y. */
const point = Buffer.concat([Buffer.of(2), number(3)]);

const EC = objectIdentifier('1.2.840.10045.2.1');
const P_256 = objectIdentifier('1.2.840.10045.3.1.7');
/** The curve y^2 = x^3 + x + 1, as ECParameters (ANSI X9.62) spell one out. */
const curve = sequence(
  integer(1),
  sequence(objectIdentifier('1.2.840.10045.1.1'), integer(prime)),
  sequence(octetString(number(1)), octetString(number(1))),
  octetString(point),
  integer(prime + 2n),
  integer(1),
);

/** A public key (SubjectPublicKeyInfo) that takes OpenSSL long to read. */
export const dearPublicKey = sequence(sequence(EC, curve), bitString(point));

const privateKey = (...parameters: Buffer[]) => sequence(integer(1), octetString(number(1)), ...parameters);
/** Private keys (PKCS#8) that do: one says the curve where that belongs, the other within. */
export const dearPrivateKeys = [
  sequence(integer(0), sequence(EC, curve), octetString(privateKey())),
  sequence(integer(0), sequence(EC, P_256), octetString(privateKey(der(0xa0, curve)))),
];

/** DER of a certificate of such a key. */
export const dearCertificate = () => certificate({ commonName: 'dear', publicKey: dearPublicKey }).der;
