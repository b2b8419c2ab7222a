import { Malformed } from '../bytes.ts';

/**
 * Reads DER (X.690 §10): definite lengths in their shortest form, tags of one byte. What is not asked for is not looked
 * at, so that a revocation list of thousands costs no more than its bytes; the libraries at hand build a tree of
 * objects first, at one to four milliseconds a kilobyte.
 */
export interface Element {
  /** Identifier octet: class, whether constructed, number. */
  tag: number;
  /** Its contents. */
  content: Buffer;
  /** All of it, as it may have been signed. */
  encoded: Buffer;
}

/** Identifier octets. */
export const tags = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectIdentifier: 0x06,
  enumerated: 0x0a,
  utf8String: 0x0c,
  printableString: 0x13,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** Identifier octet of `[number]` with elements in it. */
export function contextTag(number: number): number {
  return 0xa0 | number;
}

/** The one element that all the bytes are. @throws Malformed */
export function parseDer(bytes: Buffer, tag: number): Element {
  const element = next(bytes, 0);
  if (element.encoded.length !== bytes.length) throw new Malformed('DER: bytes follow the last element');
  return expect(element, tag);
}

/** The elements in one. @throws Malformed */
export function children({ content }: Element): Element[] {
  const elements: Element[] = [];
  for (let offset = 0; offset < content.length; ) {
    const element = next(content, offset);
    elements.push(element);
    offset += element.encoded.length;
  }
  return elements;
}

/** @throws Malformed where there is none, or one with another tag */
export function expect(element: Element | undefined, tag: number): Element {
  if (element?.tag !== tag)
    throw new Malformed(`DER: an element has the tag ${element?.tag ?? 'of none'} instead of ${tag}`);
  return element;
}

function next(bytes: Buffer, start: number): Element {
  const tag = bytes[start] ?? 0;
  const first = bytes[start + 1];
  if (first === undefined || (tag & 0x1f) === 0x1f) throw new Malformed('DER: an element ends early');
  const size = first & 0x80 ? first & 0x7f : 0;
  let length = first;
  if (size > 0) {
    if (size > 4 || start + 2 + size > bytes.length) throw new Malformed('DER: a length cannot be read');
    length = bytes.readUIntBE(start + 2, size);
    if (length < 0x80 || length < 2 ** (8 * (size - 1)))
      throw new Malformed('DER: a length is not in its shortest form');
  } else if (first === 0x80) throw new Malformed('DER: a length is not definite');
  const from = start + 2 + size;
  if (length > bytes.length - from) throw new Malformed('DER: an element is longer than what it is in');
  return { tag, content: bytes.subarray(from, from + length), encoded: bytes.subarray(start, from + length) };
}

/** In the form 1.2.840. @throws Malformed */
export function objectIdentifier(element: Element | undefined): string {
  const { content } = expect(element, tags.objectIdentifier);
  if ((content.at(-1) ?? 0x80) & 0x80) throw new Malformed('DER: an object identifier ends early');
  const arcs: number[] = [];
  let arc = 0;
  for (const byte of content) {
    arc = arc * 128 + (byte & 0x7f);
    if (arc > Number.MAX_SAFE_INTEGER) throw new Malformed('DER: an object identifier is too large');
    if (byte & 0x80) continue;
    if (arcs.length === 0) {
      const root = Math.min(2, Math.floor(arc / 40));
      arcs.push(root, arc - 40 * root);
    } else arcs.push(arc);
    arc = 0;
  }
  return arcs.join('.');
}

/** A number that is not negative. @throws Malformed */
export function smallInteger(element: Element | undefined, tag: number = tags.integer): number {
  const { content } = expect(element, tag);
  if (content.length < 1 || content.length > 6 || (content[0] ?? 0) & 0x80)
    throw new Malformed('DER: a number is negative or too large');
  return content.readUIntBE(0, content.length);
}

/** @throws Malformed */
export function boolean(element: Element | undefined): boolean {
  const { content } = expect(element, tags.boolean);
  if (content.length !== 1 || (content[0] !== 0 && content[0] !== 0xff))
    throw new Malformed('DER: a truth value is neither');
  return content[0] === 0xff;
}

/** Whole octets of a bit string. @throws Malformed */
export function bitString(element: Element | undefined): Buffer {
  const { content } = expect(element, tags.bitString);
  if (content[0] !== 0) throw new Malformed('DER: a bit string is not one of whole bytes');
  return content.subarray(1);
}

/** UTCTime or GeneralizedTime as in RFC 5280 §4.1.2.5, in milliseconds since 1970. @throws Malformed */
export function time({ tag, content }: Element): number {
  const text = content.toString('latin1');
  const [, century, ...parts] = /^(\d\d)?(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(text) ?? [];
  const expected = tag === tags.utcTime ? 13 : tag === tags.generalizedTime ? 15 : 0;
  if (text.length !== expected || parts.length === 0) throw new Malformed('DER: a time cannot be read');
  const [year = '', month, day, hour, minute, second] = parts;
  const full = century ?? (Number(year) < 50 ? '20' : '19');
  const milliseconds = Date.parse(`${full}${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  if (Number.isNaN(milliseconds)) throw new Malformed('DER: there is no such time');
  return milliseconds;
}
