import * as v from 'valibot';
import { nearest } from './nearest.ts';

/**
 * Building blocks of schemas over {@link Value}, in which all scalars are text. What a schema gives out is valid
 * input to it again, so that a section can be checked at upload, and once more when its references are known.
 */

/** What an issue's author may have meant, where there is a guess. */
const suggestions = new WeakMap<object, string>();
export const suggestionFor = (issue: object): string | undefined => suggestions.get(issue);

export function suggest(issue: object, found: unknown, known: readonly string[]): void {
  const guess = typeof found === 'string' ? nearest(found, known) : undefined;
  if (guess !== undefined) suggestions.set(issue, guess);
}

/** Valibot takes a list for a mapping with the keys 0, 1 and so on; this one is a mapping to whoever reads it. */
function notList<Schema extends v.GenericSchema>(mapping: Schema): Schema {
  const checked = v.lazy((input) => (Array.isArray(input) ? noMapping : mapping));
  return { ...mapping, ...checked, type: mapping.type };
}

const expectedMapping = (issue: v.BaseIssue<unknown>) =>
  `expected a mapping of keys to values, found ${describe(issue.input)}`;
const noMapping = v.never(expectedMapping);

const keyProblem = (entries: v.ObjectEntries) => {
  const known = Object.keys(entries);
  return (issue: v.BaseIssue<unknown>): string => {
    const found = issue.path?.at(-1)?.key;
    if (issue.expected === 'never') {
      suggest(issue, found, known);
      return `unknown key ${JSON.stringify(found)}, expected one of: ${known.join(', ')}`;
    }
    if (issue.received === 'undefined') return `the key ${JSON.stringify(found)} is missing`;
    return expectedMapping(issue);
  };
};

const isMapping = (input: unknown): input is Record<string, unknown> =>
  typeof input === 'object' && input !== null;

/** A mapping with just these keys; each other one in it is an error that names what is expected. */
export const object = <const Entries extends v.ObjectEntries>(entries: Entries) => {
  const message = keyProblem(entries);
  // Valibot's own strict mapping tells the first of the unknown keys.
  const checked = v.pipe(
    v.looseObject(entries, message),
    v.rawCheck(({ dataset: { value: input }, addIssue }) => {
      if (!isMapping(input)) return;
      for (const [key, value] of Object.entries(input))
        if (!Object.hasOwn(entries, key))
          addIssue({
            input: key,
            expected: 'never',
            path: [{ type: 'object', origin: 'key', input, key, value }],
            message,
          });
    }),
    // Is not done where there are issues, and with it no check of the whole mapping.
    v.transform((mapping) => mapping),
  );
  return notList({ ...v.strictObject(entries, message), '~run': checked['~run'] });
};

/** A mapping with these keys among others. */
export const looseObject = <const Entries extends v.ObjectEntries>(entries: Entries) =>
  notList(v.looseObject(entries, keyProblem(entries)));

/** A mapping whose keys and values have one shape each. */
export const record = <Key extends v.GenericSchema<string, string>, Item extends v.GenericSchema>(
  key: Key,
  item: Item,
) => notList(v.record(key, item, expectedMapping));

export const text = v.string((issue) => `expected a text, found ${describe(issue.input)}`);

/** Items of a list where nothing else is said: a hundred times as many as any policy that is known has. */
const MOST_ITEMS = 2000;

/** @param most items; of more, none is looked at */
export function list<Item extends v.GenericSchema>(item: Item, most = MOST_ITEMS) {
  const all = v.array(item, (issue) => `expected a list, found ${describe(issue.input)}`);
  const tooMany = v.never(
    (issue) => `expected at most ${most} items, found ${(issue.input as unknown as unknown[]).length}`,
  );
  const checked = v.lazy((input) => (Array.isArray(input) && input.length > most ? tooMany : all));
  return { ...all, ...checked, type: all.type };
}

export const oneOf = <const Names extends readonly string[]>(...names: Names) =>
  v.picklist(names, (issue) => {
    suggest(issue, issue.input, names);
    return `expected one of ${names.join(', ')}, found ${describe(issue.input)}`;
  });

/**
 * One of several shapes, picked by a look at the input, so that errors speak of the one that was meant. Whoever reads
 * schemas (json-schema.ts) sees a union of the options.
 */
export function pick<const Options extends readonly v.GenericSchema[]>(
  options: Options,
  optionFor: (input: unknown) => v.GenericSchema,
) {
  return Object.assign(v.lazy(optionFor), { type: 'union', options }) as unknown as v.GenericSchema<
    v.InferInput<Options[number]>,
    v.InferOutput<Options[number]>
  >;
}

/** One of two shapes. */
export const choice = <A extends v.GenericSchema, B extends v.GenericSchema>(
  isFirst: (input: unknown) => boolean,
  first: A,
  second: B,
) => pick([first, second], (input) => (isFirst(input) ? first : second));

const isText = (input: unknown) => typeof input === 'string';

/** A text, or something that is none. */
export const textOr = <A extends v.GenericSchema, B extends v.GenericSchema>(whenText: A, other: B) =>
  choice(isText, whenText, other);

/** One value, or a list of such. */
export const oneOrMany = <Item extends v.GenericSchema>(
  item: Item,
  most?: number,
): v.GenericSchema<v.InferInput<Item> | v.InferInput<Item>[], v.InferOutput<Item>[]> =>
  choice(
    Array.isArray,
    list(item, most),
    v.pipe(
      item,
      v.transform((value) => [value]),
    ),
  ) as v.GenericSchema<v.InferInput<Item> | v.InferInput<Item>[], v.InferOutput<Item>[]>;

/** A whole number, kept as one. */
export const integer = (least: number, most: number) => {
  const expected = `expected a whole number from ${least} to ${most}`;
  return choice(
    (input) => typeof input === 'number',
    v.pipe(v.number(), v.integer(expected), v.minValue(least, expected), v.maxValue(most, expected)),
    v.pipe(
      text,
      v.regex(/^(0|-?[1-9][0-9]{0,15})$/, expected),
      v.transform(Number),
      v.minValue(least, expected),
      v.maxValue(most, expected),
    ),
  );
};

/** true or false, as YAML 1.2 writes them. */
export const boolean = choice(
  (input) => typeof input === 'boolean',
  v.boolean(),
  v.pipe(
    text,
    v.regex(/^(true|True|TRUE|false|False|FALSE)$/, 'expected true or false'),
    v.transform((value) => value.toLowerCase() === 'true'),
  ),
);

export const hex = (digits: number) =>
  v.pipe(
    text,
    v.regex(new RegExp(`^[0-9A-Fa-f]{${digits}}$`), `expected ${digits} hexadecimal digits`),
    v.toLowerCase(),
  );

/** What was found, in general terms: the value itself may be a secret. */
export function describe(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'an empty value';
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' ? 'a mapping' : 'another text';
}
