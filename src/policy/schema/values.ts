import * as v from 'valibot';
import { parseDuration } from '../../secrets/duration.ts';
import { namePattern, sessionNamePattern } from '../names.ts';
import { choice, text } from '../shapes.ts';
import type { Value } from '../yaml.ts';

/** Small values that every part of the language is made of. Descriptions are shown by editors (json-schema.ts). */

export const described = <Schema extends v.GenericSchema>(schema: Schema, description: string) =>
  v.pipe(schema, v.description(description));

export const invalidText = (problemOf: (value: string) => string | undefined) =>
  v.pipe(
    text,
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed) return;
      const message = problemOf(dataset.value);
      if (message !== undefined) addIssue({ message });
    }),
  );

/** `$$SCONE::name$$` in the place of a whole value: a secret, or a config-fragment with further structure. */
const referencePattern = /^\$\$(?:SCONE|PALAEMON)::(?:[^$]|\$(?!\$))+\$\$$/;
export const isReference = (input: unknown): input is string =>
  typeof input === 'string' && referencePattern.test(input);

const reference = v.pipe(text, v.regex(referencePattern, 'expected a variable $$SCONE::name$$'));

export const referenceOr = <Schema extends v.GenericSchema>(schema: Schema) =>
  choice(isReference, reference, schema) as v.GenericSchema<
    string | v.InferInput<Schema>,
    string | v.InferOutput<Schema>
  >;

export const anyValue = v.custom<Value>(() => true);

export const name = v.pipe(
  text,
  v.regex(namePattern, 'a name has 1 to 512 of the characters A-Z a-z 0-9 _ . ~ -'),
);

export const imageName = v.pipe(
  text,
  v.minLength(1, 'a name is needed'),
  v.maxLength(512, 'the name is too long'),
);

export const sessionName = v.pipe(
  text,
  v.regex(sessionNamePattern, 'a session name has levels of A-Z a-z 0-9 _ . ~ - separated by /'),
);

/** A session named from within another: absolute, or beginning with ./ or ../ */
export const sessionReference = v.pipe(
  text,
  v.regex(
    /^(?=.{1,2048}$)(\/|(\.\.?\/)*(\.\.?|[A-Za-z0-9_.~-]{1,512}(\/[A-Za-z0-9_.~-]{1,512})*))$/,
    'expected the name of a session, or a path relative to this one such as ../name',
  ),
);

export const absolutePath = v.pipe(
  text,
  v.startsWith('/', 'expected an absolute path'),
  v.check((path) => !path.includes('\0'), 'a path holds no NUL byte'),
);

export const duration = v.pipe(
  text,
  v.check(
    (written) => (parseDuration(written) ?? Number.POSITIVE_INFINITY) <= 86_400_000,
    'expected a duration of at most a day, such as 10s',
  ),
);

export const oneTimePassword = described(
  text,
  'Shared secret of one-time passwords: base32, or $$SCONE::name:base32nopad$$ of a binary secret',
);

export const hasKey =
  <Key extends string>(key: Key) =>
  (input: unknown): input is { [K in Key]: unknown } =>
    typeof input === 'object' && input !== null && Object.hasOwn(input, key);
