import * as v from 'valibot';

/** A mapping with just these keys; anything else in it is an error that names what is expected. */
export const object = <Entries extends v.ObjectEntries>(entries: Entries) =>
  v.strictObject(entries, (issue) => {
    const key = JSON.stringify(issue.path?.at(-1)?.key);
    if (issue.expected === 'never')
      return `unknown key ${key}, expected one of: ${Object.keys(entries).join(', ')}`;
    if (issue.received === 'undefined') return `the key ${key} is missing`;
    return 'expected a mapping of keys to values';
  });

export const text = v.string((issue) => `expected a text, found ${describe(issue.input)}`);

export const list = <Item extends v.GenericSchema>(item: Item) =>
  v.array(item, (issue) => `expected a list, found ${describe(issue.input)}`);

/** One value, or a list of such. */
export const oneOrMany = <Item extends v.GenericSchema>(item: Item) => {
  const many = list(item);
  const one = v.pipe(
    item,
    v.transform((value) => [value]),
  );
  return v.lazy((input) => (Array.isArray(input) ? many : one));
};

/** What was found, in general terms: the value itself may be a secret. */
export function describe(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'an empty value';
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' ? 'a mapping' : 'another text';
}
