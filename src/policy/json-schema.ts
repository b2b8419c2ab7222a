import { type JsonSchema, toJsonSchema } from '@valibot/to-json-schema';
import type * as v from 'valibot';
import { principal } from './schema/access-policy.ts';
import { launcherConfiguration } from './schema/launcher.ts';
import { session } from './schema/session.ts';

/**
 * The JSON Schema (draft-07) of a session file, for editors. It takes what the CAS takes, as it stands in the file:
 * numbers and booleans without quotes, template variables not filled in (but for the kind of a secret). What it
 * cannot say, the CAS alone checks.
 */
export const sessionJsonSchema = (): object => jsonSchema(session, { principal });

/** The same for /etc/envcas/config.yaml, as a file or as it stands in a session file. */
export const launcherJsonSchema = (): object => jsonSchema(launcherConfiguration, {});

function jsonSchema(schema: v.GenericSchema, definitions: Record<string, v.GenericSchema>): object {
  return toJsonSchema(schema, {
    target: 'draft-07',
    definitions,
    ignoreActions: ['check', 'raw_check', 'transform', 'raw_transform', 'to_lower_case'],
    overrideSchema: ({ valibotSchema, jsonSchema }) => {
      switch (valibotSchema.type) {
        case 'string':
          return { type: ['string', ...unquoted] };
        case 'picklist':
          return anyOf([jsonSchema, variable]);
        case 'union':
          return anyOf(jsonSchema.anyOf as JsonSchema[]);
        case 'strict_object':
          return withoutTag(jsonSchema);
        case 'record':
          return {
            ...jsonSchema,
            propertyNames: { ...(jsonSchema.propertyNames as JsonSchema), type: 'string' },
          };
        case 'optional':
          return withUsefulDefault(jsonSchema);
        case 'custom':
          return {};
      }
      return undefined;
    },
    overrideAction: ({ valibotAction, jsonSchema }) => {
      switch (valibotAction.type) {
        case 'regex':
        case 'starts_with':
          return matching(jsonSchema, (valibotAction as unknown as { message: unknown }).message);
        // Has no effect on a text that stands for a number, or may be one.
        case 'min_value':
        case 'max_value':
        case 'min_length':
        case 'max_length':
          return jsonSchema;
      }
      return undefined;
    },
  });
}

/** What a text without quotes may be to an editor, and texts that look like it. */
const unquoted = ['number', 'boolean'] as const;
const lookalikes = { number: ['0.3', '700', '1'.repeat(32), '1'.repeat(64)], boolean: ['true'] };

/** `$NAME` and `${NAME}` in a text; `\$NAME` and `$$SCONE::name$$` are none. */
const variable = {
  title: 'A variable',
  type: 'string',
  pattern: '(^|[^\\\\$])\\$(\\{[A-Za-z_][A-Za-z0-9_]*\\}|[A-Za-z_])',
} satisfies JsonSchema;

/** A text with a pattern, at the latest when its template variables are filled in. */
function matching(text: JsonSchema, message: unknown): JsonSchema {
  const pattern = new RegExp(text.pattern ?? '');
  const types = unquoted.filter((type) => lookalikes[type].some((lookalike) => pattern.test(lookalike)));
  return Object.assign(text, {
    type: ['string', ...types],
    pattern: `${text.pattern}|${variable.pattern}`,
    // Editors show this in place of the pattern.
    ...(typeof message === 'string' && { patternErrorMessage: message }),
  });
}

/**
 * Any of some schemas. Of those that fit equally badly, editors blame the first, so they are made few: a list is told
 * apart from what may stand alone, and scalars become one schema, which comes last.
 */
function anyOf(options: JsonSchema[]): JsonSchema {
  const [first = {}, second] = options;
  if (first.type === 'array' && second)
    // Editors complete the key of no bare `if`.
    // biome-ignore lint/suspicious/noThenProperty: JSON Schema calls it so
    return { anyOf: [{ if: { type: 'array' }, then: first, else: second }] };
  const all = options.flatMap((option) => (option.anyOf as JsonSchema[] | undefined) ?? option);
  const others = all.filter((option) => !isScalar(option));
  const scalars = all.filter(isScalar);
  if (others.length === 0) return scalars.reduce(merge);
  return { ...kindsOf(others), anyOf: scalars.length === 0 ? others : [...others, scalars.reduce(merge)] };
}

/** The kinds that mappings are told apart by, so that editors complete all of them. */
function kindsOf(mappings: JsonSchema[]): JsonSchema {
  const kinds = mappings.flatMap(
    ({ properties }) => (properties?.kind as JsonSchema | undefined)?.const ?? [],
  );
  return kinds.length === 0 ? {} : { type: 'object', properties: { kind: { enum: kinds } } };
}

const typesOf = ({ type }: JsonSchema) => [type ?? []].flat();

const isScalar = (schema: JsonSchema) =>
  typesOf(schema).length > 0 &&
  !schema.enum &&
  typesOf(schema).every((type) => type !== 'object' && type !== 'array');

/** One of two scalars as one schema: keywords for numbers say nothing of texts, and the other way round. */
function merge(one: JsonSchema, other: JsonSchema): JsonSchema {
  const types = [...new Set([...typesOf(one), ...typesOf(other)])];
  const { pattern: _, ...rest } = { ...one, ...other };
  const patterns = [one, other]
    .filter((schema) => typesOf(schema).includes('string'))
    .map(({ pattern = '' }) => pattern);
  return {
    ...rest,
    // Where whole numbers are asked for, no others are meant.
    type: types.includes('integer') ? types.filter((type) => type !== 'number') : types,
    ...(patterns.every(Boolean) && { pattern: patterns.reduce(either) }),
  };
}

const either = (one: string, other: string) => `${one.replace(`|${variable.pattern}`, '')}|${other}`;

/** An editor sees what stands after a tag. */
function withoutTag(mapping: JsonSchema): JsonSchema {
  const [key, value] = Object.entries(mapping.properties ?? {})[0] ?? [];
  return key?.startsWith('!') ? (value as JsonSchema) : mapping;
}

/** Editors write the default into the file, where nothing is better than an empty list. */
function withUsefulDefault(schema: JsonSchema): JsonSchema {
  const { default: initial, ...rest } = schema;
  return typeof initial === 'object' ? rest : schema;
}
