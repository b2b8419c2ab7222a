import assert from 'node:assert/strict';

/** Every writing of some bytes that somebody could come across. */
export function writingsOf(value: string | Buffer): Map<string, string | Buffer> {
  const bytes = Buffer.from(value as string);
  const hex = bytes.toString('hex');
  const writings = new Map<string, string | Buffer>([
    ['plain', bytes],
    ['reversed', Buffer.from(bytes).reverse()],
    ['hex', hex],
    ['HEX', hex.toUpperCase()],
    ['hex with blanks', hex.replace(/..(?!$)/g, '$& ')],
    ['numbers', bytes.join(',')],
  ]);
  for (const encoding of ['base64', 'base64url'] as const)
    for (const shift of [0, 1, 2]) {
      // Without the letters at either end, which depend on what is beside.
      const text = Buffer.concat([Buffer.alloc(shift), bytes]).toString(encoding);
      const whole = Math.floor((bytes.length + shift) / 3) * 4;
      writings.set(`${encoding} at ${shift}`, text.slice(shift === 0 ? 0 : 4, whole));
    }
  return writings;
}

/** A search for values in each of their writings: it fails where one is found. */
export function searchFor(values: readonly (string | Buffer)[]) {
  const needles = values.flatMap((value) =>
    [...writingsOf(value)].map(([form, text]) => ({
      what: `${form} of ${value}`,
      bytes: Buffer.from(text as string),
    })),
  );
  return (where: string, haystack: Buffer | string): void => {
    const bytes = Buffer.from(haystack as string);
    for (const needle of needles)
      assert.equal(bytes.includes(needle.bytes), false, `${where} has ${needle.what}`);
  };
}
