import * as v from 'valibot';
import { namePattern, sessionNamePattern } from './names.ts';
import { describe, list, object, oneOrMany, text } from './shapes.ts';
import { splitWords } from './words.ts';

/**
 * The session language, as far as it is understood: the shape of every key, and its normal form. Input is a
 * {@link Value}, in which all scalars are text.
 */

const oneOf = <const Names extends readonly string[]>(...names: Names) =>
  v.picklist(names, (issue) => `expected one of ${names.join(', ')}, found ${describe(issue.input)}`);

const integer = (least: number, most: number) =>
  v.pipe(
    text,
    v.regex(/^(0|[1-9][0-9]{0,15})$/, `expected a whole number from ${least} to ${most}`),
    v.transform(Number),
    v.minValue(least, `expected a whole number from ${least} to ${most}`),
    v.maxValue(most, `expected a whole number from ${least} to ${most}`),
  );

const hex = (digits: number) =>
  v.pipe(
    text,
    v.regex(new RegExp(`^[0-9A-Fa-f]{${digits}}$`), `expected ${digits} hexadecimal digits`),
    v.toLowerCase(),
  );

const name = v.pipe(text, v.regex(namePattern, 'a name has 1 to 512 of the characters A-Z a-z 0-9 _ . ~ -'));

const imageName = v.pipe(text, v.minLength(1, 'a name is needed'), v.maxLength(512, 'the name is too long'));

const absolutePath = v.pipe(
  text,
  v.startsWith('/', 'expected an absolute path'),
  v.check((path) => !path.includes('\0'), 'a path holds no NUL byte'),
);

const withoutNul = v.pipe(
  text,
  v.check((value) => !value.includes('\0'), 'a NUL byte cannot be part of an argument or variable'),
);

const commandLine = v.pipe(
  withoutNul,
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const words = splitWords(dataset.value);
    if (words) return words;
    addIssue({ message: 'a quotation mark is not closed' });
    return NEVER;
  }),
);
const commandWords = list(withoutNul);
const command = v.lazy((input) => (Array.isArray(input) ? commandWords : commandLine));

const variableName = v.pipe(text, v.regex(/^[^=\0]+$/, 'a variable name is not empty and has no = or NUL'));

/** Operations on a session, and who may do them. */
const principals = v.pipe(
  oneOrMany(oneOf('CREATOR', 'ANY', 'NONE')),
  v.check(
    (list) => list.length === 1 || !(list.includes('ANY') || list.includes('NONE')),
    'ANY and NONE stand alone',
  ),
);

const tolerable = oneOf(
  'debug-mode',
  'hyperthreading',
  'insecure-igpu',
  'software-hardening-needed',
  'aepic-leak',
  'insecure-configuration',
  'outdated-tcb',
);

const attestationVariant = object({
  mrenclave: oneOrMany(hex(64)),
  one_time_password_shared_secret: v.optional(text),
});

const service = object({
  name,
  image_name: v.optional(imageName),
  command: v.optional(command, []),
  environment: v.optional(
    v.nullable(v.record(variableName, v.nullable(withoutNul), 'expected a mapping of variables'), {}),
    {},
  ),
  pwd: v.optional(absolutePath),
  attestation: v.optional(oneOrMany(attestationVariant), []),
  mrenclaves: v.optional(list(hex(64)), []),
  platforms: v.optional(list(hex(64)), []),
  one_time_password_shared_secret: v.optional(text),
});

const fileWithContent = object({ path: absolutePath, content: v.optional(text) });
const filePath = v.pipe(
  absolutePath,
  v.transform((path): v.InferOutput<typeof fileWithContent> => ({ path })),
);
const injectionFile = v.lazy((input) => (typeof input === 'string' ? filePath : fileWithContent));

const image = object({
  name: imageName,
  injection_files: v.optional(list(injectionFile), []),
  provide_secrets: v.optional(list(name)),
});

/** Largest generated secret, in characters or bytes. */
const largestSecret = 1024 * 1024;

const secret = object({
  name: v.pipe(
    name,
    v.check((text) => !text.endsWith('.hex'), 'a name that ends in .hex cannot be told from a format'),
  ),
  kind: oneOf('ascii', 'binary'),
  size: v.optional(integer(1, largestSecret)),
  value: v.optional(text),
});

const security = object({
  attestation: v.optional(
    object({
      mode: v.optional(oneOf('hardware', 'none'), 'hardware'),
      tolerate: v.optional(list(tolerable), []),
      ignore_advisories: v.optional(
        oneOrMany(
          v.pipe(text, v.regex(/^(\*|INTEL-SA-\d{5})$/, 'expected "*" or INTEL-SA- and five digits')),
        ),
        [],
      ),
      trusted_scone_qe_pubkeys: v.optional(list(hex(64)), []),
      one_time_password_shared_secret: v.optional(text),
    }),
    {},
  ),
});

/** The whole document. */
export const session = object({
  name: v.pipe(
    text,
    v.regex(sessionNamePattern, 'a session name has levels of A-Z a-z 0-9 _ . ~ - separated by /'),
  ),
  version: v.pipe(
    text,
    v.regex(/^0\.3(\.([0-9]|1[0-2]))?$/, 'expected a version of the session language from "0.3" to "0.3.12"'),
  ),
  predecessor: v.optional(v.nullable(hex(64)), null),
  access_policy: v.optional(
    object({
      read: v.optional(principals, 'CREATOR'),
      update: v.optional(principals, 'CREATOR'),
      create_sessions: v.optional(principals),
    }),
    {},
  ),
  security: v.optional(security, {}),
  images: v.optional(list(image), []),
  services: v.optional(list(service), []),
  secrets: v.optional(list(secret), []),
});

/** A session as it was written, in normal form. */
export type Session = v.InferOutput<typeof session>;
export type Service = Session['services'][number];
export type Image = Session['images'][number];
export type SecretDefinition = Session['secrets'][number];
